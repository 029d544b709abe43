"""`make bench-memory`: what the operator's process holds over 1,000 rollouts, on a real API server and kwok's pods.

No kubelet runs: kwok says of every pod that it is ready, so that a rollout takes as long as the operator's part of it.
Rollouts go on in several namespaces beside each other, one after the other in each; a profile is deleted once its
successor has been promoted, so that what is stored stays the same and what the process holds can be compared.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import cluster
from localcluster.binaries import KUBERNETES, KWOK, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.locations import Cache, Instance, repository_root
from localcluster.topology import Topology

from cotune_bench.rollback_scene import Machine, cotune_operator, process, source_of
from cotune_bench.table import print_table, write_result

_NODE = "played"
_LANES = 20
_SAMPLES = 20
"""So often is the process looked at over all rollouts."""
_WARM_UP = 0.2
"""The share of the rollouts after which the line is fitted: caches and pools are full by then."""
_POLL_SECONDS = 0.5
_STUCK_SECONDS = 300.0
_VALUES = ("small", "tiny")

Json = dict[str, Any]


class StuckError(LocalClusterError):
    """No rollout ended for too long, or one did not end as Promoted."""


@dataclass(frozen=True)
class Sample:
    """The operator's process at one moment."""

    rollouts: int
    seconds: float
    resident_mib: float


def slope_mib(samples: Sequence[Sample]) -> float:
    """By how many MiB the resident memory grows in 1,000 rollouts: the least-squares line's slope.

    Raises:
        ValueError: fewer than two samples, or all at the same number of rollouts.
    """
    if len({it.rollouts for it in samples}) < 2:
        raise ValueError("a line needs samples at two numbers of rollouts")
    mean_x = sum(it.rollouts for it in samples) / len(samples)
    mean_y = sum(it.resident_mib for it in samples) / len(samples)
    above = sum((it.rollouts - mean_x) * (it.resident_mib - mean_y) for it in samples)
    return 1000 * above / sum((it.rollouts - mean_x) ** 2 for it in samples)


def resident_mib(process_id: int) -> float:
    """VmRSS of a process."""
    status = Path(f"/proc/{process_id}/status").read_text()
    line = next(it for it in status.splitlines() if it.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


@contextmanager
def played_machine(logs: Path) -> Generator[Machine]:
    """A control plane with one node that kwok plays, gone afterwards."""
    cache, instance = Cache.from_environment(), Instance.named(f"memory-{os.getpid()}")
    kwok = ensure_built(KWOK, cache) / "kwok"
    try:
        cluster.up(instance, Topology(node_names=()), cache)
        where = Machine(ensure_built(KUBERNETES, cache) / "kubectl", instance.kubeconfig, ())
        node: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": _NODE},
            "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"}},
        }
        where.do("apply", "-f", "-", text=json.dumps(node))
        command = [str(kwok), f"--kubeconfig={where.kubeconfig}", "--manage-all-nodes=true"]
        # Without a Lease that is renewed the node is taken for lost, and its pods for not ready.
        command += ["--server-address=127.0.0.1:18100", "--node-lease-duration-seconds=40"]
        stages = source_of(KWOK, "sigs.k8s.io/kwok") / "kustomize" / "stage"
        # Its own fastest ones: a pod is ready in the moment in which it is there.
        for kind, speed in (("node", "fast"), ("node", "heartbeat-with-lease"), ("pod", "fast")):
            files = sorted((stages / kind / speed).glob(f"{kind}-*.yaml"))
            command += [f"--config={it}" for it in files]
        with process(command, {}, logs / "kwok.log", "http://127.0.0.1:18100/healthz"):
            yield where
    finally:
        cluster.down(instance)


class Lanes:
    """Namespaces with one workload each, and the rollouts that go on in them."""

    def __init__(self, where: Machine, count: int, rollouts: int) -> None:
        self._where = where
        self._names = [f"lane-{number}" for number in range(count)]
        self._rollouts = rollouts
        self._begun = dict.fromkeys(self._names, 0)
        self.done = 0

    def prepare(self) -> None:
        """The namespaces, each with its workload and its owner's grant."""
        self._apply([it for name in self._names for it in _lane(name)])

    def look(self) -> int:
        """Begin the next rollout wherever the one before has ended; how many have ended since the last look.

        Raises:
            StuckError: one ended otherwise than Promoted.
        """
        phases = self._phases()
        over: list[str] = []
        todo: list[Json] = []
        ended = 0
        for lane in tuple(self._names):
            number = self._begun[lane]
            phase = phases.get((lane, _profile_name(number)), "")
            if phase in ("RolledBack", "Degraded"):
                raise StuckError(f"{lane}/{_profile_name(number)} is {phase}")
            if number and phase != "Promoted":
                continue
            if number:
                ended += 1
            if number > 1:
                over.append(f"{lane}/{_profile_name(number - 1)}")
            if sum(self._begun.values()) < self._rollouts:
                self._begun[lane] = number + 1
                todo.append(_profile(lane, number + 1))
            elif number:
                self._names.remove(lane)
        if todo:
            self._apply(todo)
        for it in over:
            namespace, _, name = it.partition("/")
            self._where.do("delete", "gpuprofile", name, "-n", namespace, "--wait=false", "--ignore-not-found")
        self.done += ended
        return ended

    @property
    def is_over(self) -> bool:
        """Whether all have ended."""
        return self.done >= self._rollouts

    def _phases(self) -> "dict[tuple[str, str], str]":
        listed = json.loads(self._where.do("get", "gpuprofiles", "-A", "-o", "json"))["items"]
        return {
            (it["metadata"]["namespace"], it["metadata"]["name"]): it.get("status", {}).get("phase", "")
            for it in listed
        }

    def _apply(self, items: "list[Json]") -> None:
        self._where.do("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _profile_name(number: int) -> str:
    return f"change-{number}"


def _profile(lane: str, number: int) -> Json:
    stage = {"name": "only", "namespace": lane, "guardSeconds": 0, "bakeSeconds": 0}
    return {
        "apiVersion": "cotune.dev/v1alpha1",
        "kind": "GpuProfile",
        "metadata": {"name": _profile_name(number), "namespace": lane},
        "spec": {
            "changes": [{"component": "stt", "env": "SIZE", "to": _VALUES[number % 2]}],
            "startOrder": ["stt"],
            "rollout": {"stages": [stage]},
        },
    }


def _lane(name: str) -> "list[Json]":
    labels = {"app": "whisper"}
    container: Json = {"name": "asr", "image": "example/whisper:1", "env": [{"name": "SIZE", "value": _VALUES[0]}]}
    template: Json = {"metadata": {"labels": labels}, "spec": {"nodeName": _NODE, "containers": [container]}}
    target: Json = {
        "component": "stt",
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper"},
        "container": "asr",
        "env": ["SIZE"],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "whisper", "namespace": name},
            "spec": {"strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "cotune.dev/v1alpha1",
            "kind": "GpuTuningGrant",
            "metadata": {"name": "from-itself", "namespace": name},
            "spec": {"from": [{"namespace": name}], "allow": ["Rollout"], "targets": [target]},
        },
    ]


def measure(where: Machine, process_id: int, rollouts: int) -> "list[Sample]":
    """Roll out so often, and look at the operator's process again and again.

    Raises:
        StuckError: no rollout ended for five minutes, or one did not end as Promoted.
    """
    lanes = Lanes(where, min(_LANES, rollouts), rollouts)
    lanes.prepare()
    begin = last = time.monotonic()
    samples = [Sample(0, 0.0, resident_mib(process_id))]
    step = max(1, rollouts // _SAMPLES)
    while not lanes.is_over:
        if lanes.look():
            last = time.monotonic()
        elif time.monotonic() - last > _STUCK_SECONDS:
            raise StuckError(f"no rollout ended for {_STUCK_SECONDS:.0f} s, after {lanes.done}")
        if lanes.done - samples[-1].rollouts >= step or lanes.is_over:
            samples.append(Sample(lanes.done, round(time.monotonic() - begin, 1), resident_mib(process_id)))
            print(f"{lanes.done:5} of {rollouts} rollouts, {samples[-1].resident_mib:.1f} MiB", flush=True)
        time.sleep(_POLL_SECONDS)
    return samples


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Measure, print the table, write build/bench/memory.json."""
    parser = argparse.ArgumentParser(prog="make bench-memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rollouts", type=int, default=1000)
    options = parser.parse_args(arguments)
    logs = repository_root() / "build" / "bench" / "memory-logs"
    try:
        with played_machine(logs) as where, cotune_operator(where, logs) as process_id:
            samples = measure(where, process_id, options.rollouts)
    except LocalClusterError as error:
        print(f"bench-memory: error: {error}", file=sys.stderr)
        return 1
    print_table(
        ("ROLLOUTS", "SECONDS", "RESIDENT MiB"),
        [(str(it.rollouts), f"{it.seconds:.0f}", f"{it.resident_mib:.1f}") for it in samples],
    )
    warm = [it for it in samples if it.rollouts >= _WARM_UP * options.rollouts]
    slope = slope_mib(warm)
    first, end = warm[0], warm[-1]
    result = {
        "rollouts": options.rollouts,
        "lanes": _LANES,
        "samples": [vars(it) for it in samples],
        "warmUpRollouts": first.rollouts,
        "growthMiBPerThousandRollouts": round(slope, 2),
        "ratioEndToWarm": round(end.resident_mib / first.resident_mib, 4),
    }
    write_result("memory", result)
    print(
        f"from {first.rollouts} rollouts on: {slope:+.2f} MiB in 1,000 rollouts; at the end "
        f"{end.resident_mib / first.resident_mib:.3f} times what it held then"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
