"""Whose a process is: from its control group to its container and its pod.

A runtime puts every container into a group of its own that carries the container's id, and a kubelet puts those of a
pod below a group that carries the pod's uid. The forms, by runtime and cgroup driver:

    /kubepods/burstable/pod<uid>/<id>                                       cgroupfs, any runtime
    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope
    /system.slice/kubepods-burstable-pod<uid>.slice:cri-containerd:<id>     the drivers differ
    .../crio-<id>.scope, with crun also .../crio-<id>.scope/container        (crio-conmon-<id> is no container)
    .../docker-<id>.scope, /docker/<id>, /machine.slice/libpod-<id>.scope   without a kubelet, too

systemd spells the uid with `_` in place of `-`. Source: the runtimes' own cgroup managers; tests hold each form.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_POD = re.compile(r"(?:^|-)pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$")
_CONTAINER = re.compile(r"^(?:(?:cri-containerd|crio|docker|libpod|nerdctl)-)?([0-9a-f]{64})(?:\.scope)?$")
_BETWEEN_GROUPS = re.compile(r"[/:]")
"""A colon where containerd's own driver is cgroupfs and the kubelet's is systemd."""
_PREFERRED = ("memory", "pids", "name=systemd", "")
"""Controllers of version 1 in which runtimes always make a group; empty: version 2."""


@dataclass(frozen=True)
class Owner:
    """The container of a process."""

    container: str = ""
    """Empty: the process runs in none."""
    pod: str = ""
    """The uid of the pod, spelt as the API server does; empty: not Kubernetes'."""


def owner(cgroup: str) -> Owner:
    """The owner of the process that has this `/proc/PID/cgroup`.

    A container that itself runs containers owns their processes.
    """
    groups = _by_controller(cgroup)
    order = sorted(groups, key=lambda it: _PREFERRED.index(it) if it in _PREFERRED else len(_PREFERRED))
    found = [_owner_of_path(groups[it]) for it in order]
    return next((it for it in found if it.pod), next((it for it in found if it.container), Owner()))


def owner_of_group(path: str) -> Owner:
    """The owner of a control group, by its path below the hierarchy's root."""
    return _owner_of_path(path)


def _by_controller(cgroup: str) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _owner_of_path(path: str) -> Owner:
    parts = [it for it in _BETWEEN_GROUPS.split(path) if it]
    for index, part in enumerate(parts):
        if pod := _POD.search(part):
            return Owner(next(_containers(parts[index + 1 :]), ""), _uid(pod[1]))
    return Owner(next(_containers(parts), ""))


def _containers(parts: list[str]) -> Iterator[str]:
    for part in parts:
        if found := _CONTAINER.match(part):
            yield found[1]


def _uid(text: str) -> str:
    return text.replace("_", "-")


@dataclass(frozen=True)
class Process:
    """A process and its owner."""

    pid: int
    name: str
    owner: Owner


class Ownership:
    """Reads whose processes are, over one window: a process keeps its owner, and what was read is not read again."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._known: dict[int, tuple[str, Process]] = {}
        """By process id: when that process began, and what it is."""

    def of(self, pid: int) -> Process | None:
        """The process; None when it has ended before it could be read.

        A driver lists a process a moment longer than it lives: one that was read before is still the same.
        """
        began, known = self._known.get(pid, ("", None))
        folder = self._proc / str(pid)
        try:
            started = _started(folder)
            if started == began:
                return known
            found = Process(pid, _name(folder), owner((folder / "cgroup").read_text()))
            if _started(folder) != started:  # Its number was given to another one meanwhile.
                return None
        except OSError:
            return known
        self._known[pid] = started, found
        return found


def _name(folder: Path) -> str:
    return (folder / "comm").read_text(errors="replace").strip()


def _started(folder: Path) -> str:
    """When the process began, in ticks since the machine's start: with the number it names the process (proc(5))."""
    # The name in parentheses may hold blanks and parentheses.
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
