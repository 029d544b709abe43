"""What an instance of the local cluster has left on the machine."""

import os
import time
from pathlib import Path

from localcluster.locations import Instance


def interfaces() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def wait_until_gone(instance: Instance) -> None:
    """Killed processes are still listed until the machine's first process has taken note of their end."""
    deadline = time.monotonic() + 10
    while left := processes_of(instance):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def processes_of(instance: Instance) -> list[str]:
    """Processes in the instance's control group, by their files in /proc."""
    found: list[str] = []
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"/{instance.cgroup}" in file.read_text():
                found.append(file.parent.name)
        except OSError:  # The process has ended meanwhile.
            continue
    return found
