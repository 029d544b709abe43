"""Real speech as a corpus: what is read of the package, and how the noise is mixed in."""

import io
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from cotune.measurement.corpus import read_corpus
from cotune_demo.cluster import DemoError
from cotune_demo.speech import transcripts, write_corpus

LISTING = """<s> he was not an ill disposed young man </s> (sense-0880)
<s> unless to be rather cold hearted </s> (sense-0890)

"""


def recording(frequency: float) -> bytes:
    samples = (8000 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)).astype(np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(16_000)
        opened.writeframes(samples.tobytes())
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "pocketsphinx-5.1.1.tar.gz"
    files = {"transcription": LISTING.encode(), "sense-0880.wav": recording(220), "sense-0890.wav": recording(330)}
    with tarfile.open(path, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"pocketsphinx-5.1.1/test/data/librivox/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def power(samples: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> float:
    return float(np.mean(samples.astype(np.float64) ** 2))


def samples_of(file: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    with wave.open(io.BytesIO(file)) as opened:
        return np.frombuffer(opened.readframes(opened.getnframes()), np.int16)


def test_text_and_name_are_read_of_each_line() -> None:
    assert transcripts(LISTING) == {
        "sense-0880.wav": "he was not an ill disposed young man",
        "sense-0890.wav": "unless to be rather cold hearted",
    }


def test_without_noise_the_probe_reads_the_recordings_as_they_are(archive: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", archive, None)
    clips = read_corpus(tmp_path / "corpus")

    assert [(it.name, it.transcript, it.seconds) for it in clips] == [
        ("sense-0880.wav", "he was not an ill disposed young man", 1.0),
        ("sense-0890.wav", "unless to be rather cold hearted", 1.0),
    ]
    assert clips[0].audio == recording(220)


def test_the_same_noise_is_mixed_in_every_time(archive: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_corpus(tmp_path / name, archive, 10.0)
    one, two = (read_corpus(tmp_path / name) for name in ("one", "two"))

    assert one == two
    noise = samples_of(one[0].audio).astype(np.int32) - samples_of(recording(220))
    assert power(samples_of(recording(220))) / power(noise.astype(np.int16)) == pytest.approx(10.0, rel=0.01)


def test_an_archive_without_the_recordings_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "pocketsphinx-6.tar.gz"
    with tarfile.open(empty, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("pocketsphinx-6/README"))

    with pytest.raises(DemoError, match=r"pocketsphinx-6\.tar\.gz holds no test/data/librivox/transcription"):
        write_corpus(tmp_path / "corpus", empty, None)
