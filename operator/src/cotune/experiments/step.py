"""One pass over an experiment: Pending -> Planning -> Running -> Succeeded or Failed.

All progress lies in its trials: what was tried, what came of it and what comes next are read from them, so an operator
that starts anew goes on where the last one stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

from cotune.api.experiment import Algorithm, ExperimentPhase, ExperimentSpec, Search, TrialCounts, Winner
from cotune.api.trial import Prediction, TrialPhase
from cotune.experiments.predictions import SpacePlan, unplanned
from cotune.fitness.ranking import Ranking, Result, Verdict, rank
from cotune.search.grid import GridSampler
from cotune.search.sampler import Observation, Sampler
from cotune.search.space import Candidate, Space

_SECOND_CHANCES = 2
"""How many invalid repeats of a candidate are run again."""

LISTED_SKIPS = 200
"""With more candidates that cannot start, they are counted by reason, and none of them becomes a trial."""
_RECORDED_AT_ONCE = 20
"""Skipped trials of one pass: a pass must not take minutes."""

_FOR_WANT_OF_MEMORY = frozenset({"NoCacheBlocks", "ContextTooLong", "CardTaken", "CudaOutOfMemory"})


@dataclass(frozen=True)
class ObservedTrial:
    """One trial of the experiment, read once."""

    name: str
    candidate: Candidate
    repeat: int
    phase: TrialPhase
    is_judged: bool
    """A measured trial is judged when the baseline's result is known; all others at their end."""
    fitness: float | None
    """None: not judged yet, failed, invalid or infeasible."""
    reason: str = ""
    message: str = ""
    prediction: Prediction | None = None
    is_skipped: bool = False
    seconds: float | None = None
    """For which it held a card; None: it has not ended, or never had one."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be created; its name is the same in every pass."""

    name: str
    candidate: Candidate
    repeat: int
    prediction: Prediction | None = None
    is_skipped: bool = False
    """It is recorded with its prediction, and takes no card."""


@dataclass(frozen=True)
class ExperimentStep:
    """One pass: the phase that follows, and what to do. Doing it twice does no harm."""

    phase: ExperimentPhase
    reason: str
    message: str
    counts: TrialCounts
    start: tuple[PlannedTrial, ...] = ()
    record: tuple[PlannedTrial, ...] = ()
    """Trials that are skipped: they take no card, and are there for people to read."""
    gpu_seconds_saved: float | None = None
    """By skipping; None: nothing was measured from which to estimate it."""
    winner: Winner | None = None
    winning: Candidate | None = None


def decide(
    name: str, spec: ExperimentSpec, trials: Sequence[ObservedTrial], cards: int, plan: SpacePlan | None = None
) -> ExperimentStep:
    """The next step of an experiment.

    Args:
        name: the experiment's name, from which its trials' names are made.
        spec: the experiment.
        trials: all of its trials.
        cards: on how many cards trials may run; each takes one trial at a time.
        plan: what the planner says of the space, with what was learned so far.
    """
    space = Space(spec.parameters)
    plan = plan or unplanned(space)
    by_candidate = _by_candidate(trials)
    is_counted = plan.skipped > LISTED_SKIPS
    counts = _counts(trials, _counted(plan, trials) if is_counted else 0)
    saved = _gpu_seconds_saved(spec, trials, counts.skipped)
    if not trials and plan.is_nothing_feasible:
        skipped = counts.model_copy(update={"skipped": len(space)})
        return ExperimentStep(ExperimentPhase.FAILED, "NothingFeasible", _why(plan, space), skipped)
    baseline = by_candidate.get(space.baseline, ())
    if _has_failed(baseline):
        why = f"the baseline has no result, and every gain is stated against it: {_last_words(baseline)}"
        return ExperimentStep(ExperimentPhase.FAILED, "BaselineFailed", why, counts)
    if _is_infeasible(baseline, spec.search.repeats):
        why = "the baseline does not keep its constraints, or lacks an objective's metric: see its Feasible condition"
        return ExperimentStep(ExperimentPhase.FAILED, "BaselineFailed", why, counts)
    on_cards = sum(not it.phase.is_finished() and not it.is_skipped for it in trials)
    unfinished = counts.total - counts.finished
    start = _next(name, spec.search, space, by_candidate, cards - on_cards, plan)
    record = () if is_counted else _to_record(name, spec.search, space, by_candidate, plan)
    if start or record or unfinished or not all(it.is_judged for it in trials):
        message = f"{counts.finished} of {counts.total} trials finished"
        return ExperimentStep(
            ExperimentPhase.RUNNING, "TrialsRunning", message, counts, start, record, gpu_seconds_saved=saved
        )
    return replace(_verdict(spec, space, by_candidate, counts), gpu_seconds_saved=saved)


def sampler(search: Search) -> Sampler:
    """The sampler that the experiment asks for."""
    match search.algorithm:
        case Algorithm.GRID:
            return GridSampler()


def _why(plan: SpacePlan, space: Space) -> str:
    """What a person reads when nothing is left."""
    prediction = plan.predict(space.baseline)
    return f"none of {len(space)} candidates can start; the baseline: {prediction.message if prediction else ''}"


def _next(
    name: str,
    search: Search,
    space: Space,
    by_candidate: Mapping[Candidate, Sequence[ObservedTrial]],
    limit: int,
    plan: SpacePlan,
) -> tuple[PlannedTrial, ...]:
    """Missing repeats first, the baseline's before all: other candidates are judged by it.

    The baseline is run whatever is predicted: it runs today, so the planner errs.
    """
    if limit <= 0:
        return ()
    ran = {it: trials for it, trials in by_candidate.items() if not any(trial.is_skipped for trial in trials)}
    wanted = [
        (candidate, repeat)
        for candidate, trials in ran.items()
        if not _has_failed(trials)
        for repeat in range(search.repeats + _invalid(trials))
        if repeat not in {it.repeat for it in trials}
    ]
    if ran and not _is_complete(by_candidate.get(space.baseline, ()), search.repeats):
        wanted = [it for it in wanted if it[0] == space.baseline]
    else:
        observed = [Observation(it, _fitness(trials)) for it, trials in by_candidate.items()]
        room = min(limit - len(wanted), search.max_trials - len(ran)) if ran else 1
        fresh = sampler(search).propose(plan.allowed(space), observed, room) if room > 0 else ()
        wanted += [(it, 0) for it in fresh]
    return tuple(
        PlannedTrial(it.trial_name(name, repeat), it, repeat, plan.predict(it)) for it, repeat in wanted[:limit]
    )


def _to_record(
    name: str,
    search: Search,
    space: Space,
    by_candidate: Mapping[Candidate, Sequence[ObservedTrial]],
    plan: SpacePlan,
) -> tuple[PlannedTrial, ...]:
    """Candidates that are skipped, a few at a time: when the baseline has been measured, and its start learned from."""
    if not _is_complete(by_candidate.get(space.baseline, ()), search.repeats):
        return ()
    missing = (it for it in plan.hopeless(space) if it not in by_candidate and it != space.baseline)
    return tuple(
        PlannedTrial(it.trial_name(name, 0), it, 0, plan.predict(it), is_skipped=True)
        for it in islice(missing, _RECORDED_AT_ONCE)
    )


def _is_complete(baseline: Sequence[ObservedTrial], repeats: int) -> bool:
    """Whether the baseline's repeats have all ended."""
    return len(baseline) >= repeats + _invalid(baseline) and all(it.phase.is_finished() for it in baseline)


def _counted(plan: SpacePlan, trials: Sequence[ObservedTrial]) -> int:
    """Skipped candidates without trials: some may have run before it was learned that they cannot start."""
    ran = {it.candidate for it in trials if not it.is_skipped and it.candidate != plan.baseline}
    return plan.skipped - sum(plan.is_hopeless(it) for it in ran)


def _counts(trials: Sequence[ObservedTrial], counted: int) -> TrialCounts:
    """How many trials are in which state; `counted`: candidates that are skipped and, if so many, have no trials."""
    ran = [(it, it.prediction) for it in trials if it.phase.is_finished() and not it.is_skipped]
    return TrialCounts(
        total=len(trials),
        finished=sum(it.phase.is_finished() for it in trials),
        failed=sum(it.phase is TrialPhase.FAILED for it in trials),
        skipped=max(counted, sum(it.is_skipped for it in trials)),
        wrong_fits=sum(
            prediction is not None and prediction.fits and it.reason in _FOR_WANT_OF_MEMORY for it, prediction in ran
        ),
        wrong_does_not_fit=sum(
            prediction is not None and not prediction.fits and it.phase is TrialPhase.SUCCEEDED
            for it, prediction in ran
        ),
    )


def _gpu_seconds_saved(spec: ExperimentSpec, trials: Sequence[ObservedTrial], skipped: int) -> float | None:
    """Skipped candidates times the mean time for which a failed start held its card.

    Where no start has failed for want of memory, a measured trial's time without its warm-up and window stands for it.
    """
    ran = [it for it in trials if it.seconds is not None and not it.is_skipped]
    failed = [it.seconds for it in ran if it.reason in _FOR_WANT_OF_MEMORY and it.seconds is not None]
    load = spec.workload.load_seconds
    measured = [it.seconds - load for it in ran if it.phase is TrialPhase.SUCCEEDED and it.seconds is not None]
    times = failed or [max(it, 0.0) for it in measured]
    if not skipped or not times:
        return None
    return skipped * fmean(times)


def _verdict(
    spec: ExperimentSpec,
    space: Space,
    by_candidate: Mapping[Candidate, Sequence[ObservedTrial]],
    counts: TrialCounts,
) -> ExperimentStep:
    ranking = rank([_result(it, trials) for it, trials in by_candidate.items()], space.baseline)
    reason = str(ranking.verdict)
    match ranking.verdict:
        case Verdict.WINNER:
            best, reference = ranking.order[0], _baseline(ranking, space)
            trial = min(by_candidate[best.candidate], key=lambda it: it.repeat).name
            winner = Winner(trial=trial, fitness=f"{best.fitness:.6f}", baseline_fitness=f"{reference.fitness:.6f}")
            values = ", ".join(f"{key}={value}" for key, value in best.candidate.values.items())
            message = f"{values}: fitness {best.fitness:.3f}, baseline {reference.fitness:.3f}"
            return ExperimentStep(
                ExperimentPhase.SUCCEEDED, reason, message, counts, winner=winner, winning=best.candidate
            )
        case Verdict.BASELINE_IS_BEST:
            return ExperimentStep(ExperimentPhase.SUCCEEDED, reason, "no candidate is better than the baseline", counts)
        case Verdict.WITHIN_NOISE:
            message = "the best candidate's repeats do not all beat the baseline's"
            return ExperimentStep(ExperimentPhase.SUCCEEDED, reason, message, counts)
        case Verdict.BASELINE_FAILED:
            message = f"the baseline keeps to its constraints in none of {spec.search.repeats} repeats, or not in all"
            return ExperimentStep(ExperimentPhase.FAILED, reason, message, counts)


def _baseline(ranking: Ranking, space: Space) -> Result:
    return next(it for it in ranking.order if it.candidate == space.baseline)


def _by_candidate(trials: Sequence[ObservedTrial]) -> Mapping[Candidate, Sequence[ObservedTrial]]:
    found: dict[Candidate, list[ObservedTrial]] = {}
    for trial in trials:
        found.setdefault(trial.candidate, []).append(trial)
    return found


def _has_failed(trials: Sequence[ObservedTrial]) -> bool:
    """A candidate with a repeat that failed is feasible no more: its other repeats are not worth their time.

    An invalid repeat says nothing of its candidate and is run again, but not for ever.
    """
    ended = [it for it in trials if it.phase.is_finished()]
    return _invalid(ended) > _SECOND_CHANCES or any(
        it.phase not in {TrialPhase.SUCCEEDED, TrialPhase.INVALID} for it in ended
    )


def _is_infeasible(baseline: Sequence[ObservedTrial], repeats: int) -> bool:
    """Whether the baseline was measured in full and is no reference: nothing could win against it."""
    measured = [it for it in baseline if it.phase is TrialPhase.SUCCEEDED and it.is_judged]
    return len(measured) >= repeats and any(it.fitness is None for it in measured)


def _invalid(trials: Sequence[ObservedTrial]) -> int:
    return sum(it.phase is TrialPhase.INVALID for it in trials)


def _last_words(trials: Sequence[ObservedTrial]) -> str:
    ended = [it for it in trials if it.phase.is_finished() and it.phase is not TrialPhase.SUCCEEDED]
    last = max(ended, key=lambda it: it.repeat)
    return f"{last.name}: {last.reason}: {last.message}"


def _fitness(trials: Sequence[ObservedTrial]) -> float | None:
    valid = [it.fitness for it in trials if it.phase is not TrialPhase.INVALID]
    fitnesses = [it for it in valid if it is not None]
    return sum(fitnesses) / len(fitnesses) if fitnesses and len(fitnesses) == len(valid) else None


def _result(candidate: Candidate, trials: Sequence[ObservedTrial]) -> Result:
    valid = [it for it in trials if it.phase is not TrialPhase.INVALID]
    return Result(candidate, tuple(it.fitness for it in valid if it.fitness is not None), len(valid))
