"""What an image is made from, read from its Dockerfile, so that unchanged images need not be built to know it."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from localcluster.errors import LocalClusterError

_IGNORED_FOLDERS = frozenset({"__pycache__", ".git", ".venv"})


def copied_sources(dockerfile: str) -> list[str]:
    """The sources of all COPY and ADD instructions that come from the build's context, in order.

    :raises LocalClusterError: an instruction takes files from the context in a way that is not followed here.
    """
    sources: list[str] = []
    for instruction, arguments in _instructions(dockerfile):
        if instruction in {"COPY", "ADD"}:
            words = _words(arguments)
            flags = [word for word in words if word.startswith("--")]
            if not any(flag.startswith("--from=") for flag in flags):
                sources += [word for word in words if word not in flags][:-1]
        elif instruction == "RUN" and "--mount=type=bind" in arguments and "from=" not in arguments:
            raise LocalClusterError("Dockerfile: use COPY instead of RUN --mount=type=bind")
    return sources


def inputs_key(dockerfile: Path, context: Path, *more: str) -> str:
    """A digest of the Dockerfile, of every file it copies from `context` and of `more`.

    :raises LocalClusterError: a source does not exist.
    """
    text = dockerfile.read_text()
    digest = hashlib.sha256("\0".join((text, *more)).encode())
    for source in copied_sources(text):
        pattern = source.strip("/") or "."
        matches = [context] if pattern == "." else sorted(context.glob(pattern))
        if not matches:
            raise LocalClusterError(f"{dockerfile}: {source} does not exist in {context}")
        for path in (file for match in matches for file in _files(match)):
            executable = path.stat().st_mode & 0o111 != 0
            digest.update(f"\0{path.relative_to(context)}\0{executable}\0".encode())
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    lines = (line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction:
            yield instruction.upper(), arguments.strip()


def _words(arguments: str) -> list[str]:
    flags, rest = "", arguments
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags, rest = f"{flags} {flag}", rest.lstrip()
    return [*flags.split(), *(json.loads(rest) if rest.startswith("[") else shlex.split(rest))]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir() and path.name not in _IGNORED_FOLDERS:
        for child in sorted(path.iterdir()):
            yield from _files(child)
