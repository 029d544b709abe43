"""`python -m cotune_demo.speech FOLDER`: real speech with known text, mixed with noise, as a corpus for transcriptions.

Five recordings of LibriVox volunteers reading "Sense and Sensibility" (public domain), 24.7 s in all, which the source
distribution of the package pocketsphinx carries with their text. One reference has a word too many ("a more a
amiable"); it is kept as published. Clean, both Whisper tiny.en and base hear nearly all of it.
"""

import argparse
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from cotune.measurement.noise import mixed, white
from cotune.measurement.pulse_code import read_wav, with_samples
from localcluster.locations import Cache, repository_root

from cotune_demo.cluster import DemoError

_FOLDER = "test/data/librivox"
_SEED = 20_260_101


def write_corpus(folder: Path, archive: Path, snr_db: float | None) -> dict[str, str]:
    """The clips and `transcripts.json`, as the probe reads them; the same bytes every time.

    Args:
        folder: made when it is not there.
        archive: the source distribution.
        snr_db: power of the speech over that of the white noise mixed in, in dB; None: nothing is mixed in.

    Returns:
        File name to text.

    Raises:
        DemoError: the archive does not hold what it should.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(_SEED)
    with tarfile.open(archive) as opened:
        root = opened.getnames()[0].split("/")[0]

        def read(name: str) -> bytes:
            try:
                member = opened.extractfile(f"{root}/{_FOLDER}/{name}")
            except KeyError:
                member = None
            if member is None:
                raise DemoError(f"{archive.name} holds no {_FOLDER}/{name}")
            return member.read()

        texts = transcripts(read("transcription").decode())
        for name in texts:
            (folder / name).write_bytes(read(name))
    if snr_db is not None:
        for name in texts:
            _mix(folder / name, snr_db, noise)
    (folder / "transcripts.json").write_text(json.dumps(texts, indent=2) + "\n")
    return texts


def transcripts(listing: str) -> dict[str, str]:
    """File name to text, of lines such as `<s> he was not an ill disposed young man </s> (recording-0880)`."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, listing.splitlines())):
        text, _, name = line.removesuffix(")").rpartition("(")
        found[f"{name}.wav"] = text.replace("<s>", "").replace("</s>", "").strip()
    return found


def download() -> Path:
    """The source distribution, downloaded once into the cache and checked against its hash.

    Raises:
        DemoError: pip could not.
    """
    folder, requirements = Cache.from_environment().root / "speech", repository_root() / "requirements"
    pip = folder / "environment" / "bin" / "pip"
    if not (found := list(folder.glob("pocketsphinx-*.tar.gz"))):
        _run(sys.executable, "-m", "venv", "--clear", str(folder / "environment"))
        _run(str(pip), "install", "--quiet", "--require-hashes", "-r", str(requirements / "speech-build.txt"))
        _run(
            *(str(pip), "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary=:all:"),
            *("--require-hashes", "--dest", str(folder), "-r", str(requirements / "speech.txt")),
        )
        found = list(folder.glob("pocketsphinx-*.tar.gz"))
    return found[0]


def _mix(path: Path, snr_db: float, source: np.random.Generator) -> None:
    file = path.read_bytes()
    sound = read_wav(file)
    mixture = mixed(sound.samples, white(len(sound.samples), source), snr_db)
    path.write_bytes(with_samples(file, replace(sound, samples=mixture.samples)))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise DemoError(f"{' '.join(command[:4])} ...: {last}")


def main() -> int:
    """Exit code 1 with one line when there is no corpus."""
    parser = argparse.ArgumentParser(prog="python -m cotune_demo.speech", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--snr-db", type=float, help="mix white noise in, at this ratio of powers")
    options = parser.parse_args()
    try:
        texts = write_corpus(options.folder, download(), options.snr_db)
    except DemoError as error:
        print(f"speech: error: {error}", file=sys.stderr)
        return 1
    print(f"{len(texts)} clips in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
