"""A real file system with little room."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(mount: Path, kib: int) -> Generator[Path]:
    """Mounted at a folder that is made for it. Only root may mount: for others a test that wants one is skipped."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "cotune-test", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)
