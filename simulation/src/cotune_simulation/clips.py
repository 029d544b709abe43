"""WAV clips that carry their transcript in a RIFF comment (LIST/INFO/ICMT), so that a simulation can hear them."""

import io
import struct
import wave
from dataclasses import dataclass


@dataclass(frozen=True)
class Clip:
    """What is read from an upload."""

    seconds: float
    transcript: str
    """Empty where the clip carries none."""


def write_clip(samples: bytes, rate: int, transcript: str) -> bytes:
    """A mono WAV file of 8-bit samples at `rate` Hz with its transcript."""
    file = io.BytesIO()
    with wave.open(file, "wb") as clip:
        clip.setnchannels(1)
        clip.setsampwidth(1)
        clip.setframerate(rate)
        clip.writeframes(samples)
    comment = b"INFO" + _chunk(b"ICMT", transcript.encode() + b"\0")
    content = file.getvalue()[8:] + _chunk(b"LIST", comment)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def read_clip(content: bytes) -> Clip:
    """Length and transcript of a WAV file.

    :raises ValueError: it is none.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("Invalid file format: the simulation reads WAV files only.")
    bytes_per_second, audio_bytes, transcript = 0, 0, ""
    for name, body in _chunks(content[12:]):
        if name == b"fmt " and len(body) >= 12:
            bytes_per_second = struct.unpack_from("<I", body, 8)[0]
        elif name == b"data":
            audio_bytes = len(body)
        elif name == b"LIST" and body[:4] == b"INFO":
            texts = (text for key, text in _chunks(body[4:]) if key == b"ICMT")
            transcript = next(texts, b"").rstrip(b"\0").decode(errors="replace")
    if not bytes_per_second:
        raise ValueError("Invalid file format: the WAV file does not describe its audio.")
    return Clip(audio_bytes / bytes_per_second, transcript)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks: list[tuple[bytes, bytes]] = []
    at = 0
    while at + 8 <= len(content):
        size = struct.unpack_from("<I", content, at + 4)[0]
        chunks.append((content[at : at + 4], content[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks
