"""What the runs of a stage's probe say of its gates: each run is one sample, and all of them are needed to decide."""

from datetime import datetime, timedelta

from cotune.api.gate import FEWEST_RUNS, Gate, GateOutcome, GateStatus
from cotune.api.profile import Stage
from cotune.api.stage_probe import StageProbe, StageProbeStatus
from cotune.rollout.gates import Baking, Look, Reading, evaluate
from cotune.rollout.probe_runs import figures, spoiled


def judged(
    stage: Stage, probe: StageProbe, gate: Gate, record: StageProbeStatus, baking: Baking, now: datetime
) -> GateStatus:
    """The gate as the runs show it that are over; the same runs say the same until the bake time is over."""
    runs = record.runs
    shown = figures(gate, runs)
    before = figures(gate, record.baseline) if gate.against_baseline is not None else None
    # How many the baseline needs was asked before the stage began: more runs asked for since are the stage's own.
    has_baseline = before is None or len(before) >= FEWEST_RUNS
    is_complete = len(shown) >= probe.runs and has_baseline
    end = baking.since + timedelta(seconds=stage.bake_seconds)
    at = runs[-1].ended_at if runs else baking.since
    if is_complete and now >= end:
        at = max(at, end)
    elif not is_complete:
        # A look at the end of the bake time decides: one with runs missing is none, however late the last one ended.
        at = min(at, end - timedelta(seconds=1))
    if len(shown) >= FEWEST_RUNS and has_baseline:
        look = Look(at, Reading(shown), Reading(before) if before is not None else None)
        found = evaluate(stage, gate, look, baking)
        if is_complete or found.outcome is GateOutcome.FAILED:
            return found
    if not has_baseline:
        outcome = GateOutcome.NO_DATA
        words = "of another load than before the stage began: nothing to compare with"
    else:
        outcome, words = GateOutcome.INCONCLUSIVE, f"{len(shown)} of {probe.runs} runs are over"
        why = spoiled(gate, runs[-1]) if runs else None
        if why is not None:
            outcome, words = why[0], f"{words}; {why[1]}"
    return GateStatus(
        name=gate.name,
        outcome=outcome,
        samples=len(shown),
        message=words[:1024],
        at=at,
        observed_generation=baking.generation,
    )
