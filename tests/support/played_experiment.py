"""An experiment from its first trial to its verdict without a cluster: real decisions, SIMULATED figures.

`python -m support.played_experiment FOLDER` writes `voice.yaml`, as `kubectl get gae,gt,gpp -o yaml` would give it, and
the raw results of its confirming runs under `artifacts/`. Means are those that `make demo` has measured on its
simulated card (tests/data/report/demo-2026-11-24.json), the windows are played as longer ones, with noise.
"""

import gzip
import hashlib
import json
import math
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cotune.api.conditions import Condition, ConditionStatus
from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus
from cotune.api.profile import ProfilePhase, ProfileStatus, StageStatus
from cotune.api.trial import Assignment, Measurement, Purpose, TrialPhase, TrialSpec, TrialStatus
from cotune.api.workload import ArrivalType
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.predictions import SpacePlan, plan_experiment
from cotune.experiments.step import ExperimentStep, PlannedTrial, decide
from cotune.fitness.judgement import judge
from cotune.measurement.contract import (
    CardSamples,
    InterferenceCell,
    ProbeResult,
    RawHistogram,
    Spread,
    Steadiness,
    StreamReport,
)
from cotune.measurement.latency import LatencyRecorder
from cotune.planning.model_config import read_model_config
from cotune.profiles.making import NamedProfile, make_profile
from cotune.search.space import Candidate, Space
from cotune.trials.interference import figures

from support import examples

Body = dict[str, Any]

NAME, NAMESPACE = "voice", "voice-lab"
_MEASURED = Path(__file__).parents[1] / "data" / "report" / "demo-2026-11-24.json"
_BEGIN = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
_WINDOW_SECONDS, _SPEC_DIGEST = 240, "sha256:" + hashlib.sha256(b"played").hexdigest()
_CARD_MIB = 12_288.0
_NOISE: Mapping[str, float] = {"latency": 0.03, "ttft": 0.03, "itl": 0.02, "gpu": 0.01, "throughput": 0.02, "wer": 0.05}
_ALONE: Mapping[str, float] = {"stt": 0.42, "judge": 0.80, "neighbour": 0.7}
"""Of its p95 in the full stack, what a component takes alone."""


@dataclass(eq=False)
class Played:
    """What is there at the end."""

    bodies: list[Body]
    records: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Digest to what the artifact store has under it."""

    def dump(self) -> str:
        """As `kubectl get -o yaml` gives it."""
        return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": self.bodies}, sort_keys=False, width=140)

    def write(self, folder: Path) -> None:
        """The dump, and one file for each record, equal whenever it is written."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "voice.yaml").write_text(self.dump())
        for digest, content in self.records.items():
            name = digest.removeprefix("sha256:")
            path = folder / "artifacts" / name[:2] / f"{name}.json.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def played(noise: float = 1.0, gain: float = 1.0, stop_after: int | None = None) -> Played:
    """Play it.

    Args:
        noise: how much repeats differ; 1: as on a card that one may trust.
        gain: how much of the candidates' differences is there; 0: all are as good as the baseline.
        stop_after: so many trials; None: to the end.
    """
    spec = experiment_spec()
    configs = {
        "judge": read_model_config(str(next(iter(examples.one("voice-stack.yaml", "ConfigMap")["data"].values()))))
    }
    plan = plan_experiment(spec, configs, {})
    player = _Player(spec, plan, noise, gain)
    step = player.play(stop_after)
    return Played([player.experiment(step), *player.trials(), *player.profile(step)], player.records)


def experiment_spec() -> ExperimentSpec:
    """The story's, with windows and repeats that a verdict at 95 % takes."""
    body = examples.one("voice-stack.yaml", "GpuAllocationExperiment")["spec"]
    workload = body["workload"] | {"warmupSeconds": 20, "durationSeconds": _WINDOW_SECONDS, "minimumSamples": 200}
    stages = [
        {"name": "staging", "namespace": "voice-staging", "bakeSeconds": 600},
        {"name": "production", "namespace": "voice-prod", "approval": "Manual", "bakeSeconds": 3600},
    ]
    return ExperimentSpec.model_validate(
        body
        | {
            "workload": workload,
            "evaluation": {"repeats": 7, "confidence": "0.95", "baselineEvery": 4},
            "profileTemplate": {"rollout": {"stages": stages}},
        }
    )


class _Player:
    def __init__(self, spec: ExperimentSpec, plan: SpacePlan, noise: float, gain: float) -> None:
        self.records: dict[str, bytes] = {}
        self._cells: dict[str, tuple[InterferenceCell, ...]] = {}
        self._spec, self._plan, self._noise, self._gain = spec, plan, noise, gain
        self._space = Space(spec.parameters)
        self._random = random.Random(20_261_124)
        self._ended: list[tuple[PlannedTrial, TrialStatus, str | None]] = []
        self._clock = _BEGIN
        self._measured = _measured()

    def play(self, stop_after: int | None) -> ExperimentStep:
        while True:
            observed = [self._observed(*it[:2]) for it in self._ended]
            step = decide(NAME, self._spec, observed, 1, self._plan)
            enough = stop_after is not None and len(self._ended) >= stop_after
            if step.phase in {ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED} or enough:
                return step
            for planned in (*step.start, *step.record):
                self._run(planned)

    def experiment(self, step: ExperimentStep) -> Body:
        summary, made = self._plan.summary, self._made(step)
        status = ExperimentStatus(
            phase=step.phase,
            observed_generation=1,
            spec_digest=_SPEC_DIGEST,
            trials=step.counts,
            plan=summary,
            gpu_seconds_saved=f"{step.gpu_seconds_saved:.1f}" if step.gpu_seconds_saved is not None else None,
            winner=step.winner,
            verdict=step.verdict,
            validation=step.validation,
            noise=step.noise,
            profile=made.name if made is not None else None,
            conditions=tuple(self._conditions(step)),
        )
        return self._body("GpuAllocationExperiment", NAME, self._spec, status)

    def trials(self) -> list[Body]:
        found: list[Body] = []
        for planned, status, digest in self._ended:
            spec = TrialSpec(
                experiment=NAME,
                candidate=tuple(Assignment(name=name, value=value) for name, value in planned.candidate.assignments),
                repeat=planned.repeat,
                purpose=planned.purpose,
                series=planned.series,
                skipped=planned.is_skipped,
                prediction=planned.prediction,
            )
            body = self._body("GpuTrial", planned.name, spec, status)
            if digest is not None:
                body["status"]["artifact"] = {"digest": digest, "bytes": len(self.records[digest])}
                cells = figures(self._cells[digest])
                body["status"]["interference"] = [it.model_dump(mode="json", by_alias=True) for it in cells]
            found.append(body)
        return found

    def profile(self, step: ExperimentStep) -> list[Body]:
        if (made := self._made(step)) is None:
            return []
        status = ProfileStatus(
            phase=ProfilePhase.AWAITING_APPROVAL,
            stage="production",
            stages=(
                StageStatus(name="staging", phase=ProfilePhase.PROMOTED, last_good_revision="cotune-0123456789"),
                StageStatus(name="production", phase=ProfilePhase.AWAITING_APPROVAL, message="approval is Manual"),
            ),
        )
        return [self._body("GpuProfile", made.name, made.spec, status)]

    def _made(self, step: ExperimentStep) -> NamedProfile | None:
        if step.deployable is None:
            return None
        return make_profile(self._spec, NAME, NAMESPACE, step.deployable.candidate, step.deployable.trial, _SPEC_DIGEST)

    def _conditions(self, step: ExperimentStep) -> list[Condition]:
        over = step.phase is ExperimentPhase.SUCCEEDED
        told = {"Ready": over, "Progressing": not over}
        holds = {it: ConditionStatus.TRUE if value else ConditionStatus.FALSE for it, value in told.items()}
        found = [self._condition(it, status, step.reason, step.message) for it, status in holds.items()]
        if step.outcome is not None:
            better = {"Better": ConditionStatus.TRUE, "NotBetter": ConditionStatus.FALSE}
            status = better.get(str(step.outcome), ConditionStatus.UNKNOWN)
            found.append(self._condition("Better", status, str(step.outcome), step.message))
        return found

    def _condition(self, kind: str, status: ConditionStatus, reason: str, message: str) -> Condition:
        return Condition(
            type=kind,
            status=status,
            observed_generation=1,
            last_transition_time=self._clock,
            reason=reason,
            message=message,
        )

    def _run(self, planned: PlannedTrial) -> None:
        begun = self._clock
        if planned.is_skipped and planned.prediction is not None:
            why = planned.prediction
            status = TrialStatus(
                phase=TrialPhase.SKIPPED, reason=why.reason, message=why.message, started_at=begun, finished_at=begun
            )
            self._ended.append((planned, status, None))
            return
        self._clock += timedelta(seconds=_WINDOW_SECONDS + 75)
        during = TrialStatus(node="gpu-lab-1", started_at=begun, finished_at=self._clock)
        if (why := _trouble(planned)) is not None:
            phase, reason, message = why
            ended = during.model_copy(update={"phase": phase, "reason": reason, "message": message})
            self._ended.append((planned, ended, None))
            return
        values = self._values(planned.candidate)
        streams = tuple(
            self._stream(number, it.component, values) for number, it in enumerate(self._spec.workload.streams)
        )
        for it in streams:
            values |= _percentiles(it)
        measurements = tuple(
            Measurement(metric=metric, value=f"{value:.6f}", samples=_samples(metric))
            for metric, value in values.items()
        )
        status = during.model_copy(update={"phase": TrialPhase.SUCCEEDED, "measurements": measurements})
        digest = None
        if planned.purpose is Purpose.CONFIRMATION:
            result = self._raw(values, measurements, streams)
            record = {"manifest": {}, "result": result.model_dump(mode="json", by_alias=True)}
            content = gzip.compress(json.dumps(record).encode(), mtime=0)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.records[digest], self._cells[digest] = content, result.interference
        self._ended.append((planned, self._judged(planned, status), digest))

    def _judged(self, planned: PlannedTrial, status: TrialStatus) -> TrialStatus:
        runs = [(planned, status), *((it[0], it[1]) for it in self._ended)]
        baseline = [
            _metrics(it) for run, it in runs if run.candidate == self._space.baseline and run.purpose is Purpose.SEARCH
        ]
        found = judge(self._spec, _metrics(status), [it for it in baseline if it])
        holds = ConditionStatus.TRUE if found.feasible else ConditionStatus.FALSE
        conditions = (self._condition("Feasible", holds, found.reason, found.message),)
        return status.model_copy(update={"fitness": found.fitness, "conditions": conditions})

    def _values(self, candidate: Candidate) -> dict[str, float]:
        reference = self._measured[self._space.baseline]
        found = self._measured[candidate]
        blended = {it: reference[it] + self._gain * (found[it] - reference[it]) for it in found}
        return {metric: value * self._luck(metric) for metric, value in blended.items()}

    def _luck(self, metric: str) -> float:
        part = metric.split(".")[0] if metric == "gpu.utilization" else metric.split(".")[1] if "." in metric else ""
        return math.exp(self._random.gauss(0, self._noise * _NOISE.get(part, 0.0)))

    def _raw(
        self, values: Mapping[str, float], measurements: tuple[Measurement, ...], streams: tuple[StreamReport, ...]
    ) -> ProbeResult:
        return ProbeResult(
            measurements=measurements,
            streams=streams,
            card_samples=self._card(values),
            interference=tuple(self._matrix(values)),
        )

    def _stream(self, number: int, component: str, values: Mapping[str, float]) -> StreamReport:
        count = 2 * _WINDOW_SECONDS
        recorders = {"latency": f"{component}.latency", "firstToken": f"{component}.ttft"}
        histograms: list[RawHistogram] = []
        for name, metric in recorders.items():
            if f"{metric}.p95" not in values:
                continue
            # Windows of three seconds have few requests in them: often one is all percentiles.
            width = max(math.log(values[f"{metric}.p95"] / values[f"{metric}.p50"]) / 1.645, 0.12)
            recorder, middle = LatencyRecorder(), values[f"{metric}.p95"] / 1000 / math.exp(1.645 * width)
            for _ in range(count):
                recorder.finished(0.0, middle * math.exp(self._random.gauss(0, width)))
            histograms.append(RawHistogram(name=name, encoded=recorder.encoded()))
        return StreamReport(
            component=component,
            stream=number,
            arrivals=ArrivalType.POISSON,
            requests=count,
            steadiness=Steadiness.STEADY,
            histograms=tuple(histograms),
        )

    def _card(self, values: Mapping[str, float]) -> CardSamples:
        seconds = tuple(it / 2 for it in range(2 * _WINDOW_SECONDS))
        most = values["gpu.usedMiB"]
        used = tuple(round(most - 90 * self._random.random() * math.exp(-it / 30), 1) for it in seconds)
        return CardSamples(
            seconds=seconds,
            used_mib=used,
            utilization=tuple(
                round(min(1.0, values["gpu.utilization"] * self._random.uniform(0.8, 1.2)), 3) for _ in seconds
            ),
            sm_clock_mhz=tuple(1777 for _ in seconds),
            power_watts=tuple(round(self._random.uniform(110, 140), 1) for _ in seconds),
            temperature_celsius=tuple(min(71, 52 + int(it / 8)) for it in seconds),
        )

    def _matrix(self, values: Mapping[str, float]) -> list[InterferenceCell]:
        names = [it.name for it in self._spec.stack.components]
        pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
        loads = [*((it,) for it in names), *pairs, tuple(names)]
        return [
            InterferenceCell(loaded=load, component=it, latency=self._spread(it, load, values))
            for load in loads
            for it in load
        ]

    def _spread(self, component: str, load: tuple[str, ...], values: Mapping[str, float]) -> Spread:
        full, alone = values[f"{component}.latency.p95"], _ALONE[component]
        among = {"judge": 1.0, "stt": 0.9, "neighbour": 0.1}
        others = sum(weight for it, weight in among.items() if it in load and it != component)
        most = sum(weight for it, weight in among.items() if it != component)
        p95 = round(full * (alone + (1 - alone) * others / most), 3)
        return Spread(p50=p95 * 0.7, p95=p95, p99=p95 * 1.1, largest=p95 * 1.3, samples=200)

    def _observed(self, planned: PlannedTrial, status: TrialStatus) -> ObservedTrial:
        seconds = (
            (status.finished_at - status.started_at).total_seconds()
            if status.finished_at and status.started_at
            else None
        )
        return ObservedTrial(
            planned.name,
            planned.candidate,
            planned.repeat,
            status.phase,
            is_judged=True,
            fitness=float(status.fitness) if status.fitness is not None else None,
            reason=status.reason,
            message=status.message,
            prediction=planned.prediction,
            is_skipped=planned.is_skipped,
            seconds=None if planned.is_skipped else seconds,
            purpose=planned.purpose,
            series=planned.series,
            started=status.started_at.timestamp() if status.started_at else None,
            measurements=_metrics(status),
        )

    def _body(self, kind: str, name: str, spec: Any, status: Any) -> Body:
        owners = (
            [] if kind != "GpuTrial" else [{"kind": "GpuAllocationExperiment", "name": NAME, "uid": "uid-of-voice"}]
        )
        uid = "uid-of-voice" if kind == "GpuAllocationExperiment" else f"uid-of-{name}"
        return {
            "apiVersion": "cotune.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "ownerReferences": owners},
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }


def _measured() -> Mapping[Candidate, Mapping[str, float]]:
    """What `make demo` has measured of each candidate, in its first run."""
    found: dict[Candidate, Mapping[str, float]] = {}
    for it in json.loads(_MEASURED.read_text())["trials"]:
        if it["phase"] == "Succeeded":
            # Three seconds of load are too few for these two to be more than 0.
            more = {"judge.throughput": 1.0, "judge.tokensPerSecond": 32.0}
            found.setdefault(Candidate(tuple(it["parameters"].items())), it["metrics"] | more)
    return found


def _trouble(planned: PlannedTrial) -> tuple[TrialPhase, str, str] | None:
    """One candidate that fails, and one run whose figures must not count."""
    values = planned.candidate.values
    if values == {"judgeMemory": "0.60", "whisperModel": "small"}:
        why = "stt: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 148.00 MiB"
        return TrialPhase.FAILED, "CudaOutOfMemory", why
    if values == {"judgeMemory": "0.55", "whisperModel": "base"} and planned.repeat == 0:
        why = "SwThermalSlowdown slowed the card's clocks in 312 of 2400 readings"
        return TrialPhase.INVALID, "Throttled", why
    return None


def _percentiles(stream: StreamReport) -> Mapping[str, float]:
    """As the probe says them of the same histograms."""
    names = {"latency": "latency", "firstToken": "ttft"}
    found: dict[str, float] = {}
    for it in stream.histograms:
        told = LatencyRecorder.decoded(it.encoded).percentiles()
        assert told is not None
        metric, values = f"{stream.component}.{names[it.name]}", told
        found |= {f"{metric}.p50": values.p50, f"{metric}.p95": values.p95, f"{metric}.p99": values.p99}
    return found


def _metrics(status: TrialStatus) -> Mapping[str, float]:
    return {it.metric: float(it.value) for it in status.measurements}


def _samples(metric: str) -> int:
    return 2400 if metric.startswith("gpu.") else 2 * _WINDOW_SECONDS


if __name__ == "__main__":
    played().write(Path(sys.argv[1]))
