"""How often a component ran out of memory: each event once, whoever tells of it.

On the card: an allocation failed. The log says so, a termination message may repeat it, and a server may count it; the
largest of the three is what happened. On the machine: the kernel killed a process for want of memory. The kubelet says
`OOMKilled` where that ended the container, the control group's counter has those that did not, too; of each container
the larger. Both kinds are added. An exit code of 137 alone is a kill by anybody, and is not counted.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cotune.measurement.agent.contract import NodeReport
from cotune.trials.root_cause import CUDA_OUT_OF_MEMORY


@dataclass(frozen=True)
class Ends:
    """How containers of a pod have ended, as far as the kubelet still says."""

    messages: Sequence[str] = ()
    """Termination messages."""
    killed: Sequence[str] = field(default_factory=tuple[str, ...])
    """Ids of containers that the kernel ended for want of memory."""


def out_of_memory_events(logs: Sequence[str], ends: Ends, kills: Mapping[str, int], counted: int | None) -> int:
    """The events of one component.

    Args:
        logs: of its containers, those of their earlier runs among them.
        ends: how containers have ended.
        kills: container id to kills of its control group, of its containers only.
        counted: by the server itself, since its start.
    """
    told = sum(failed_allocations(it) for it in logs)
    repeated = sum(failed_allocations(it) for it in ends.messages)
    killed = Counter(ends.killed)
    on_machine = sum(max(killed[it], kills.get(it, 0)) for it in killed.keys() | kills.keys())
    return max(told, repeated, counted or 0) + on_machine


def kills_of(report: NodeReport | None, pod: str, containers: frozenset[str]) -> dict[str, int]:
    """Container id to kills, of one pod's containers."""
    found: Counter[str] = Counter()
    for it in (report.kills or ()) if report is not None else ():
        if it.container in containers or (pod and it.pod == pod):
            found[it.container] += it.kills
    return dict(found)


_OF_A_TRACEBACK = re.compile(
    r"^\s|Traceback \(most recent|^Process \S+:$|\bERROR\b|^[\w.]+Error\b|^During handling|^The above"
)
_PREFIX = re.compile(r"^\([^()]*pid=\d+\) ")
"""What vLLM puts before the lines of its processes."""


def failed_allocations(log: str) -> int:
    """CUDA's out-of-memory errors in a log.

    A server that dies prints its error more than once: as a line of its logger, then as the traceback of each process
    on the way. The same words again, with nothing but tracebacks in between, are the same event.
    """
    count, last = 0, ""
    for line in log.splitlines():
        text = _PREFIX.sub("", line)
        if found := CUDA_OUT_OF_MEMORY.search(text):
            words = text[found.start() :].strip()
            count += words != last
            last = words
        elif text.strip() and not _OF_A_TRACEBACK.search(text):
            last = ""
    return count
