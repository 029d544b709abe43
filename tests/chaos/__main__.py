"""`make chaos`: the operator is killed at every call that writes, and the API server fails it in every way.

On a real API server with played kubelets, and for rollouts once more on a real kubelet. Several jobs are done at once,
each by a process of its own with an API server of its own.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from chaos import real_kubelet
from chaos.campaign import Campaign, Undisturbed, plans, written_sites
from chaos.faults import Fault, Plan
from chaos.jobs import JOBS
from chaos.pauses import Pause, Pauses
from localcluster.locations import Instance
from localcluster.supervisor import ProcessState, read_records
from support.api_server import ApiServer, running_api_server

_REPOSITORY = Path(__file__).parents[2]
_PAUSES, _KUBELET = "pauses", "kubelet"
_ALL = (_KUBELET, _PAUSES, *JOBS)
"""What takes longest is begun first."""
_AT_ONCE = 3
"""A run waits more than it computes."""
_TELL_SECONDS = 5

Part = dict[str, Any]
"""What has come of one job: `points`, `sites` (that write, and that it has reached), `runs`, `pauses`."""


def main(arguments: Sequence[str]) -> int:
    """Run it; 0: every outcome was the same as without."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--output", type=Path, default=_REPOSITORY / "build" / "chaos.json")
    parser.add_argument("--job", choices=_ALL, action="append", help="only this one; may be repeated")
    parser.add_argument("--points", type=int, default=20, help="moments at which a leader is held by SIGSTOP")
    parser.add_argument("--every-call", action="store_true", help="death each time that a point is passed")
    parser.add_argument("--at-once", type=int, default=_AT_ONCE, help="how many jobs are done side by side")
    options = parser.parse_args(arguments)
    jobs = [it for it in _ALL if options.job is None or it in options.job]
    begun = time.monotonic()
    if len(jobs) > 1:
        more = [f"--points={options.points}", *(["--every-call"] if options.every_call else [])]
        parts = _each_by_itself(jobs, options.at_once, more)
    else:
        logging.disable(logging.WARNING)  # What the reconcilers say of each of hundreds of runs.
        parts = {jobs[0]: _part(jobs[0], options.points, options.every_call)}
    report = _report(parts, jobs, time.monotonic() - begun)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(_as_text(report))
    for line in _table(report):
        print(line)
    print(f"{report['seconds']:.0f} s; {options.output}")
    return 0 if _is_clean(report) else 1


def _each_by_itself(jobs: Sequence[str], at_once: int, more: Sequence[str]) -> dict[str, Part]:
    """Every job in a process of its own; one that ends without a report has none of its runs."""
    printing = threading.Lock()

    def one(job: str, output: Path) -> Part:
        command = [sys.executable, "-m", "chaos", "--job", job, "--output", str(output), *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            last = ""
            for line in process.stdout:
                last = line.rstrip()
                if not last.startswith("local-cluster: "):
                    with printing:
                        print(f"{job}: {last.strip()}", flush=True)
        if not output.exists():
            return {"failure": f"its process ended with {process.returncode}: {last}"}
        return cast("Part", json.loads(output.read_text())["jobs"][job])

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        parts = {it: pool.submit(one, it, Path(folder, f"{number}.json")) for number, it in enumerate(jobs)}
        return {job: it.result() for job, it in parts.items()}


def _part(job: str, points: int, every_call: bool) -> Part:
    """Do one job with each of its faults."""
    if job == _KUBELET:
        with real_kubelet.node() as kubelet:
            campaign = Campaign(
                kubelet.instance.kubeconfig, real_kubelet.JOBS, kubelet=kubelet.hold, patience_seconds=600
            )
            done = [
                _runs(campaign, it, real_kubelet.plans, lambda: asyncio.run(real_kubelet.until_idle(kubelet)))
                for it in real_kubelet.JOBS
            ]
        return {key: [it for part in done for it in part[key]] for key in ("points", "sites", "runs")}
    with running_api_server("chaos", _REPOSITORY / "crds") as server:
        if job == _PAUSES:
            return {"pauses": [asdict(it) for it in _pauses(server, points)]}
        campaign = Campaign(server.kubeconfig, etcd=etcd_killer(f"chaos-{os.getpid()}"))
        return _runs(campaign, job, lambda it: plans(it, True, every_call))


def _runs(
    campaign: Campaign,
    job: str,
    planned: Callable[[Undisturbed], Iterator[Plan]],
    before: Callable[[], None] = lambda: None,
) -> Part:
    undisturbed = campaign.record(job)
    todo = list(planned(undisturbed))
    print(f"{undisturbed.seconds:.0f} s undisturbed, {len(todo)} faults", flush=True)
    told = time.monotonic()
    runs: list[dict[str, Any]] = []
    for number, plan in enumerate(todo):
        before()
        run = campaign.run(job, plan)
        fault = {"point": str(run.plan.point), "occurrence": run.plan.occurrence, "fault": str(run.plan.fault)}
        outcome = {"outcome": run.outcome, "detail": run.detail, "seconds": round(run.seconds, 1)}
        runs.append({"job": job} | fault | outcome)
        if run.outcome != "same":
            print(f"  {plan}: {run.outcome}: {run.detail[:600]}", flush=True)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            print(f"  {number + 1} of {len(todo)}", flush=True)
    points = [
        {"job": job, "point": str(point), "times": times}
        for point, times in undisturbed.passed.items()
        if not point.call.startswith("list ")
    ]
    return {"points": points, "sites": sorted(str(it) for it in undisturbed.sites), "runs": runs}


def _pauses(server: ApiServer, points: int) -> list[Pause]:
    print(f"leaders held by SIGSTOP: {points} moments of a rollout", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pauses = Pauses(server, Path(folder)).run(points)
    for it in pauses:
        if it.outcome != "same":
            print(f"  held at {it.at_seconds} s: {it.detail[:600]}", flush=True)
    return pauses


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


def _report(parts: dict[str, Part], jobs: Sequence[str], seconds: float) -> dict[str, Any]:
    reached = {site for it in parts.values() for site in it.get("sites", ())}
    sites = sorted(str(it) for it in written_sites())
    return {
        "seconds": round(seconds, 1),
        "points": [it for part in parts.values() for it in part.get("points", ())],
        "writeSites": sites,
        # Some jobs reach some of them.
        "writeSitesNotReached": [it for it in sites if it not in reached] if set(JOBS) <= set(jobs) else [],
        "runs": [it for part in parts.values() for it in part.get("runs", ())],
        "pauses": [it for part in parts.values() for it in part.get("pauses", ())],
        "failures": {job: it["failure"] for job, it in parts.items() if "failure" in it},
        "jobs": parts if len(parts) == 1 else {},
    }


def _as_text(report: dict[str, Any]) -> str:
    """As JSON, each run on a line of its own."""
    parts: list[str] = []
    for key, value in report.items():
        if isinstance(value, list):
            told = ",\n  ".join(json.dumps(it) for it in cast("list[Any]", value))
            parts.append(f"{json.dumps(key)}: [\n  {told}]" if told else f"{json.dumps(key)}: []")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{" + ",\n ".join(parts) + "}\n"


def _is_clean(report: dict[str, Any]) -> bool:
    """Whether every outcome was the same as without."""
    outcomes = [it["outcome"] for it in (*report["runs"], *report["pauses"])]
    return (
        bool(outcomes)
        and not report["writeSitesNotReached"]
        and not report["failures"]
        and all(it == "same" for it in outcomes)
    )


def _table(report: dict[str, Any]) -> list[str]:
    runs, pauses = report["runs"], report["pauses"]
    jobs = list(dict.fromkeys(it["job"] for it in runs))
    faults = [it for it in Fault if any(run["fault"] == it for run in runs)]
    lines: list[str] = []
    if runs:
        heads = ("points that write", "calls that write", *faults)
        widths = [max(len(it), 10) for it in heads]
        width = max(len(it) for it in jobs)
        lines.append("same outcome of runs")
        lines.append("  ".join([" " * width, *(f"{it:>{w}}" for it, w in zip(heads, widths, strict=True))]))
        done = Counter((it["job"], it["fault"]) for it in runs)
        same = Counter((it["job"], it["fault"]) for it in runs if it["outcome"] == "same")
        for job in jobs:
            times = [it["times"] for it in report["points"] if it["job"] == job]
            cells = [str(len(times)), str(sum(times))]
            cells += [f"{same[job, it]} of {done[job, it]}" if done[job, it] else "-" for it in faults]
            lines.append("  ".join([f"{job:<{width}}", *(f"{it:>{w}}" for it, w in zip(cells, widths, strict=True))]))
        lines.append(f"{sum(same.values())} of {len(runs)} runs ended as without a fault")
    if pauses:
        ended = sum(it["outcome"] == "same" for it in pauses)
        longest = max(it["failover_seconds"] for it in pauses)
        lines.append(
            f"{ended} of {len(pauses)} rollouts whose leader was held ended as without; "
            f"failover {longest:.1f} s at most"
        )
    lines.extend(f"no job reaches {it}" for it in report["writeSitesNotReached"])
    lines.extend(f"{job}: {it}" for job, it in report["failures"].items())
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
