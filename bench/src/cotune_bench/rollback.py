"""`make bench-rollback`: the same broken change through cotune and through Argo Rollouts, side by side.

Both controllers run on this machine beside one local cluster, each with a server of its own for every case, two cases
at once. What is measured is what anybody can see through the API server, read every quarter of a second.
"""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from cotune.api.profile import ProfilePhase
from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE, Kind
from cotune.cluster.objects import Object, Objects
from localcluster.errors import LocalClusterError

from cotune_bench.rollback_scene import (
    CASES,
    GOOD,
    SECOND_END,
    Case,
    Machine,
    argo_controller,
    cotune_operator,
    machine,
    pod_template,
)
from cotune_bench.table import print_table, write_result

ROLLOUT = Kind("argoproj.io/v1alpha1", "Rollout", "rollouts")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)

_POLL = 0.25
_PATIENCE = 300.0
_LANES_AT_ONCE = 4
"""More would measure how two cores are shared among servers that start and end, and not the controllers."""
_LOGS = Path(__file__).parents[3] / "build" / "bench" / "rollback-logs"
_NOTES = (
    "cotune: one stage of one Deployment (Recreate); readinessDeadlineSeconds is the deadline",
    "Argo Rollouts: it has no Recreate; a canary with maxSurge 0 and one step of 100 % does the same with one replica; "
    "progressDeadlineSeconds is the deadline, progressDeadlineAbort is true",
    "sign: a pod of the change shows it; of a server that is never ready, that it runs",
    "due: the sign after which cotune has nothing to wait for: the first one, the second end of a container that ended "
    "with a line that nobody knows, 15 s without a node, 30 s in which the image was pulled again; of a server that is "
    "never ready, the deadline",
    "Argo Rollouts reads no such sign: for it, due is the same moment of its own run",
    "decided: the profile is RollingBack, the Rollout is aborted; restored: the old server is ready, and alone",
)


@dataclass
class Times:
    """What one run took, in seconds from the moment in which the change was made."""

    sign: float | None = None
    decided: float | None = None
    restored: float | None = None
    said: str = ""
    """What the controller said of it."""
    due: float | None = None
    """When there was nothing more to wait for."""


@dataclass
class Lane:
    """One case on one side."""

    side: str
    case: Case
    runs: list[Times] = field(default_factory=list[Times])

    @property
    def name(self) -> str:
        """Of the namespace, the label and the image."""
        return f"{self.side}-{CASES.index(self.case)}"


def decided_by_cotune(body: Object) -> str | None:
    """What the profile says of why it goes back; None: it does not."""
    stages = body.get("status", {}).get("stages", ())
    back = {ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK, ProfilePhase.DEGRADED}
    return next((str(it["message"]) for it in stages if it["phase"] in back), None)


def decided_by_argo(body: Object) -> str | None:
    """What the Rollout says of why it was aborted; None: it was not."""
    status = body.get("status", {})
    return str(status.get("message", "aborted")) if status.get("abort") else None


def sign(pod: Object, case: Case) -> bool:
    """Whether a pod of the change shows what is wrong with it."""
    status = pod.get("status", {})
    conditions = status.get("conditions", ())
    if any((it["type"], it.get("reason")) == ("PodScheduled", "Unschedulable") for it in conditions):
        return True
    for it in status.get("containerStatuses", ()):
        state = it.get("state", {})
        if "terminated" in state or "terminated" in it.get("lastState", {}):
            return True
        if state.get("waiting", {}).get("reason") in {"ErrImagePull", "ImagePullBackOff"}:
            return True
        if case.mode == "unready" and "running" in state:
            return True
    return False


def has_ended_twice(pods: Sequence[Object]) -> bool:
    """Whether a container of the change has ended for the second time."""
    statuses = [status for it in pods for status in it.get("status", {}).get("containerStatuses", ())]
    return any(it["restartCount"] + ("terminated" in it.get("state", {})) >= 2 for it in statuses)


def due(case: Case, pods: Sequence[Object], now: float, first_sign: float | None, deadline: float) -> float | None:
    """When a decision was due, in seconds since the change; None: it is not yet.

    Args:
        case: what is wrong with the change.
        pods: of the change, as they are now.
        now: seconds since the change.
        first_sign: when the first sign was seen.
        deadline: of the stage, in seconds.
    """
    if case.mode == "unready":
        return deadline if now >= deadline else None
    if first_sign is None:
        return None
    if case.waits_for == SECOND_END:
        return now if has_ended_twice(pods) else None
    ends = first_sign + float(case.waits_for)
    return ends if now >= ends else None


def is_restored(pods: Sequence[Object]) -> bool:
    """Whether the old server is there, ready, and alone."""
    conditions = [it.get("status", {}).get("conditions", ()) for it in pods]
    ready = [any((c["type"], c["status"]) == ("Ready", "True") for c in it) for it in conditions]
    return [mode_of(it) for it in pods] == [GOOD] and all(ready)


def mode_of(pod: Object) -> str:
    """The value of a pod's MODE."""
    return str(pod["spec"]["containers"][0]["env"][0]["value"])


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for it.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + _PATIENCE
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {_PATIENCE:.0f} s still not: {what}")
        await asyncio.sleep(_POLL)


class Side:
    """A controller: how it is given a workload and a change, and how it is put back to the start."""

    def __init__(self, objects: Objects, where: Machine, lane: Lane, deadline: int) -> None:
        self.objects = objects
        self.where = where
        self.lane = lane
        self.deadline = deadline

    async def set_up(self) -> None:
        """The namespace and the good server in it."""
        name = self.lane.name
        await asyncio.to_thread(self.where.give, name)
        body: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.objects.create(NAMESPACE, None, body)
        await self.deploy()
        await until(self.is_well, f"the server of {name}")

    async def is_well(self) -> bool:
        """Whether the good server is ready, and alone."""
        return is_restored(await self.objects.list(POD, self.lane.name))

    async def measure(self, number: int) -> None:
        """One broken change, from its beginning until the stage is as it was."""
        lane, times = self.lane, Times()
        await asyncio.to_thread(self.where.take, lane.case, lane.name)
        await self.change(number)
        began = time.monotonic()

        async def is_over() -> bool:
            pods = await self.objects.list(POD, lane.name)
            now = time.monotonic() - began
            changed = [it for it in pods if mode_of(it) != GOOD]
            if times.sign is None and any(sign(it, lane.case) for it in changed):
                times.sign = now
            if times.due is None:
                times.due = due(lane.case, changed, now, times.sign, self.deadline)
            if times.decided is None and (said := await self.decided(number)) is not None:
                times.decided, times.said = time.monotonic() - began, said
                await asyncio.to_thread(self.where.give, lane.name)
            if times.decided is not None and times.restored is None and is_restored(pods):
                times.restored = now
            return times.restored is not None

        await until(is_over, f"run {number} of {lane.name}")
        lane.runs.append(times)
        await self.put_back(number)
        await until(self.is_well, f"the server of {lane.name} after run {number}")
        print(f"{lane.side}, {lane.case.name}, run {number + 1}: decided after {times.decided:.1f} s", flush=True)

    async def deploy(self) -> None:
        """Create the workload."""
        raise NotImplementedError

    async def change(self, number: int) -> None:
        """Make the broken change."""
        raise NotImplementedError

    async def decided(self, number: int) -> str | None:
        """Why the change is being taken back; None: it is not."""
        raise NotImplementedError

    async def put_back(self, number: int) -> None:
        """Make ready for the next run."""
        raise NotImplementedError


class Cotune(Side):
    """A profile of one stage."""

    async def deploy(self) -> None:
        """A Deployment, and its owner's grant."""
        name = self.lane.name
        spec: Object = {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"lane": name}},
            "template": pod_template(name, self.where.image(name)),
        }
        metadata = {"name": "server", "namespace": name}
        body: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        await self.objects.create(DEPLOYMENT, name, body)
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"}
        target = {"component": "server", "workloadRef": reference, "container": "server", "env": ["MODE"]}
        granted = {"from": [{"namespace": name}], "allow": ["Rollout"], "targets": [target]}
        await self.objects.create(
            GRANT,
            name,
            {"apiVersion": GRANT.api_version, "kind": GRANT.name, "metadata": metadata, "spec": granted},
        )

    async def change(self, number: int) -> None:
        """A profile."""
        name = self.lane.name
        stage = {"name": "only", "namespace": name, "readinessDeadlineSeconds": self.deadline}
        spec = {
            "changes": [{"component": "server", "env": "MODE", "from": GOOD, "to": self.lane.case.mode}],
            "startOrder": ["server"],
            "rollout": {"stages": [stage]},
        }
        metadata = {"name": f"run-{number}", "namespace": name}
        body: Object = {"apiVersion": PROFILE.api_version, "kind": PROFILE.name, "metadata": metadata, "spec": spec}
        await self.objects.create(PROFILE, name, body)

    async def decided(self, number: int) -> str | None:
        """The stage's message."""
        return decided_by_cotune(await self.objects.get(PROFILE, self.lane.name, f"run-{number}"))

    async def put_back(self, number: int) -> None:
        """Wait for the way back, and delete the profile."""
        name = f"run-{number}"

        async def is_over() -> bool:
            found = await self.objects.get(PROFILE, self.lane.name, name)
            return found["status"]["phase"] == ProfilePhase.ROLLED_BACK

        await until(is_over, f"{self.lane.name}/{name} rolled back")
        await self.objects.delete(PROFILE, self.lane.name, name)


class Argo(Side):
    """A Rollout with one replica and no room for a second."""

    async def deploy(self) -> None:
        """A Rollout."""
        name = self.lane.name
        canary = {"maxSurge": 0, "maxUnavailable": 1, "steps": [{"setWeight": 100}]}
        spec: Object = {
            "replicas": 1,
            "progressDeadlineSeconds": self.deadline,
            "progressDeadlineAbort": True,
            "strategy": {"canary": canary},
            "selector": {"matchLabels": {"lane": name}},
            "template": pod_template(name, self.where.image(name)),
        }
        metadata = {"name": "server", "namespace": name}
        body: Object = {"apiVersion": ROLLOUT.api_version, "kind": ROLLOUT.name, "metadata": metadata, "spec": spec}
        await self.objects.create(ROLLOUT, name, body)
        await until(self._is_healthy, f"the Rollout of {name}")

    async def change(self, number: int) -> None:
        """Another template."""
        await self._set(self.lane.case.mode)

    async def decided(self, number: int) -> str | None:
        """The Rollout's message."""
        return decided_by_argo(await self.objects.get(ROLLOUT, self.lane.name, "server"))

    async def put_back(self, number: int) -> None:
        """The old template, as its documentation advises after an abort."""
        await self._set(GOOD)
        await until(self._is_healthy, f"the Rollout of {self.lane.name}")

    async def _set(self, mode: str) -> None:
        template = pod_template(self.lane.name, self.where.image(self.lane.name), mode)
        await self.objects.merge(ROLLOUT, self.lane.name, "server", {"spec": {"template": template}})

    async def _is_healthy(self) -> bool:
        found = await self.objects.get(ROLLOUT, self.lane.name, "server")
        status = found.get("status", {})
        seen = status.get("observedGeneration") == str(found["metadata"]["generation"])
        return seen and status.get("phase") == "Healthy"


async def run_lane(side: Side, runs: int) -> None:
    """All runs of a case on one side, one after the other."""
    await side.set_up()
    for number in range(runs):
        await side.measure(number)


async def run_all(where: Machine, lanes: Mapping[str, list[Lane]], runs: Mapping[str, int], deadline: int) -> None:
    """All lanes, a few at once; the longest first, and beside each the other side's of the same case."""
    kinds: Mapping[str, type[Side]] = {"cotune": Cotune, "argo": Argo}
    objects = await Objects.connect(where.kubeconfig)
    at_once = asyncio.Semaphore(_LANES_AT_ONCE)

    async def run_in_turn(lane: Lane) -> None:
        async with at_once:
            await run_lane(kinds[lane.side](objects, where, lane, deadline), runs[lane.side])

    try:
        async with asyncio.TaskGroup() as group:
            for pair in zip(*(reversed(it) for it in lanes.values()), strict=True):
                for lane in pair:
                    group.create_task(run_in_turn(lane))
    finally:
        await objects.close()


def figure(values: Sequence[float | None]) -> str:
    """Median and range."""
    known = [it for it in values if it is not None]
    if not known:
        return "-"
    return f"{median(known):.1f} ({min(known):.1f} to {max(known):.1f})"


def late(runs: Sequence[Times]) -> str:
    """By how much the decision came after it was due: median and 95th percentile, the nearest rank."""
    known = sorted(it.decided - it.due for it in runs if it.decided is not None and it.due is not None)
    if not known:
        return "-"
    return f"{median(known):.1f} (p95 {known[math.ceil(0.95 * len(known)) - 1]:.1f})"


def rows(lanes: Sequence[Lane]) -> list[list[str]]:
    """The table: seconds as median and range."""
    return [
        [
            it.case.name,
            it.side,
            str(len(it.runs)),
            figure([run.sign for run in it.runs]),
            figure([run.decided for run in it.runs]),
            late(it.runs),
            figure([run.restored for run in it.runs]),
        ]
        for it in sorted(lanes, key=lambda it: CASES.index(it.case))
    ]


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    """Run, print, write."""
    runs = {
        "cotune": int(os.environ.get("COTUNE_BENCH_ROLLBACK_RUNS", "20")),
        "argo": int(os.environ.get("COTUNE_BENCH_ROLLBACK_PEER_RUNS", "5")),
    }
    deadline = int(os.environ.get("COTUNE_BENCH_ROLLBACK_DEADLINE", "60"))
    # Ended by a signal, it still takes its cluster and its controllers down.
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as stack:
        where = stack.enter_context(machine())
        stack.enter_context(cotune_operator(where, _LOGS))
        peer = "" if runs["argo"] else "Argo Rollouts was not run: COTUNE_BENCH_ROLLBACK_PEER_RUNS is 0"
        try:
            if not peer:
                stack.enter_context(argo_controller(where, _LOGS))
        except LocalClusterError as error:
            peer = f"Argo Rollouts was not run: {error}"
        sides = ["cotune"] if peer else ["cotune", "argo"]
        lanes = {side: [Lane(side, case) for case in CASES] for side in sides}
        asyncio.run(run_all(where, lanes, runs, deadline))
    every = [it for several in lanes.values() for it in several]
    print(f"seconds from the change, with a deadline of {deadline} s: median (range)\n")
    print_table(["case", "through", "runs", "first sign", "decided", "after it was due", "restored"], rows(every))
    notes = [*_NOTES, *(f"{it.name}: {it.note}" for it in CASES if it.note), *([peer] if peer else [])]
    for note in notes:
        print(f"- {note}")
    result: dict[str, Any] = {
        "deadlineSeconds": deadline,
        "notes": notes,
        "lanes": [{"through": it.side, "case": it.case.name, "runs": [asdict(run) for run in it.runs]} for it in every],
    }
    write_result("rollback", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
