"""A store in a directory, such as a mounted volume: one file for each record, named by its SHA-256.

`sha256sum` checks such a file, and `zcat` reads it: nobody needs cotune for that.
"""

import contextlib
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

from cotune.artifacts.record import digest_of
from cotune.artifacts.store import DamagedError, Entry, NotStoredError, StoreError

_SUFFIX, _PARTIAL = ".json.gz", ".partial"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_FILE = re.compile(r"([0-9a-f]{64})\.json\.gz")
_FOLDER = re.compile(r"[0-9a-f]{2}")


class DirectoryStore:
    """Files `ab/abcd....json.gz` below a directory that exists."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        """Store the bytes unless they are there already; their digest.

        They are written beside their place, forced to the disk and moved there. A half-written file that a crash has
        left is overwritten by the next attempt; one that has changed since is put right.
        """
        digest = digest_of(content)
        path = self._path(digest)
        with _told("store", digest):
            if not self._root.is_dir():
                # Made here, it would lie on whatever disk is under a volume that is not mounted.
                raise StoreError(f"{self._root} is no directory")
            if path.exists() and path.read_bytes() == content:
                return digest
            self._make(path.parent)
            partial = path.with_suffix(_PARTIAL)
            try:
                with partial.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise
            _force(path.parent)
        return digest

    def get(self, digest: str) -> bytes:
        """What was stored under this digest.

        Raises:
            NotStoredError: nothing was.
            DamagedError: it has changed since.
        """
        with _told("read", digest):
            try:
                content = self._path(digest).read_bytes()
            except FileNotFoundError:
                raise NotStoredError(f"{digest} is not there") from None
        if digest_of(content) != digest:
            raise DamagedError(f"{digest} has changed: its bytes now give {digest_of(content)}")
        return content

    def list(self) -> Iterator[Entry]:
        """All that is there, by digest; what has another name is somebody else's."""
        with _told("list", str(self._root)):
            for folder in sorted(it for it in self._root.iterdir() if _FOLDER.fullmatch(it.name)):
                for file in sorted(folder.iterdir()):
                    if (found := _FILE.fullmatch(file.name)) and found[1].startswith(folder.name):
                        yield Entry(f"sha256:{found[1]}", file.stat().st_size)

    def delete(self, digest: str) -> None:
        """Take it away; what is not there is no error."""
        with _told("delete", digest):
            self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if (found := _DIGEST.fullmatch(digest)) is None:
            raise NotStoredError(f"{digest!r} is no digest")
        return self._root / found[1][:2] / f"{found[1]}{_SUFFIX}"

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            _force(self._root)


def _force(folder: Path) -> None:
    """Have the folder's own entries on the disk: without that, a file may be forgotten that was forced there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(what: str, which: str) -> Generator[None]:
    """Errors of the operating system as the store's own."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {what} {which}: {error.strerror or error}") from error
