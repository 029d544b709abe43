"""In which trials interference is measured, on which services, and how long that takes."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations

from cotune.api.experiment import ExperimentSpec, InterferenceTrials
from cotune.api.trial import InterferenceFigure, LatencySpread, Purpose
from cotune.measurement.contract import GRACE_SECONDS, InterferenceCell
from cotune.search.space import Candidate, Space


def is_measured(spec: ExperimentSpec, candidate: Candidate, purpose: Purpose) -> bool:
    """Whether a trial of this candidate measures it."""
    asked = spec.workload.interference
    if asked is None:
        return False
    match asked.trials:
        case InterferenceTrials.ALL:
            return True
        case InterferenceTrials.BASELINE_AND_CONFIRMATION:
            return purpose is Purpose.CONFIRMATION or candidate == Space(spec.parameters).baseline


def rounds(spec: ExperimentSpec) -> tuple[tuple[str, ...], ...]:
    """The services that are loaded in each round: every one alone, then every pair that is not the whole stack."""
    asked = spec.workload.interference
    if asked is None:
        return ()
    names = spec.loaded_components
    pairs = combinations(names, 2) if asked.pairs and len(names) > 2 else ()
    return (*((it,) for it in names), *pairs)


def round_seconds(spec: ExperimentSpec) -> int:
    """From the first request of all rounds to the last."""
    asked, workload = spec.workload.interference, spec.workload
    if asked is None:
        return 0
    return len(rounds(spec)) * (asked.warmup_seconds + asked.duration_seconds + workload.cooldown_seconds)


def longest(spec: ExperimentSpec) -> timedelta:
    """What the rounds take at most: the answers of each are waited for before the next begins."""
    return timedelta(seconds=round_seconds(spec) + len(rounds(spec)) * GRACE_SECONDS)


def figures(cells: Sequence[InterferenceCell]) -> tuple[InterferenceFigure, ...]:
    """The matrix as a trial's status has it."""
    return tuple(InterferenceFigure(loaded=it.loaded, component=it.component, latency=_spread(it)) for it in cells)


def _spread(cell: InterferenceCell) -> LatencySpread | None:
    found = cell.latency
    if found is None:
        return None
    return LatencySpread(
        p50=f"{found.p50:.3f}",
        p95=f"{found.p95:.3f}",
        p99=f"{found.p99:.3f}",
        largest=f"{found.largest:.3f}",
        samples=found.samples,
        censored=found.censored,
    )
