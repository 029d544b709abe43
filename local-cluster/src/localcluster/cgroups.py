"""Control groups: how an instance's processes are confined to it, found again and ended.

Every process of an instance is born below one group: the supervisor joins `system` and its children inherit it,
containers are placed by their runtime below the group of their node. So a teardown needs no process names and finds
whatever was left behind. Version 1 (a hierarchy per controller) and version 2 (one for all) are supported.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError

_SHARES_OF_THE_PODS = 16 * 1024
"""Sixteen times a process's. With version 1 only pods are in an instance's group of `cpu`: all of them together would
count as much as one thread of a daemon, and what is measured in a pod would be how busy the control plane is."""
_NEEDED_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_KILL_TIMEOUT_SECONDS = 20.0
_KILL_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups."""

    mount: Path
    version: int
    controllers: frozenset[str]


def parse_mounts(mounts: str) -> list[Hierarchy]:
    """Hierarchies in the text of /proc/self/mounts, in the order of mounting, each once."""
    found: dict[Path, Hierarchy] = {}
    for line in mounts.splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found[Path(mount)] = Hierarchy(Path(mount), 2, frozenset())
        elif kind == "cgroup":
            found[Path(mount)] = Hierarchy(Path(mount), 1, frozenset(options.split(",")))
    return list(found.values())


class InstanceGroup:
    """The control group of one instance in every hierarchy."""

    def __init__(self, name: str, hierarchies: list[Hierarchy] | None = None) -> None:
        self._name = name
        self._hierarchies = parse_mounts(Path("/proc/self/mounts").read_text()) if hierarchies is None else hierarchies

    def create(self, nodes: list[str]) -> None:
        """Make the groups of the daemons and of each node.

        :raises LocalClusterError: the machine has no usable hierarchy.
        """
        if not self._hierarchies:
            raise LocalClusterError("no control groups are mounted: mount cgroup2 at /sys/fs/cgroup")
        for hierarchy in self._hierarchies:
            root = hierarchy.mount / self._name
            for group in (root, root / "system", *(root / node for node in nodes)):
                group.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _inherit_cpuset(group)
            if "cpu" in hierarchy.controllers:
                (root / "cpu.shares").write_text(str(_SHARES_OF_THE_PODS))
            if hierarchy.version == 2:
                for parent in (hierarchy.mount, root, *(root / node for node in nodes)):
                    _delegate(parent)

    def join(self) -> None:
        """Move the calling process into the group of the daemons.

        One hierarchy is enough to find it again. With version 1 that is the one of `pids`: limits that the machine set
        through others stay in force.
        """
        (self._tracking.mount / self._name / "system" / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self) -> set[int]:
        """Process ids of everything in the instance's groups."""
        return {process for group in self._groups() for process in _read_processes(group)}

    def kill(self) -> None:
        """End every process of the instance and wait until they are gone.

        :raises LocalClusterError: some survive, which only a process stuck in the kernel does.
        """
        deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
        while remaining := self.processes() - {os.getpid()}:
            if time.monotonic() > deadline:
                raise LocalClusterError(
                    f"processes {sorted(remaining)} do not end: see /proc/<id>/stack for what holds them"
                )
            for process in remaining:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(_KILL_INTERVAL_SECONDS)

    def remove(self) -> None:
        """Remove the emptied groups, the innermost first."""
        for group in sorted(self._groups(), key=lambda path: len(path.parts), reverse=True):
            _remove_group(group)

    @property
    def _tracking(self) -> Hierarchy:
        for hierarchy in self._hierarchies:
            if "pids" in hierarchy.controllers:
                return hierarchy
        return self._hierarchies[0]

    def _groups(self) -> Iterator[Path]:
        for hierarchy in self._hierarchies:
            for folder, _, _ in os.walk(hierarchy.mount / self._name):
                yield Path(folder)


def _read_processes(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:  # Removed meanwhile, or a threaded group, whose processes its parent lists.
        return []


def _inherit_cpuset(group: Path) -> None:
    """A new cpuset of version 1 is empty and accepts no process until processors and memory are set."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if not (group / setting).read_text().strip():
            (group / setting).write_text((group.parent / setting).read_text())


def _delegate(group: Path) -> None:
    """Let the groups below use the controllers that a kubelet asks for (version 2)."""
    available = (group / "cgroup.controllers").read_text().split()
    wanted = [f"+{name}" for name in (*_NEEDED_CONTROLLERS, "io", "hugetlb") if name in available]
    try:
        (group / "cgroup.subtree_control").write_text(" ".join(wanted))
    except OSError as error:
        raise LocalClusterError(
            f"cannot delegate control groups at {group}: {error.strerror}; move its processes into a child group"
        ) from error


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
    while group.exists():
        try:
            group.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LocalClusterError(f"control group {group} cannot be removed: {error.strerror}") from error
            time.sleep(_KILL_INTERVAL_SECONDS)
