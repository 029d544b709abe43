"""What the gates of a stage say: samples in, outcomes out, and what follows for the stage.

A gate is decided when the bake time is over: whoever looks again and again until a figure is bad enough finds one.
Looks before that end the stage only when the figure is bad at the level of Haybittle and Peto, 1 in 1,000.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.gate import Better, Gate, GateOutcome, GateStatus, Undecided
from cotune.api.profile import ProfilePhase, Stage
from cotune.fitness.series import Difference, less_mean, less_number, mean
from cotune.rollout.stage import StageStep

_BEYOND_DOUBT = 0.999
_MOST_SAMPLES = 2000
"""Of one window; over longer ones they lie further apart.

Twice what a gate may ask for: that the step is in whole seconds costs up to half.
"""


@dataclass(frozen=True)
class Span:
    """Which samples of a query are wanted."""

    start: datetime
    end: datetime
    step: timedelta


@dataclass(frozen=True)
class Baking:
    """A stage that bakes."""

    began: datetime
    """When the stage began: before that, it was as it had been."""
    since: datetime
    """Since when it bakes."""
    generation: int
    """Of the profile's spec."""


@dataclass(frozen=True)
class Reading:
    """What Prometheus gave for one span, or a probe in its runs."""

    samples: Sequence[float] = ()
    error: str = ""
    """Why there are none."""


@dataclass(frozen=True)
class Look:
    """A gate's samples up to a moment."""

    at: datetime
    stage: Reading
    baseline: Reading | None = None


def spans(gate: Gate, baking: Baking, now: datetime) -> tuple[Span, Span | None]:
    """Which samples a look needs: of the stage while it bakes, and of the stage before it began."""
    start = min(baking.since + timedelta(seconds=gate.initial_delay_seconds), now)
    against = gate.against_baseline
    before = None
    if against is not None:
        before = _span(gate, baking.began - timedelta(seconds=against.window_seconds), baking.began)
    return _span(gate, start, now), before


def _span(gate: Gate, start: datetime, end: datetime) -> Span:
    step = max(_step_seconds(gate), math.ceil((end - start).total_seconds() / _MOST_SAMPLES))
    return Span(start, end, timedelta(seconds=step))


def _step_seconds(gate: Gate) -> int:
    assert gate.prom_ql is not None  # What a probe shows is not asked for here.
    return gate.prom_ql.step_seconds


def is_due(stage: Stage, gate: Gate, last: GateStatus | None, baking: Baking, now: datetime) -> bool:
    """Whether it is time to look again: as often as there is a new sample, and at the end of the bake time."""
    if last is None or last.observed_generation != baking.generation:
        return True
    if now - last.at >= timedelta(seconds=_step_seconds(gate)):
        return True
    return now >= baking.since + timedelta(seconds=stage.bake_seconds) and not _decides(stage, last, baking)


def evaluate(stage: Stage, gate: Gate, look: Look, baking: Baking) -> GateStatus:
    """What a look shows."""

    def told(outcome: GateOutcome, message: str, **figures: float | int | None) -> GateStatus:
        value, baseline = figures.get("value"), figures.get("baseline")
        return GateStatus(
            name=gate.name,
            outcome=outcome,
            value=None if value is None else _figure(value),
            baseline=None if baseline is None else _figure(baseline),
            samples=int(figures.get("samples") or 0),
            message=message[:1024],
            at=look.at,
            observed_generation=baking.generation,
        )

    for whose, reading in (("", look.stage), ("baseline: ", look.baseline)):
        if reading is not None and (found := _unusable(gate, reading)) is not None:
            return told(found[0], whose + found[1])
    now = mean(_numbers(look.stage))
    before = mean(_numbers(look.baseline)) if look.baseline is not None else None
    figures = {
        "value": now.value,
        "baseline": before.value if before is not None else None,
        "samples": len(_numbers(look.stage)),
    }
    excess, said = _excess(gate, look)
    is_final = look.at >= baking.since + timedelta(seconds=stage.bake_seconds)
    confidence = float(gate.confidence)
    to_fail = confidence if is_final else max(confidence, _BEYOND_DOUBT)
    if excess.lower(to_fail) > 0:
        return told(GateOutcome.FAILED, f"{said}, with a confidence of {to_fail:g}", **figures)
    if excess.upper(confidence) <= 0:
        return told(GateOutcome.PASSED, said, **figures)
    noise = f", but for {excess.upper(confidence) - excess.estimate:.3g} of noise nobody can tell"
    return told(GateOutcome.INCONCLUSIVE, said + noise, **figures)


def _unusable(gate: Gate, reading: Reading) -> tuple[GateOutcome, str] | None:
    if reading.error:
        return GateOutcome.ERROR, reading.error
    if not reading.samples:
        return GateOutcome.NO_DATA, "the query gives no samples"
    if any(math.isinf(it) for it in reading.samples):
        return GateOutcome.NAN, "a sample is infinite"
    numbers, least = len(_numbers(reading)), gate.least_samples
    if numbers >= least:
        return None
    if numbers < len(reading.samples):
        return GateOutcome.NAN, f"{len(reading.samples) - numbers} of {len(reading.samples)} samples are no numbers"
    return GateOutcome.INCONCLUSIVE, f"{numbers} samples, {least} are needed"


def _numbers(reading: Reading) -> Sequence[float]:
    return [it for it in reading.samples if not math.isnan(it)]


def _excess(gate: Gate, look: Look) -> tuple[Difference, str]:
    """By how much the figure is worse than it may be, and that in words."""
    now = mean(_numbers(look.stage))
    count = f"mean of {len(_numbers(look.stage))} samples"
    against = gate.against_baseline
    if against is None:
        bound = float(gate.max if gate.max is not None else gate.min or "0")
        kind, sign = ("max", 1) if gate.max is not None else ("min", -1)
        said = f"{_figure(now.value)} ({count}), {kind} {_figure(bound)}"
        return less_number(now.scaled(sign), sign * bound), said
    assert look.baseline is not None  # It is read for every gate that asks for one.
    before = mean(_numbers(look.baseline))
    sign = 1 if against.goal is Better.MINIMIZE else -1
    share = float(against.tolerance)
    # The tolerance is a share of the baseline's size: below zero, too, it lets the figure be worse.
    bound = before.scaled(1 + sign * math.copysign(share, before.value))
    kind = "max" if sign > 0 else "min"
    said = (
        f"{_figure(now.value)} ({count}), {kind} {_figure(bound.value)}: "
        f"baseline {_figure(before.value)} with a tolerance of {share:g}"
    )
    return less_mean(now.scaled(sign), bound.scaled(sign)), said


def gated(stage: Stage, step: StageStep, states: Sequence[GateStatus], baking: Baking, now: datetime) -> StageStep:
    """The step of a stage that bakes, with what its gates have to say about it.

    Args:
        stage: the stage.
        step: what was decided without the gates.
        states: the last look at each gate.
        baking: since when it bakes.
        now: the time.
    """
    step = replace(step, gates=tuple(states))
    if step.phase not in {ProfilePhase.BAKING, ProfilePhase.PROMOTED}:
        return step
    known = {it.name: it for it in states if it.observed_generation == baking.generation}
    for gate in (it for it in stage.gates if not it.dry_run):
        state = known.get(gate.name)
        if state is not None and state.outcome is GateOutcome.FAILED:
            return replace(step, phase=ProfilePhase.ROLLING_BACK, message=f"gate {gate.name}: {state.message}")
    if step.phase is not ProfilePhase.PROMOTED:
        return step
    end = baking.since + timedelta(seconds=stage.bake_seconds)
    waiting: list[str] = []
    for gate in stage.gates:
        state = known.get(gate.name)
        is_good_enough = state is not None and (gate.dry_run or state.outcome is GateOutcome.PASSED)
        if state is not None and is_good_enough and _decides(stage, state, baking):
            continue
        outcome = f"{state.outcome}: {state.message}" if state is not None else "not looked at yet"
        if now < end + timedelta(seconds=gate.deadline_seconds):
            waiting.append(f"gate {gate.name} ({outcome})")
        elif gate.on_undecided is Undecided.FAIL and not gate.dry_run:
            why = f"gate {gate.name} is not decided {gate.deadline_seconds} s after the bake time: {outcome}"
            return replace(step, phase=ProfilePhase.ROLLING_BACK, message=why)
    if waiting:
        return replace(step, phase=ProfilePhase.BAKING, message=f"ready, waiting for {'; '.join(waiting)}")
    return step


def _decides(stage: Stage, state: GateStatus, baking: Baking) -> bool:
    """Whether a look covers the whole bake time."""
    return state.at >= baking.since + timedelta(seconds=stage.bake_seconds)


def _figure(value: float) -> str:
    return f"{value:.6g}"
