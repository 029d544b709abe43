"""`make chaos`: the operator is killed at every call that writes, and the API server fails it in every way.

On a real API server with played kubelets, and for rollouts once more on a real kubelet.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos import real_kubelet
from chaos.campaign import Campaign, Run, Undisturbed, plans, written_sites
from chaos.faults import Fault, Plan
from chaos.jobs import JOBS
from chaos.pauses import Pause, Pauses
from localcluster.locations import Instance
from localcluster.supervisor import ProcessState, read_records
from support.api_server import ApiServer, running_api_server

_REPOSITORY = Path(__file__).parents[2]
_PAUSES, _KUBELET = "pauses", "kubelet"
_TELL_SECONDS = 5


def main(arguments: Sequence[str]) -> int:
    """Run it; 0: every outcome was the same as without."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--output", type=Path, default=_REPOSITORY / "build" / "chaos.json")
    choices = (*JOBS, _PAUSES, _KUBELET)
    parser.add_argument("--job", choices=choices, action="append", help="only this one; may be repeated")
    parser.add_argument("--points", type=int, default=20, help="moments at which a leader is held by SIGSTOP")
    parser.add_argument("--every-call", action="store_true", help="death each time that a point is passed")
    options = parser.parse_args(arguments)
    chosen: list[str] = options.job or list(choices)
    jobs = [it for it in chosen if it in JOBS]
    logging.disable(logging.WARNING)  # What the reconcilers say of each of hundreds of runs.
    begun = time.monotonic()
    report = Report(options.output, begun)
    if jobs or _PAUSES in chosen:
        with running_api_server("chaos", _REPOSITORY / "crds") as server:
            campaign = Campaign(server.kubeconfig, etcd=etcd_killer(f"chaos-{os.getpid()}"))
            for job in jobs:
                report.add(campaign, job, list(plans(campaign.record(job), True, options.every_call)))
            if jobs == list(JOBS):
                report.unreached = _unreached(campaign)
            # The last, for it installs the chart, whose fence the runs before would have to pass.
            report.pauses = _pauses(server, options.points) if _PAUSES in chosen else []
    if _KUBELET in chosen:
        with real_kubelet.node() as kubelet:
            campaign = Campaign(
                kubelet.instance.kubeconfig, real_kubelet.JOBS, kubelet=kubelet.hold, patience_seconds=600
            )
            for job in real_kubelet.JOBS:
                todo = list(real_kubelet.plans(campaign.record(job)))
                report.add(campaign, job, todo, lambda: asyncio.run(real_kubelet.until_idle(kubelet)))
    report.write()
    for line in report.table():
        print(line)
    print(f"{time.monotonic() - begun:.0f} s; {options.output}")
    return 0 if report.is_clean else 1


@dataclass
class Report:
    """What has come of it so far, in a file as it goes on."""

    output: Path
    begun: float
    """As `time.monotonic` has it."""
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict[str, Undisturbed])
    runs: list[Run] = field(default_factory=list[Run])
    unreached: list[str] = field(default_factory=list[str])
    """Lines that write and that no job reaches; empty, too, when not all jobs were done."""
    pauses: list[Pause] = field(default_factory=list[Pause])

    def add(
        self, campaign: Campaign, job: str, todo: Sequence[Plan], before: Callable[[], None] = lambda: None
    ) -> None:
        """Do a job with each of these faults."""
        self.undisturbed[job] = undisturbed = campaign.record(job)
        print(f"{job}: {undisturbed.seconds:.0f} s undisturbed, {len(todo)} faults", flush=True)
        told = time.monotonic()
        for number, plan in enumerate(todo):
            before()
            run = campaign.run(job, plan)
            self.runs.append(run)
            if run.outcome != "same":
                print(f"  {plan}: {run.outcome}: {run.detail[:600]}", flush=True)
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                print(f"  {number + 1} of {len(todo)}", flush=True)
        self.write()

    @property
    def is_clean(self) -> bool:
        """Whether every outcome was the same as without."""
        outcomes = [*(it.outcome for it in self.runs), *(it.outcome for it in self.pauses)]
        return not self.unreached and all(it == "same" for it in outcomes)

    def write(self) -> None:
        """As JSON."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        report = _report(self.undisturbed, self.runs, self.unreached, time.monotonic() - self.begun)
        self.output.write_text(json.dumps(report | {"pauses": [asdict(it) for it in self.pauses]}, indent=1))

    def table(self) -> list[str]:
        """Lines to print."""
        lines = _table(self.undisturbed, self.runs, self.unreached)
        if self.pauses:
            same = sum(it.outcome == "same" for it in self.pauses)
            longest = max(it.failover_seconds for it in self.pauses)
            lines.append(
                f"{same} of {len(self.pauses)} rollouts whose leader was held ended as without; "
                f"failover {longest:.1f} s at most"
            )
        return lines


def _pauses(server: ApiServer, points: int) -> list[Pause]:
    print(f"leaders held by SIGSTOP: {points} moments of a rollout", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pauses = Pauses(server, Path(folder)).run(points)
    for it in pauses:
        if it.outcome != "same":
            print(f"  held at {it.at_seconds} s: {it.detail[:600]}", flush=True)
    return pauses


def _unreached(campaign: Campaign) -> list[str]:
    reached = frozenset[Any]().union(*(it.sites for it in campaign.undisturbed.values()))
    return sorted(str(it) for it in written_sites() - reached)


def etcd_killer(name: str) -> Callable[[], None]:
    """What kills the etcd of an instance, and waits until its supervisor has started it again."""
    instance = Instance.named(name)

    def kill() -> None:
        before = read_records(instance)["etcd"]
        assert before.pid is not None
        os.kill(before.pid, 9)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(ValueError):  # It is being written.
                now = read_records(instance)["etcd"]
                if now.restarts > before.restarts and now.state is ProcessState.READY:
                    return
            assert time.monotonic() < deadline, "etcd does not start again"
            time.sleep(0.05)

    return kill


def _report(
    undisturbed: dict[str, Undisturbed], runs: list[Run], unreached: list[str], seconds: float
) -> dict[str, Any]:
    points = [
        {"job": job, "point": str(point), "times": times}
        for job, it in undisturbed.items()
        for point, times in it.passed.items()
        if not point.call.startswith("list ")
    ]
    return {
        "seconds": round(seconds, 1),
        "points": points,
        "writeSites": sorted(str(it) for it in written_sites()),
        "writeSitesNotReached": unreached,
        "runs": [_plan(it.plan) | {"job": it.job} | _outcome(it) for it in runs],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {"point": str(plan.point), "occurrence": plan.occurrence, "fault": str(plan.fault)}


def _outcome(run: Run) -> dict[str, Any]:
    return {key: value for key, value in asdict(run).items() if key in {"outcome", "detail", "seconds"}}


def _table(undisturbed: dict[str, Undisturbed], runs: list[Run], unreached: list[str]) -> list[str]:
    done, same = Counter[tuple[str, Fault]](), Counter[tuple[str, Fault]]()
    for run in runs:
        done[run.job, run.plan.fault] += 1
        same[run.job, run.plan.fault] += run.outcome == "same"
    width = max(len(it) for it in Fault) + 2
    lines = [f"{'same outcome of runs, by job':<{width}}" + "".join(f"{it:>28}" for it in undisturbed)]
    writes = (sum(n for p, n in it.passed.items() if not p.call.startswith("list ")) for it in undisturbed.values())
    points = (sum(1 for p in it.passed if not p.call.startswith("list ")) for it in undisturbed.values())
    lines.append(f"{'points that write':<{width}}" + "".join(f"{it:>28}" for it in points))
    lines.append(f"{'calls that write':<{width}}" + "".join(f"{it:>28}" for it in writes))
    for fault in Fault:
        cells = (f"{same[job, fault]} of {done[job, fault]}" if done[job, fault] else "-" for job in undisturbed)
        lines.append(f"{fault:<{width}}" + "".join(f"{it:>28}" for it in cells))
    total = sum(same.values())
    lines.append(f"{total} of {len(runs)} runs ended as without a fault")
    lines.extend(f"no job reaches {it}" for it in unreached)
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
