"""Noise at a known ratio of powers, so that models which hear all of a clean clip can be told apart."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cotune.api.corpus import CLEAN, Noise, NoiseType, condition
from cotune.measurement.corpus import Clip, CorpusError
from cotune.measurement.pulse_code import LARGEST, Samples, Sound, as_heard, read_wav, with_samples

_MOST_TALKERS, _FEWEST_TALKERS = 6, 2
_TOLERANCE_DB = 0.1


def noisy(clips: Sequence[Clip], noise: Noise) -> tuple[Clip, ...]:
    """Every clip under every condition, the conditions of a clip one after the other.

    A clip's noise depends on the seed and on its name only, and is the same but for its power at every ratio.

    Raises:
        CorpusError: a clip is silent or too quiet for a ratio, or there are too few others for babble.
    """
    sounds = {it.name: _read(it) for it in clips}
    made: list[Clip] = []
    for clip in clips:
        sound = sounds[clip.name]
        source = np.random.default_rng([noise.seed, zlib.crc32(clip.name.encode())])
        match noise.type:
            case NoiseType.WHITE:
                added = white(len(sound.samples), source)
            case NoiseType.PINK:
                added = pink(len(sound.samples), source)
            case NoiseType.BABBLE:
                added = _babble(clip.name, sounds, source)
        if noise.clean:
            made.append(replace(clip, condition=CLEAN))
        made += (_mixed(clip, sound, added, it) for it in noise.snr_db)
    return tuple(made)


@dataclass(frozen=True)
class Mixture:
    """Speech and noise together."""

    samples: Samples
    scale: float
    """By what both were multiplied so that nothing leaves the range; 1: by nothing."""

    def snr_db(self, speech: Samples) -> float:
        """The ratio of powers as 16 bits keep it."""
        kept = speech * self.scale
        rest = _power(as_heard(self.samples) - kept)
        return float(10 * np.log10(_power(kept) / rest)) if rest else float("inf")


def mixed(speech: Samples, noise: Samples, snr_db: float) -> Mixture:
    """Speech and noise at a ratio of powers; what would leave the range is made quieter, both alike.

    Args:
        speech: not silent.
        noise: not silent; of the same number of frames.
        snr_db: power of the speech over that of the noise, in dB.
    """
    gain = np.sqrt(_power(speech) / _power(noise) / 10 ** (snr_db / 10))
    both = speech + gain * noise
    scale = min(LARGEST / float(np.max(np.abs(both))), 1.0)
    return Mixture(both * scale, scale)


def white(frames: int, source: np.random.Generator) -> Samples:
    """The same power at all frequencies; one channel, which is mixed into all of a clip's."""
    return source.standard_normal((frames, 1))


def pink(frames: int, source: np.random.Generator) -> Samples:
    """Power that falls with the frequency; one channel."""
    spectrum = np.fft.rfft(source.standard_normal(frames))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.fft.irfft(spectrum, frames).reshape(-1, 1)


def babble(others: Sequence[Samples], frames: int, source: np.random.Generator) -> Samples:
    """Several at once, equally loud, each from a moment of its own and again from its beginning; one channel."""
    which: list[int] = source.choice(len(others), min(len(others), _MOST_TALKERS), replace=False).tolist()
    total = np.zeros((frames, 1))
    for number in which:
        one: Samples = others[number]
        talker: Samples = np.mean(one, axis=1, keepdims=True)
        begun: Samples = np.roll(talker, -int(source.integers(len(talker))), axis=0)
        total += np.resize(begun / np.sqrt(_power(talker)), (frames, 1))
    return total


def _babble(name: str, sounds: dict[str, Sound], source: np.random.Generator) -> Samples:
    own = sounds[name]
    others = [it for other, it in sorted(sounds.items()) if other != name and _power(it.samples) > 0]
    if len(others) < _FEWEST_TALKERS:
        raise CorpusError(f"noise of type Babble needs at least {_FEWEST_TALKERS} other clips than {name}")
    if any(it.rate != own.rate for it in others):
        raise CorpusError("noise of type Babble needs clips of one sampling rate")
    return babble([it.samples for it in others], len(own.samples), source)


def _mixed(clip: Clip, sound: Sound, added: Samples, snr_db: int) -> Clip:
    mixture = mixed(sound.samples, added, snr_db)
    found = mixture.snr_db(sound.samples)
    if abs(found - snr_db) > _TOLERANCE_DB:
        raise CorpusError(f"{clip.name} is too quiet for noise at {snr_db} dB: 16 bits make it {found:.1f} dB")
    audio = with_samples(clip.audio, replace(sound, samples=mixture.samples))
    return replace(clip, audio=audio, condition=condition(snr_db))


def _read(clip: Clip) -> Sound:
    try:
        sound = read_wav(clip.audio)
    except ValueError as error:
        raise CorpusError(f"{clip.name}: {error}") from error
    if not len(sound.samples) or _power(sound.samples) == 0:
        raise CorpusError(f"{clip.name} is silent: there is no ratio of its power to a noise's")
    return sound


def _power(samples: Samples) -> float:
    return float(np.mean(samples**2))
