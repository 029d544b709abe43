"""One pass over an experiment: Pending -> Planning -> Running -> Succeeded or Failed.

All progress lies in its trials: what was tried, what came of it and what comes next are read from them, so an operator
that starts anew goes on where the last one stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

from cotune.api.experiment import (
    Algorithm,
    Estimate,
    ExperimentPhase,
    ExperimentSpec,
    Noise,
    ObjectiveEffect,
    Outcome,
    Search,
    TrialCounts,
    ValidatedChange,
    ValidationSummary,
    VerdictSummary,
    Winner,
)
from cotune.api.sharing import Sharing
from cotune.api.trial import Prediction, Purpose, TrialPhase
from cotune.experiments.confirmation import Conclusion, conclude, proceed
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.partial_winner import Ground, Validation, told, validate
from cotune.experiments.predictions import SpacePlan, unplanned
from cotune.experiments.turns import SECOND_CHANCES
from cotune.fitness.bootstrap import Interval
from cotune.fitness.comparison import Comparison
from cotune.fitness.noise import Spread, drift, spread
from cotune.fitness.ranking import Ranking, Result, Verdict, rank
from cotune.search.grid import GridSampler
from cotune.search.sampler import Observation, Sampler
from cotune.search.space import Candidate, Space
from cotune.trials.interference import is_measured, round_seconds

LISTED_SKIPS = 200
"""With more candidates that cannot start, they are counted by reason, and none of them becomes a trial."""
NOTHING_FEASIBLE = "NothingFeasible"
"""The reason of an experiment of which not one candidate may run."""
_RECORDED_AT_ONCE = 20
"""Skipped trials of one pass: a pass must not take minutes."""

_FOR_WANT_OF_MEMORY = frozenset({"NoCacheBlocks", "ContextTooLong", "CardTaken", "CudaOutOfMemory"})


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be created; its name is the same in every pass."""

    name: str
    candidate: Candidate
    repeat: int
    prediction: Prediction | None = None
    is_skipped: bool = False
    """It is recorded with its prediction, and takes no card."""
    purpose: Purpose = Purpose.SEARCH
    series: int = 0
    stack_ref: str | None = None
    """The copied stack on which it runs; None: that of the search."""


@dataclass(frozen=True)
class Deployable:
    """What the profile is made of: the winner, or what of it was validated."""

    candidate: Candidate
    trial: str
    """The first that ran it."""


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
    gpu_seconds: float | None = None
    """For which ended trials have held their cards; None: none has."""
    winner: Winner | None = None
    deployable: Deployable | None = None
    validation: ValidationSummary | None = None
    verdict: VerdictSummary | None = None
    outcome: Outcome | None = None
    """What the experiment says of a gain; None: it has not ended, or ended without having searched."""
    noise: Noise | None = None


def decide(
    name: str,
    spec: ExperimentSpec,
    trials: Sequence[ObservedTrial],
    cards: int,
    plan: SpacePlan | None = None,
    ground: Ground | None = None,
) -> ExperimentStep:
    """The next step of an experiment.

    Args:
        name: the experiment's name, from which its trials' names are made.
        spec: the experiment.
        trials: all of its trials.
        cards: on how many cards trials may run; each takes one trial at a time.
        plan: what the planner says of the space, with what was learned so far.
        ground: the stack on which the winner's changes are validated; None: the experiment's own.
    """
    step = _decide(name, spec, trials, cards, plan, ground)
    held = [it.seconds for it in trials if it.seconds is not None]
    return replace(step, gpu_seconds=sum(held)) if held else step


def _decide(
    name: str,
    spec: ExperimentSpec,
    trials: Sequence[ObservedTrial],
    cards: int,
    plan: SpacePlan | None,
    ground: Ground | None,
) -> ExperimentStep:
    space = Space(spec.parameters)
    plan = plan or unplanned(space)
    by_candidate = _by_candidate([it for it in trials if it.purpose is Purpose.SEARCH])
    is_counted = plan.skipped > LISTED_SKIPS
    counts = _counts(trials, _counted(plan, trials) if is_counted else 0)
    saved = _gpu_seconds_saved(spec, trials, max(counts.skipped - plan.without_node, 0))
    if not trials and plan.is_nothing_feasible:
        skipped = counts.model_copy(update={"skipped": len(space)})
        return ExperimentStep(ExperimentPhase.FAILED, NOTHING_FEASIBLE, _why(plan, space), skipped)
    baseline = by_candidate.get(space.baseline, ())
    if _has_failed(baseline):
        why = f"the baseline has no result, and every gain is stated against it: {_last_words(baseline)}"
        return ExperimentStep(ExperimentPhase.FAILED, "BaselineFailed", why, counts)
    if _is_infeasible(baseline, spec.search.repeats):
        why = "the baseline does not keep its constraints, or lacks an objective's metric: see its Feasible condition"
        return ExperimentStep(ExperimentPhase.FAILED, "BaselineFailed", why, counts)
    on_cards = sum(not it.phase.is_finished() and not it.is_skipped for it in trials)
    unfinished = counts.total - counts.finished
    comparable = [it for it in trials if not it.is_elsewhere]
    pooled = _spread(comparable)
    noise = _noise(spec, space, comparable, pooled)
    confirming = [it for it in trials if it.purpose is Purpose.CONFIRMATION]
    if not confirming:
        again = _drift_check(name, spec, space, trials, plan) if cards > on_cards else ()
        start = again + _next(name, spec.search, space, by_candidate, cards - on_cards - len(again), plan, pooled)
        record = () if is_counted else _to_record(name, spec.search, space, by_candidate, plan)
        if start or record or unfinished or not all(it.is_judged for it in trials):
            message = f"{counts.finished} of {counts.total} trials finished"
            return ExperimentStep(
                ExperimentPhase.RUNNING,
                "TrialsRunning",
                message,
                counts,
                start,
                record,
                gpu_seconds_saved=saved,
                noise=noise,
            )
    ranking = rank([_result(it, found) for it, found in by_candidate.items()], space.baseline)
    step = _concluded(name, spec, space, ranking, trials, plan, counts, ground)
    return replace(step, gpu_seconds_saved=saved, noise=noise)


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
    pooled: Spread | None,
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
        observed = [_observation(it, trials, pooled) for it, trials in by_candidate.items()]
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
        skipped=max(counted, sum(it.is_skipped or it.phase is TrialPhase.SKIPPED for it in trials)),
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
    measured = [
        it.seconds - _loaded_seconds(spec, it)
        for it in ran
        if it.phase is TrialPhase.SUCCEEDED and it.seconds is not None
    ]
    times = failed or [max(it, 0.0) for it in measured]
    if not skipped or not times:
        return None
    return skipped * fmean(times)


def _loaded_seconds(spec: ExperimentSpec, trial: ObservedTrial) -> int:
    """From the first request of its warm-up to the last of its last round."""
    rounds = round_seconds(spec) if is_measured(spec, trial.candidate, trial.purpose) else 0
    return spec.workload.load_seconds + rounds


def _drift_check(
    name: str, spec: ExperimentSpec, space: Space, trials: Sequence[ObservedTrial], plan: SpacePlan
) -> tuple[PlannedTrial, ...]:
    """The baseline once more, when enough of the search was measured since the last time.

    What became of it is not asked: a run that failed or was invalid is a gap in the series, and is not made good.
    """
    every = spec.evaluation.baseline_every
    measured = sum(
        it.phase is TrialPhase.SUCCEEDED and it.purpose is Purpose.SEARCH and it.candidate != space.baseline
        for it in trials
    )
    if every == 0 or measured // every <= sum(it.purpose is Purpose.DRIFT for it in trials):
        return ()
    return (_again(name, space.baseline, trials, plan, Purpose.DRIFT),)


def _again(
    name: str,
    candidate: Candidate,
    trials: Sequence[ObservedTrial],
    plan: SpacePlan,
    purpose: Purpose,
    series: int = 0,
) -> PlannedTrial:
    """One more run of a candidate, numbered after all that it had."""
    repeat = 1 + max((it.repeat for it in trials if it.candidate == candidate), default=-1)
    prediction = plan.predict(candidate)
    return PlannedTrial(
        candidate.trial_name(name, repeat), candidate, repeat, prediction, purpose=purpose, series=series
    )


def _concluded(
    name: str,
    spec: ExperimentSpec,
    space: Space,
    ranking: Ranking,
    trials: Sequence[ObservedTrial],
    plan: SpacePlan,
    counts: TrialCounts,
    ground: Ground | None,
) -> ExperimentStep:
    """The search is over: confirm its best candidate, or say what came of that."""
    ended = ExperimentPhase.SUCCEEDED
    if ranking.baseline is None:
        message = f"the baseline keeps to its constraints in none of {spec.search.repeats} repeats, or not in all"
        return ExperimentStep(ExperimentPhase.FAILED, Verdict.BASELINE_FAILED, message, counts)
    if ranking.challenger is None:
        message = "the search saw no candidate above the baseline, so none was run again to make sure"
        return ExperimentStep(ended, Verdict.BASELINE_IS_BEST, message, counts, outcome=Outcome.NOT_BETTER)
    challenger = ranking.challenger.candidate
    both = {space.baseline, challenger}
    runs = [it for it in trials if it.purpose is Purpose.CONFIRMATION and it.candidate in both]
    confirmation = proceed(space.baseline, challenger, runs, spec.evaluation.repeats)
    values = ", ".join(f"{key}={value}" for key, value in challenger.values.items())
    if not confirmation.is_over:
        due = confirmation.next
        start = () if due is None else (_again(name, due, trials, plan, Purpose.CONFIRMATION),)
        done = sum(it.phase is TrialPhase.SUCCEEDED for it in runs)
        message = f"{values}: {done} of {2 * spec.evaluation.repeats} fresh runs, the baseline's among them"
        return ExperimentStep(ExperimentPhase.RUNNING, "Confirming", message, counts, start)
    found = conclude(spec.objectives, spec.evaluation, space.baseline, challenger, runs)
    verdict, message = _summary(spec, found, _first(challenger, trials)), f"{values}: {found.message}"
    if found.comparison is not None and found.outcome is Outcome.BETTER:
        fitness, reference = found.comparison.fitness, found.comparison.baseline_fitness
        sharing = _other_sharing(spec, challenger)
        winner = Winner(
            trial=_first(challenger, trials),
            fitness=f"{fitness:.6f}",
            baseline_fitness=f"{reference:.6f}",
            sharing=sharing,
        )
        won = ExperimentStep(
            ended, Verdict.WINNER, message, counts, winner=winner, verdict=verdict, outcome=found.outcome
        )
        if spec.profile_template is None:
            # Nothing will be rolled out, so nothing needs to be validated for it.
            return replace(won, message=won.message + _nodes_wanted(spec, challenger))
        return _validated(name, spec, space, challenger, found.comparison, trials, plan, won, ground)
    reason = Verdict.WITHIN_NOISE if found.outcome is Outcome.CANNOT_TELL else Verdict.NOT_CONFIRMED
    message = f"no profile is made; {message}"
    return ExperimentStep(ended, reason, message, counts, verdict=verdict, outcome=found.outcome)


def _validated(
    name: str,
    spec: ExperimentSpec,
    space: Space,
    winner: Candidate,
    confirmed: Comparison,
    trials: Sequence[ObservedTrial],
    plan: SpacePlan,
    won: ExperimentStep,
    ground: Ground | None,
) -> ExperimentStep:
    """The winner's changes one by one: the next run, or what the profile is made of."""
    runs = [it for it in trials if it.purpose is Purpose.VALIDATION]
    if ground is None:
        runs += _opening(space.baseline, trials)
    found = validate(spec, space.baseline, winner, confirmed, runs, plan, ground)
    if not found.is_over:

        def again(candidate: Candidate, series: int = 0) -> PlannedTrial:
            known = plan if ground is None else ground.plan
            planned = _again(name, candidate, trials, known, Purpose.VALIDATION, series)
            return planned if ground is None else replace(planned, stack_ref=ground.stack_ref)

        due = found.next
        where = f" on a copy of what runs in {ground.namespace}" if ground is not None else ""
        return replace(
            won,
            phase=ExperimentPhase.VALIDATING,
            reason="Validating",
            message=f"{won.message}; its changes are run one by one{where}: {len(runs)} runs so far",
            start=() if due is None else (again(due.candidate, due.series),),
            record=tuple(replace(again(it), is_skipped=True) for it in found.skipped),
        )
    step = replace(won, validation=_validation(found))
    if found.deployable is None:
        message = f"no profile is made, for none of the winner's changes holds: {told(found)}"
        return replace(step, reason=Verdict.NO_DEPLOYABLE_CHANGE, message=message)
    ran = trials if ground is None else runs
    deployable = Deployable(found.deployable, _first(found.deployable, ran))
    is_whole = all(it.is_kept for it in found.changes)
    reason, message = (won.reason, won.message) if is_whole else (Verdict.PARTIAL_WINNER, told(found))
    message += _nodes_wanted(spec, found.deployable)
    return replace(step, reason=reason, message=message, deployable=deployable)


def _opening(baseline: Candidate, trials: Sequence[ObservedTrial]) -> list[ObservedTrial]:
    """The last of the confirming runs, where it is one of the baseline: nothing has run since, so it opens series 0."""
    confirming = [it for it in trials if it.purpose is Purpose.CONFIRMATION and it.started is not None]
    last = max(confirming, key=lambda it: (it.started, it.repeat), default=None)
    is_one = last is not None and last.candidate == baseline and last.phase is TrialPhase.SUCCEEDED
    return [last] if last is not None and is_one else []


def _first(candidate: Candidate, trials: Sequence[ObservedTrial]) -> str:
    """The name of the first trial that ran a candidate."""
    return min((it for it in trials if it.candidate == candidate), key=lambda it: it.repeat).name


def _validation(found: Validation) -> ValidationSummary:
    return ValidationSummary(
        changes=tuple(
            ValidatedChange(
                parameter=it.parameter,
                value=it.value,
                kept=it.is_kept,
                reason=it.reason,
                message=it.message[:4096],
                gain=_estimate(it.comparison.gain) if it.comparison is not None else None,
            )
            for it in found.changes
        ),
        gain=_estimate(found.comparison.gain) if found.comparison is not None else None,
        interaction=f"{found.interaction:.6f}" if found.interaction is not None else None,
    )


def _other_sharing(spec: ExperimentSpec, candidate: Candidate) -> Sharing | None:
    """How a candidate shares the card, where that is not how it is shared today."""
    sharing = spec.sharing(candidate.values)
    return sharing if sharing is not spec.baseline_sharing else None


def _nodes_wanted(spec: ExperimentSpec, candidate: Candidate) -> str:
    """What somebody has to prepare for a candidate; empty: nothing."""
    sharing = _other_sharing(spec, candidate)
    if sharing is None:
        return ""
    return (
        f"; it wants nodes that share their card as {sharing}, not as {spec.baseline_sharing}: they are to be "
        "prepared, no node is reconfigured"
    )


def _summary(spec: ExperimentSpec, found: Conclusion, trial: str) -> VerdictSummary:
    verdict = VerdictSummary(
        outcome=found.outcome, trial=trial, confidence=spec.evaluation.confidence, repeats=0, baseline_repeats=0
    )
    if (compared := found.comparison) is None:
        return verdict
    effects = [
        ObjectiveEffect(
            metric=it.metric,
            baseline=f"{it.baseline:.6f}",
            candidate=f"{it.candidate:.6f}",
            change=_estimate(it.change),
        )
        for it in compared.effects
    ]
    return verdict.model_copy(
        update={
            "repeats": compared.candidate_repeats,
            "baseline_repeats": compared.baseline_repeats,
            "gain": _estimate(compared.gain),
            "objectives": tuple(effects),
        }
    )


def _estimate(interval: Interval | None) -> Estimate | None:
    if interval is None:
        return None
    return Estimate(value=f"{interval.estimate:.6f}", lower=f"{interval.lower:.6f}", upper=f"{interval.upper:.6f}")


def _spread(trials: Sequence[ObservedTrial]) -> Spread | None:
    """Of all repeats of the same settings, whatever they were run for: every fitness has the same reference."""
    groups: dict[Candidate, list[float]] = {}
    for it in trials:
        if it.fitness is not None:
            groups.setdefault(it.candidate, []).append(it.fitness)
    return spread(tuple(groups.values()))


def _noise(spec: ExperimentSpec, space: Space, trials: Sequence[ObservedTrial], pooled: Spread | None) -> Noise | None:
    if pooled is None:
        return None
    runs = [
        (it.started, it.fitness)
        for it in trials
        if it.candidate == space.baseline and it.fitness is not None and it.started is not None
    ]
    times, values = [it[0] for it in runs], [it[1] for it in runs]
    return Noise(
        standard_deviation=f"{pooled.deviation:.6f}",
        degrees_of_freedom=pooled.degrees,
        drift=_estimate(drift(times, values, float(spec.evaluation.confidence))),
    )


def _observation(candidate: Candidate, trials: Sequence[ObservedTrial], pooled: Spread | None) -> Observation:
    fitness = _fitness(trials)
    measured = sum(it.fitness is not None for it in trials)
    error = pooled.of_mean(measured) if pooled is not None and fitness is not None else None
    return Observation(candidate, fitness, error)


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
    return _invalid(ended) > SECOND_CHANCES or any(
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
