"""One pass over an experiment: Pending -> Planning -> Running -> Succeeded or Failed.

All progress lies in its trials: what was tried, what came of it and what comes next are read from them, so an operator
that starts anew goes on where the last one stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cotune.api.experiment import Algorithm, ExperimentPhase, ExperimentSpec, Search, TrialCounts, Winner
from cotune.api.trial import Prediction, TrialPhase
from cotune.fitness.ranking import Ranking, Result, Verdict, rank
from cotune.search.grid import GridSampler
from cotune.search.sampler import Observation, Sampler
from cotune.search.space import Candidate, Space

_SECOND_CHANCES = 2
"""How many invalid repeats of a candidate are run again."""

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


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be created; its name is the same in every pass."""

    name: str
    candidate: Candidate
    repeat: int
    prediction: Prediction | None = None
    is_skipped: bool = False
    """It is recorded with its prediction, and takes no card."""


Predictions = Mapping[Candidate, Prediction]
"""What the planner says; a candidate of which it knows too little is absent."""


@dataclass(frozen=True)
class ExperimentStep:
    """One pass: the phase that follows, and what to do. Doing it twice does no harm."""

    phase: ExperimentPhase
    reason: str
    message: str
    counts: TrialCounts
    start: tuple[PlannedTrial, ...] = ()
    winner: Winner | None = None
    winning: Candidate | None = None


def decide(
    name: str, spec: ExperimentSpec, trials: Sequence[ObservedTrial], cards: int, predictions: Predictions | None = None
) -> ExperimentStep:
    """The next step of an experiment.

    Args:
        name: the experiment's name, from which its trials' names are made.
        spec: the experiment.
        trials: all of its trials.
        cards: on how many cards trials may run; each takes one trial at a time.
        predictions: what the planner says of the candidates.
    """
    space = Space(spec.parameters)
    by_candidate = _by_candidate(trials)
    counts = _counts(trials)
    plan = _Plan(predictions or {}, float(spec.planning.probe_skipped), space.baseline)
    if not trials and all(plan.is_hopeless(it) for it in space):
        return ExperimentStep(ExperimentPhase.FAILED, "NothingFeasible", plan.why(space), counts)
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
    if start or unfinished or not all(it.is_judged for it in trials):
        message = f"{counts.finished} of {counts.total} trials finished"
        return ExperimentStep(ExperimentPhase.RUNNING, "TrialsRunning", message, counts, start)
    return _verdict(spec, space, by_candidate, counts)


def sampler(search: Search) -> Sampler:
    """The sampler that the experiment asks for."""
    match search.algorithm:
        case Algorithm.GRID:
            return GridSampler()


@dataclass(frozen=True)
class _Plan:
    """What follows from the predictions."""

    predictions: Predictions
    probe_skipped: float
    baseline: Candidate

    def is_hopeless(self, candidate: Candidate) -> bool:
        """Whether it cannot start by arithmetic, and is not among those that are run all the same.

        Which ones are is a matter of their digest, so that a restarted operator chooses the same.
        """
        prediction = self.predictions.get(candidate)
        if prediction is None or prediction.fits:
            return False
        return int(candidate.digest[:8], 16) / 0x1_0000_0000 >= self.probe_skipped

    def trial(self, name: str, candidate: Candidate, repeat: int) -> PlannedTrial:
        """The trial of a candidate. The baseline is run whatever is predicted: it runs today, so the planner errs."""
        is_skipped = candidate != self.baseline and self.is_hopeless(candidate)
        prediction = self.predictions.get(candidate)
        return PlannedTrial(candidate.trial_name(name, repeat), candidate, repeat, prediction, is_skipped)

    def why(self, space: Space) -> str:
        """What a person reads when nothing is left."""
        baseline = self.predictions[space.baseline]
        return f"none of {len(space)} candidates can start; the baseline: {baseline.message}"


def _next(
    name: str,
    search: Search,
    space: Space,
    by_candidate: Mapping[Candidate, Sequence[ObservedTrial]],
    limit: int,
    plan: _Plan,
) -> tuple[PlannedTrial, ...]:
    """Missing repeats first, the baseline's before all: other candidates are judged by it."""
    if limit <= 0:
        return ()
    planned = [
        plan.trial(name, candidate, repeat)
        for candidate, trials in by_candidate.items()
        if not _has_failed(trials) and not any(it.is_skipped for it in trials)
        for repeat in range(search.repeats + _invalid(trials))
        if repeat not in {it.repeat for it in trials}
    ]
    baseline = by_candidate.get(space.baseline, ())
    wanted = search.repeats + _invalid(baseline)
    if by_candidate and (len(baseline) < wanted or not all(it.phase.is_finished() for it in baseline)):
        return tuple(islice((it for it in planned if it.candidate == space.baseline), limit))
    observed = [Observation(it, _fitness(trials)) for it, trials in by_candidate.items()]
    room = min(limit - len(planned), search.max_trials - len(by_candidate))
    if not by_candidate:
        room = min(room, 1)
    fresh = sampler(search).propose(space, observed, room) if room > 0 else ()
    planned += [plan.trial(name, it, 0) for it in fresh]
    return tuple(planned[:limit])


def _counts(trials: Sequence[ObservedTrial]) -> TrialCounts:
    ran = [(it, it.prediction) for it in trials if it.phase.is_finished() and not it.is_skipped]
    return TrialCounts(
        total=len(trials),
        finished=sum(it.phase.is_finished() for it in trials),
        failed=sum(it.phase is TrialPhase.FAILED for it in trials),
        skipped=sum(it.is_skipped for it in trials),
        wrong_fits=sum(
            prediction is not None and prediction.fits and it.reason in _FOR_WANT_OF_MEMORY for it, prediction in ran
        ),
        wrong_does_not_fit=sum(
            prediction is not None and not prediction.fits and it.phase is TrialPhase.SUCCEEDED
            for it, prediction in ran
        ),
    )


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
