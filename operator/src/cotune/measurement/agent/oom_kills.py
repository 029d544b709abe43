"""How often the kernel has ended processes for want of memory, by container: counters of the control groups.

Version 2 has them in `memory.events`, version 1 in `memory.oom_control` (since Linux 4.13). They count what nobody else
says: a worker that was killed while its container lives on. A kill of the machine's own, without a limit, counts too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from cotune.measurement.agent.contract import OutOfMemoryKills
from cotune.measurement.agent.ownership import owner_of_group

_VERSION_2, _VERSION_1 = "memory.events", "memory.oom_control"


def oom_kills(root: Path) -> tuple[OutOfMemoryKills, ...] | None:
    """The containers of the node that have such kills; None: not one counter of a container can be read.

    Args:
        root: where the node's control groups are mounted.
    """
    memory = root / "memory"
    found = list(_counters(memory if memory.is_dir() else root))
    if not found:
        return None
    return tuple(it for kills in found for it in kills)[:256]


def _counters(root: Path) -> Iterator[tuple[OutOfMemoryKills, ...]]:
    for folder, groups, files in os.walk(root):
        owner = owner_of_group(os.path.relpath(folder, root))
        if not owner.container:
            continue
        if _VERSION_2 in files:
            groups.clear()  # Its counters are those of the groups below, too.
        name = next((it for it in (_VERSION_2, _VERSION_1) if it in files), None)
        if name is None:
            continue
        try:
            kills = kills_in(Path(folder, name).read_text())
        except OSError:  # The container has ended meanwhile.
            continue
        if kills is None:
            continue
        yield (OutOfMemoryKills(container=owner.container, pod=owner.pod, kills=kills),) if kills else ()


def kills_in(counters: str) -> int | None:
    """The kills that a file has; None: a kernel that does not count them.

    Where a group is killed as a whole, all of its processes are one event.
    """
    values = dict(line.split(maxsplit=1) for line in counters.splitlines() if " " in line)
    if "oom_kill" not in values:
        return None
    return int(values.get("oom_group_kill", "0")) or int(values["oom_kill"])
