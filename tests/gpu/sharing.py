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
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class SharingError(Exception):
    """This sharing cannot be had here."""


def cuda_card(index: int | None) -> "dict[str, str]":
    """The environment in which CUDA has only that card, counted as NVML counts; None: there is only one."""
    return {} if index is None else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", _VISIBLE: str(index)}


@contextmanager
def sharing(mode: str, folder: Path, index: int | None = None) -> Generator["Mapping[str, str]"]:
    """What a process must have in its environment to take part, for as long as the context lasts.

    Args:
        mode: one of both.
        folder: for the sockets and logs of MPS; a folder for each card.
        index: of several cards this one; None where there is only one.

    Raises:
        SharingError: there is no MPS on this machine, or it does not start.
    """
    if mode == TIME_SLICING:
        yield cuda_card(index)
        return
    daemon = shutil.which(_DAEMON, path=os.pathsep.join((os.environ.get("PATH", ""), _DRIVER_PROGRAMS)))
    if daemon is None:
        raise SharingError(f"{_DAEMON} is not on this machine")
    pipe, log = folder / "mps-pipe", folder / "mps-log"
    for it in (pipe, log):
        it.mkdir(parents=True, exist_ok=True)
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(pipe), "CUDA_MPS_LOG_DIRECTORY": str(log)}
    started = subprocess.run(
        [daemon, "-d"],
        env=os.environ | environment | cuda_card(index),
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode != 0:
        raise SharingError(f"{_DAEMON}: {started.stderr.strip() or started.stdout.strip()}")
    try:
        _wait_for(pipe / "control")
        # What the daemon sees of the cards is all that there is for its clients, counted from 0.
        yield environment if index is None else environment | {_VISIBLE: "0"}
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
