"""Locks between commands, as files that vanish with their last holder."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold the lock `path`, waiting for other processes; the file is removed afterwards."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is(path, lock.fileno()):
                continue  # Its holder removed it meanwhile: the lock is another file now, or none yet.
            try:
                yield
            finally:
                path.unlink()
            return


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
