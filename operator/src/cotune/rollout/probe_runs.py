"""The runs of a stage's probe: which is due, and which count."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from cotune.api.gate import Gate, GateOutcome
from cotune.api.profile import Stage
from cotune.api.stage_probe import MOST_SPOILED, ProbeRun, StageProbe, StageProbeStatus
from cotune.api.trial import Measurement

_AGAIN = timedelta(seconds=30)
"""After a run that failed: what ailed it may pass."""
_KEEPS = timedelta(hours=1)
"""How long a baseline says how a stage is before its change."""
_DIGITS = 16


def probed(stage: Stage) -> Sequence[Gate]:
    """The gates that hold figures of the stage's probe."""
    return [it for it in stage.gates if it.probe is not None]


def wants_baseline(stage: Stage) -> bool:
    """Whether the probe has to run before the stage begins."""
    return any(it.against_baseline is not None for it in probed(stage))


def digest(*parts: object) -> str:
    """Sixteen digits that are others when one of the parts, as JSON has it, is."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def load_of(stage: Stage, probe: StageProbe) -> str:
    """What is sent, and which figures are wanted, as a digest. How many runs there are is no part of it."""
    metrics = sorted({it.probe.metric for it in probed(stage) if it.probe is not None})
    return digest(probe.model_dump(mode="json", exclude={"runs"}), metrics)


def current(stage: Stage, probe: StageProbe, record: StageProbeStatus | None) -> StageProbeStatus:
    """The record of the load as the stage has it now: with another one all runs are made anew.

    The pod of a run of the former load stays on record until it is deleted, and is by its number none of the new ones.
    """
    load = load_of(stage, probe)
    if record is None:
        return StageProbeStatus(load=load)
    if record.load == load:
        return record
    return StageProbeStatus(load=load, begun=record.begun + 1, pod=record.pod, pod_since=record.pod_since)


def wanted(stage: Stage, found: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Of what a run has measured, what the stage's gates name."""
    metrics = {it.probe.metric for it in probed(stage) if it.probe is not None}
    return tuple(it for it in found if it.metric in metrics)


def spoiled(gate: Gate, run: ProbeRun) -> tuple[GateOutcome, str] | None:
    """Why a run says nothing of a gate's figure."""
    assert gate.probe is not None
    if run.error:
        return GateOutcome.ERROR, f"run {run.number}: {run.error}"
    found = _figure(gate, run)
    if found is None:
        return GateOutcome.NO_DATA, f"run {run.number} has no {gate.probe.metric}"
    least = gate.probe.minimum_requests
    if found.samples < least:
        why = f"run {run.number}: {gate.probe.metric} rests on {found.samples} requests, {least} are needed"
        return GateOutcome.INCONCLUSIVE, why
    return None


def figures(gate: Gate, runs: Sequence[ProbeRun]) -> Sequence[float]:
    """One for each run that counts, in their order."""
    counting = (_figure(gate, it) for it in runs if spoiled(gate, it) is None)
    return [float(it.value) for it in counting if it is not None]


def is_complete(stage: Stage, probe: StageProbe, runs: Sequence[ProbeRun]) -> bool:
    """Whether every gate has as many runs as it needs."""
    return all(len(figures(it, runs)) >= probe.runs for it in probed(stage))


def is_given_up(stage: Stage, probe: StageProbe, runs: Sequence[ProbeRun]) -> bool:
    """Whether so many runs have come to nothing that no further one is made."""
    return not is_complete(stage, probe, runs) and len(runs) >= probe.runs + MOST_SPOILED


def is_run_due(stage: Stage, probe: StageProbe, runs: Sequence[ProbeRun], since: datetime, now: datetime) -> bool:
    """Whether a stage that bakes since then needs its next run now; they lie evenly in the bake time."""
    if is_complete(stage, probe, runs) or is_given_up(stage, probe, runs):
        return False
    number = min(len(runs), probe.runs - 1)
    return now >= max(since + timedelta(seconds=stage.bake_seconds) * number / probe.runs, _rested(runs, since))


def is_baseline_run_due(
    stage: Stage, probe: StageProbe, runs: Sequence[ProbeRun], since: datetime, now: datetime
) -> bool:
    """The same before the stage begins: one after the other."""
    if is_complete(stage, probe, runs) or is_given_up(stage, probe, runs):
        return False
    return now >= _rested(runs, since)


def is_stale(runs: Sequence[ProbeRun], now: datetime) -> bool:
    """Whether a baseline is too old to be compared with."""
    return bool(runs) and now - runs[0].ended_at > _KEEPS + (runs[-1].ended_at - runs[0].ended_at)


def _rested(runs: Sequence[ProbeRun], since: datetime) -> datetime:
    if not runs:
        return since
    return runs[-1].ended_at + (_AGAIN if runs[-1].error else timedelta())


def _figure(gate: Gate, run: ProbeRun) -> Measurement | None:
    assert gate.probe is not None
    return next((it for it in run.measurements if it.metric == gate.probe.metric), None)
