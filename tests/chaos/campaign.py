"""Every job once undisturbed, and once more for each fault at each of its calls: what there was in the end."""

import ast
import asyncio
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos.faults import WRITES, Fault, FaultyObjects, Plan, Point, Site
from chaos.jobs import JOBS, Job
from cotune.cluster.objects import Object
from support.played_cluster import new_namespace

_SOURCES = Path(__file__).parents[2] / "operator" / "src" / "cotune"
NOT_REACHED = "not reached"
_METHODS = {"create", "replace", "merge", "apply", "delete"}
_OF_THEIR_OWN = {"leadership", "objects"}
"""Modules whose calls are no part of a pass: tests/apiserver/test_failover.py has the election's."""


@dataclass(frozen=True)
class Undisturbed:
    """A job that nothing befell."""

    end: Object
    passed: Mapping[Point, int]
    """Its points, and how often it passes each."""
    sites: frozenset[Site]
    seconds: float


@dataclass(frozen=True)
class Run:
    """A job that something befell."""

    job: str
    plan: Plan
    outcome: str
    """`same`, `differs`, `failed` or, when the call was never made, `not reached`."""
    detail: str = ""
    seconds: float = 0


@dataclass
class Campaign:
    """Jobs against one API server."""

    kubeconfig: Path
    jobs: Mapping[str, Job] = field(default_factory=lambda: JOBS)
    etcd: Callable[[], None] | None = None
    """Called to kill etcd; it starts again by itself."""
    kubelet: Callable[[], None] | None = None
    """Called to hold the kubelet; it starts again by itself. None: kubelets are played."""
    patience_seconds: float = 120
    """For one run."""
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict[str, Undisturbed])

    def record(self, job: str) -> Undisturbed:
        """Do a job with nothing amiss."""
        if job not in self.undisturbed:
            begun = time.monotonic()
            end, objects = asyncio.run(self._do(job, None))
            self.undisturbed[job] = Undisturbed(
                end, dict(objects.passed), frozenset(objects.sites), time.monotonic() - begun
            )
        return self.undisturbed[job]

    def run(self, job: str, plan: Plan) -> Run:
        """Do it with a fault, and compare.

        How often a point is passed may differ by a look or two from run to run: the last time is then an earlier one.
        """
        while True:
            run = self._run(job, plan)
            if run.outcome != NOT_REACHED or plan.occurrence == 0:
                return run
            plan = replace(plan, occurrence=plan.occurrence - 1)

    def _run(self, job: str, plan: Plan) -> Run:
        expected = self.record(job).end
        begun = time.monotonic()
        try:
            end, objects = asyncio.run(self._do(job, plan))
        except Exception as error:  # The next one is tried all the same.
            words = "".join(traceback.format_exception_only(error)).strip()
            return Run(job, plan, "failed", words, time.monotonic() - begun)
        seconds = time.monotonic() - begun
        if not objects.has_happened:
            return Run(job, plan, NOT_REACHED, seconds=seconds)
        differing = [key for key in expected if end.get(key) != expected[key]]
        detail = "; ".join(f"{key}: {end.get(key)!r}, not {expected[key]!r}" for key in differing)
        return Run(job, plan, "differs" if differing else "same", detail, seconds)

    async def _do(self, job: str, plan: Plan | None) -> tuple[Object, FaultyObjects]:
        objects = await FaultyObjects.connect(self.kubeconfig)
        assert isinstance(objects, FaultyObjects)
        try:
            namespace = await new_namespace(objects)
            objects.created.clear()
            objects.plan = plan
            if self.etcd is not None:
                objects.restart_etcd = self.etcd
            if self.kubelet is not None:
                objects.has_kubelet, objects.hold_kubelet = True, self.kubelet
            async with asyncio.timeout(self.patience_seconds):
                return await self.jobs[job](objects, namespace), objects
        finally:
            await objects.close()


def plans(undisturbed: Undisturbed, with_etcd: bool, at_every_call: bool = False) -> Iterator[Plan]:
    """Death at every point of a job that writes, the first time and the last; every other fault the first time.

    Args:
        undisturbed: the job as it passes its points.
        with_etcd: have etcd killed, too, in the middle.
        at_every_call: death each time that a point is passed.
    """
    writes = {point: times for point, times in undisturbed.passed.items() if not point.call.startswith("list ")}
    for point, times in undisturbed.passed.items():
        if point not in writes:
            # In the middle: how often a pass looks again before it has what it waits for differs from run to run.
            yield Plan(Fault.STALE, point, (times - 1) // 2)
            continue
        for fault in WRITES:
            if fault is Fault.CONFLICT and point.call.startswith(("create ", "delete ")):
                continue  # These have no resourceVersion to be in conflict with.
            is_death = fault in {Fault.DIES_BEFORE, Fault.DIES_AFTER}
            first_and_last = sorted({0, times - 1})
            for occurrence in (range(times) if at_every_call else first_and_last) if is_death else (0,):
                yield Plan(fault, point, occurrence)
    if with_etcd:
        for point in list(writes)[len(writes) // 2 :][:1]:
            yield Plan(Fault.ETCD, point, 0)


def written_sites() -> frozenset[Site]:
    """Every line of the operator's passes that writes to the API, as its source has it."""
    found: set[Site] = set()
    for folder in ("handlers", "cluster"):
        for file in sorted((_SOURCES / folder).glob("*.py")):
            if file.stem not in _OF_THEIR_OWN:
                found |= set(_sites(file.stem, "", ast.parse(file.read_text()).body))
    return frozenset(found)


def _sites(module: str, scope: str, body: Sequence[ast.AST]) -> Iterator[Site]:
    for node in body:
        match node:
            case ast.ClassDef(name=name, body=inner) | ast.FunctionDef(name=name, body=inner):
                yield from _sites(module, f"{scope}{name}.", inner)
            case ast.AsyncFunctionDef(name=name):
                for call in ast.walk(node):
                    match call:
                        case ast.Call(func=ast.Attribute(value=target, attr=method)) if method in _METHODS:
                            if ast.unparse(target).endswith("objects"):
                                yield Site(module, f"{scope}{name}", method)
                        case _:
                            pass
            case _:
                pass
