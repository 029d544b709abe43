"""Noise at a known ratio of powers, told by what is in the files that are sent."""

import io
import itertools
import struct
import wave
from typing import TypeAlias

import numpy as np
import pytest
from cotune.api.corpus import Noise, NoiseType
from cotune.measurement.corpus import Clip, CorpusError
from cotune.measurement.noise import mixed, noisy, pink, white
from cotune.measurement.pulse_code import Samples, read_wav
from cotune_simulation.clips import read_clip, write_clip
from numpy.typing import NDArray

RATE = 16_000
Mono: TypeAlias = NDArray[np.float64]


def voice(pitch: float, loudness: float = 0.1, seconds: float = 1.0) -> Samples:
    """Not a voice, but louder and quieter as one is."""
    time = np.arange(int(RATE * seconds)) / RATE
    tone = np.sin(2 * np.pi * pitch * time) * (0.2 + np.abs(np.sin(2 * np.pi * 3 * time)))
    return (loudness * tone).reshape(-1, 1)


def wav(samples: Samples, width: int = 2) -> bytes:
    whole = np.rint(samples * 2 ** (8 * width - 1)).astype(np.int64)
    match width:
        case 1:
            data = (whole + 128).astype(np.uint8).tobytes()
        case 3:
            data = b"".join(int(it).to_bytes(3, "little", signed=True) for it in whole.ravel())
        case _:
            data = whole.astype(f"<i{width}").tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(samples.shape[1])
        opened.setsampwidth(width)
        opened.setframerate(RATE)
        opened.writeframes(data)
    return file.getvalue()


def clip(name: str, samples: Samples, width: int = 2) -> Clip:
    return Clip(name, wav(samples, width), len(samples) / RATE, f"words of {name}")


CORPUS = tuple(clip(f"{number}.wav", voice(110.0 * number)) for number in range(1, 5))


def measured_snr_db(clean: bytes, sent: bytes, scale: float = 1.0) -> float:
    speech = read_wav(clean).samples * scale
    rest = read_wav(sent).samples - speech
    return float(10 * np.log10(np.mean(speech**2) / np.mean(rest**2)))


@pytest.mark.parametrize("kind", NoiseType)
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_clip_is_sent_at_every_ratio_to_a_tenth_of_a_decibel(kind: NoiseType, width: int) -> None:
    corpus = tuple(clip(f"{number}.wav", voice(110.0 * number), width) for number in range(1, 5))

    sent = noisy(corpus, Noise(snr_db=(0, 10, 30), type=kind))

    assert [(it.name, it.condition) for it in sent] == [
        (one.name, condition) for one in corpus for condition in ("clean", "snr0", "snr10", "snr30")
    ]
    clean = {it.name: it.audio for it in corpus}
    for it in sent:
        assert it.transcript == f"words of {it.name}"
        if it.condition == "clean":
            assert it.audio == clean[it.name]
        else:
            asked = float((it.condition or "").removeprefix("snr"))
            assert measured_snr_db(clean[it.name], it.audio) == pytest.approx(asked, abs=0.1)


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 5.0])
def test_what_would_leave_the_range_is_made_quieter_and_keeps_its_ratio(snr_db: float) -> None:
    loud = voice(220, loudness=0.8)

    found = mixed(loud, white(len(loud), np.random.default_rng(1)), snr_db)

    assert found.scale < 1
    assert np.max(np.abs(found.samples)) == pytest.approx(32_767 / 32_768)
    assert found.snr_db(loud) == pytest.approx(snr_db, abs=0.1)
    assert measured_snr_db(wav(loud), wav(found.samples), found.scale) == pytest.approx(snr_db, abs=0.1)


def test_the_seed_decides_and_the_other_clips_do_not() -> None:
    once, again = (noisy(CORPUS, Noise(snr_db=(5,), seed=3)) for _ in range(2))
    alone = noisy(CORPUS[1:2], Noise(snr_db=(5,), seed=3))
    other = noisy(CORPUS, Noise(snr_db=(5,), seed=4))

    assert once == again
    assert [it for it in once if it.name == "2.wav"] == list(alone)
    assert not {it.audio for it in once if it.condition == "snr5"} & {it.audio for it in other}


def test_the_same_noise_is_only_louder_at_a_lower_ratio() -> None:
    speech = voice(110)
    noise = white(len(speech), np.random.default_rng(3))

    quiet, loud = (mixed(speech, noise, it).samples - speech for it in (20.0, 10.0))

    assert loud == pytest.approx(quiet * 10**0.5)


def test_without_clean_only_the_ratios_are_sent() -> None:
    sent = noisy(CORPUS[:1], Noise(snr_db=(-5,), clean=False))

    assert [it.condition for it in sent] == ["snrMinus5"]


def test_pink_noise_has_the_same_power_in_every_octave_and_white_twice_as_much_in_the_next() -> None:
    def octaves(noise: Samples) -> list[float]:
        power = np.abs(np.fft.rfft(noise[:, 0])) ** 2
        return [float(np.sum(power[low : 2 * low])) for low in (1000, 2000, 4000)]

    rose, snow = (octaves(kind(1 << 16, np.random.default_rng(1))) for kind in (pink, white))

    assert [later / earlier for earlier, later in itertools.pairwise(rose)] == pytest.approx([1, 1], rel=0.15)
    assert [later / earlier for earlier, later in itertools.pairwise(snow)] == pytest.approx([2, 2], rel=0.15)


def test_babble_is_made_of_the_other_clips() -> None:
    tones = tuple(clip(f"{pitch}.wav", voice(pitch)) for pitch in (500.0, 1000.0, 2000.0))

    (sent,) = [it for it in noisy(tones, Noise(snr_db=(0,), type=NoiseType.BABBLE)) if it.name == "500.0.wav"][1:]

    added = read_wav(sent.audio).samples - read_wav(tones[0].audio).samples
    spectrum = np.abs(np.fft.rfft(added[:, 0]))
    assert {round(float(it), -2) for it in np.argsort(spectrum)[-6:]} == {1000.0, 2000.0}


def test_all_channels_get_the_same_noise() -> None:
    stereo = np.hstack([voice(200), voice(300)])

    sent = noisy((clip("stereo.wav", stereo),), Noise(snr_db=(10,), clean=False))[0]

    added = read_wav(sent.audio).samples - read_wav(wav(stereo)).samples
    assert added[:, 0] == pytest.approx(added[:, 1], abs=2 / 32_768)
    assert measured_snr_db(wav(stereo), sent.audio) == pytest.approx(10, abs=0.1)


def test_what_else_a_file_carries_is_kept() -> None:
    tone = bytes(round(128 + 24 * np.sin(index / 9)) for index in range(8000))
    spoken = Clip("1.wav", write_clip(tone, 8000, "close the door"), 1.0, "close the door")

    sent = noisy((spoken,), Noise(snr_db=(10,), clean=False))[0]

    assert read_clip(sent.audio).transcript == "close the door"
    assert len(sent.audio) == struct.unpack_from("<I", sent.audio, 4)[0] + 8
    with wave.open(io.BytesIO(sent.audio)) as opened:
        assert (opened.getframerate(), opened.getsampwidth(), opened.getnframes()) == (8000, 2, 8000)


@pytest.mark.parametrize(
    ("clips", "noise", "words"),
    [
        ((clip("silent.wav", np.zeros((100, 1))),), Noise(snr_db=(10,)), "silent.wav is silent"),
        (
            (clip("quiet.wav", voice(110, loudness=0.0005)),),
            Noise(snr_db=(40,)),
            "quiet.wav is too quiet for noise at 40",
        ),
        (CORPUS[:2], Noise(snr_db=(10,), type=NoiseType.BABBLE), "at least 2 other clips than 1.wav"),
        ((Clip("text.wav", b"no audio", 1.0, ""),), Noise(snr_db=(10,)), "text.wav: "),
    ],
)
def test_where_there_is_no_true_ratio_there_is_no_corpus(clips: tuple[Clip, ...], noise: Noise, words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        noisy(clips, noise)
