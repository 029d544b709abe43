"""WAV files as numbers and back: uncompressed samples of 8 to 32 bits, whatever else the file carries kept."""

import io
import struct
import wave
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float64]
"""Shape (frames, channels), between -1 and 1."""

LARGEST = 32_767 / 32_768
"""The largest that 16 bits hold."""
_PCM = 1


@dataclass(frozen=True)
class Sound:
    """A recording."""

    rate: int
    """Frames a second."""
    samples: Samples


def read_wav(file: bytes) -> Sound:
    """The samples of a WAV file.

    Raises:
        ValueError: it is none, or its samples are compressed.
    """
    try:
        with wave.open(io.BytesIO(file)) as opened:
            parameters, frames = opened.getparams(), opened.readframes(opened.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(str(error) or "the file is cut") from error
    width, channels = parameters.sampwidth, parameters.nchannels
    frames = frames[: len(frames) - len(frames) % (width * channels)]
    match width:
        case 1:
            values = np.frombuffer(frames, np.uint8).astype(np.float64) - 128
        case 2:
            values = np.frombuffer(frames, "<i2").astype(np.float64)
        case 3:
            octets = np.frombuffer(frames, np.uint8).reshape(-1, 3).astype(np.int32)
            whole = octets[:, 0] | (octets[:, 1] << 8) | (octets[:, 2] << 16)
            values = ((whole ^ 0x800000) - 0x800000).astype(np.float64)
        case _:
            values = np.frombuffer(frames, "<i4").astype(np.float64)
    return Sound(parameters.framerate, (values / 2 ** (8 * width - 1)).reshape(-1, channels))


def as_heard(samples: Samples) -> Samples:
    """The samples as 16 bits keep them."""
    return np.clip(np.rint(samples * 32_768), -32_768, 32_767) / 32_768


def with_samples(file: bytes, sound: Sound) -> bytes:
    """The same WAV file with other samples, of 16 bits; its other chunks stay where they are."""
    channels = sound.samples.shape[1]
    form = struct.pack("<HHIIHH", _PCM, channels, sound.rate, sound.rate * channels * 2, channels * 2, 16)
    data = np.rint(as_heard(sound.samples) * 32_768).astype("<i2").tobytes()
    content, at = b"WAVE", 12
    while at + 8 <= len(file):
        name, size = file[at : at + 4], struct.unpack_from("<I", file, at + 4)[0]
        replaced = {b"fmt ": form, b"data": data}
        body = replaced.get(name, file[at + 8 : at + 8 + size])
        content += name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        at += 8 + size + size % 2
    return b"RIFF" + struct.pack("<I", len(content)) + content
