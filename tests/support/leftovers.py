"""What an instance of the local cluster has left on the machine."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from localcluster import cluster
from localcluster.locations import Instance


@contextmanager
def passing_instance(name: str) -> Generator[Instance]:
    """An instance of a test's own, which is gone afterwards with all that belonged to it."""
    made = Instance.named(f"{name}-{os.getpid()}")
    before = interfaces()
    try:
        yield made
    finally:
        cluster.down(made)
    wait_until_gone(made)
    assert str(made.root) not in Path("/proc/mounts").read_text()
    assert interfaces() == before
    assert not made.root.exists()


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
