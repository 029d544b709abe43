"""How the processes share the card: by turns, which is the driver's default, or through CUDA MPS.

MPS here is the bare daemon, without the limits on memory and threads that the device plugin's MPS sets for every
client; the card's compute mode stays as it is.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

TIME_SLICING, MPS = "TimeSlicing", "MPS"
_DAEMON = "nvidia-cuda-mps-control"
_DRIVER_PROGRAMS = "/usr/local/nvidia/bin"
_START_SECONDS = 10.0


class SharingError(Exception):
    """This sharing cannot be had here."""


@contextmanager
def sharing(mode: str, folder: Path) -> Generator["Mapping[str, str]"]:
    """What a process must have in its environment to take part, for as long as the context lasts.

    Raises:
        SharingError: there is no MPS on this machine, or it does not start.
    """
    if mode == TIME_SLICING:
        yield {}
        return
    daemon = shutil.which(_DAEMON, path=os.pathsep.join((os.environ.get("PATH", ""), _DRIVER_PROGRAMS)))
    if daemon is None:
        raise SharingError(f"{_DAEMON} is not on this machine")
    pipe, log = folder / "mps-pipe", folder / "mps-log"
    for it in (pipe, log):
        it.mkdir(parents=True, exist_ok=True)
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(pipe), "CUDA_MPS_LOG_DIRECTORY": str(log)}
    started = subprocess.run([daemon, "-d"], env=os.environ | environment, capture_output=True, text=True, check=False)
    if started.returncode != 0:
        raise SharingError(f"{_DAEMON}: {started.stderr.strip() or started.stdout.strip()}")
    try:
        _wait_for(pipe / "control")
        yield environment
    finally:
        subprocess.run(
            [daemon], input="quit\n", env=os.environ | environment, capture_output=True, text=True, check=False
        )


def _wait_for(path: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise SharingError(f"{_DAEMON} made no {path.name} within {_START_SECONDS:.0f} s")
        time.sleep(0.1)
