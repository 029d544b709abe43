"""The winner's changes one by one against the baseline, then together: what remains is the profile.

A winner was found and confirmed as a whole. One of its changes may carry all of the gain, and another may only be luck,
or fail on its own. So each change is run alone, by turns with the baseline (series 0). Those that gain on their own are
combined, the largest set first; a set that is not the confirmed winner itself is run by turns with the baseline in a
series of its own. One that does not hold loses the change with the least gain, until a set holds or none is left.

Where this is done on a copy of what runs in the target, the winner was confirmed on another stack: then every set is
run, the whole winner and a single change among them, and no figure of the search counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cotune.api.experiment import ExperimentSpec, Outcome
from cotune.api.quantities import canonical
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.predictions import SpacePlan
from cotune.experiments.turns import failure, infeasible, measured, next_turn, words
from cotune.fitness.comparison import Comparison, compare
from cotune.fitness.score import MissingMetricError
from cotune.search.space import Candidate

VALIDATED = "Validated"
"""The reason of a change that the profile makes."""


@dataclass(frozen=True)
class Turn:
    """A run to be made next."""

    candidate: Candidate
    series: int
    """Which comparison it belongs to."""


@dataclass(frozen=True)
class Ground:
    """The stack on which changes are validated, where it is not the experiment's own."""

    namespace: str
    """Of which it is a copy."""
    stack_ref: str
    """The copy's name."""
    plan: SpacePlan
    """What cannot start in it is not run."""
    beside: tuple[str, ...] = ()
    """What runs in it and is no component of the experiment."""

    def words(self, message: str) -> str:
        """A message about something that cannot start in it."""
        neighbours = ", ".join(self.beside)
        return (
            f"in {self.namespace}, beside {neighbours}: {message}" if self.beside else f"in {self.namespace}: {message}"
        )


@dataclass(frozen=True)
class JudgedChange:
    """One parameter's winning value, and whether the profile will have it."""

    parameter: str
    value: str
    reason: str
    message: str = ""
    comparison: Comparison | None = None
    """Alone against the baseline; None: it was not measured."""

    @property
    def is_kept(self) -> bool:
        """Whether the profile makes the change."""
        return self.reason == VALIDATED

    @property
    def gain(self) -> float:
        """In fitness, alone."""
        return _gain(self.comparison) if self.comparison is not None else 0.0


@dataclass(frozen=True)
class Validation:
    """How far it is, and in the end what may be rolled out."""

    is_over: bool
    next: Turn | None = None
    changes: tuple[JudgedChange, ...] = ()
    """In the order of the parameters; only when it is over."""
    deployable: Candidate | None = None
    """The baseline with all changes that are kept; None: there are none, or it is not over."""
    comparison: Comparison | None = None
    """Of what is deployable against the baseline."""
    interaction: float | None = None
    """The gain of the kept changes together, less the sum of their gains alone; None with fewer than two."""
    skipped: tuple[Candidate, ...] = ()
    """Changes alone that the planner knows to be impossible in the target, and of which no trial says so yet."""


def validate(
    spec: ExperimentSpec,
    baseline: Candidate,
    winner: Candidate,
    confirmed: Comparison,
    runs: Sequence[ObservedTrial],
    plan: SpacePlan,
    ground: Ground | None = None,
) -> Validation:
    """The next run, or what the runs say.

    Args:
        spec: the experiment.
        baseline: the candidate in use today.
        winner: the candidate that was confirmed as a whole.
        confirmed: by these figures.
        runs: all runs of this purpose, and the one of the baseline that was made right before them, if any.
        plan: what cannot start is not run.
        ground: where they are run; None: on the experiment's own stack, as the confirming runs.
    """
    changes = {
        name: value for name, value in winner.values.items() if canonical(value) != canonical(baseline.values[name])
    }
    if len(changes) == 1 and ground is None:
        [(name, value)] = changes.items()
        alone = JudgedChange(name, value, VALIDATED, "the winner's only change", confirmed)
        return Validation(True, None, (alone,), winner, confirmed)
    plan = plan if ground is None else ground.plan
    return _Validating(spec, baseline, winner, confirmed, runs, plan, changes, ground).step()


@dataclass(frozen=True)
class _Validating:
    spec: ExperimentSpec
    baseline: Candidate
    winner: Candidate
    confirmed: Comparison
    runs: Sequence[ObservedTrial]
    plan: SpacePlan
    changes: Mapping[str, str]
    ground: Ground | None

    def step(self) -> Validation:
        alone = self._series(0)
        singles = {name: self._with({name}) for name in self.changes}
        if self.ground is not None:
            known = {it.candidate for it in alone}
            if skipped := tuple(it for it in singles.values() if it not in known and self.plan.is_hopeless(it)):
                return Validation(False, skipped=skipped)
        lost = {it for it in singles.values() if self._why_not(it, alone)}
        if failed := failure(alone, self.baseline):
            return self._none(f"the baseline has no result: {words(failed)}")
        if len(lost) < len(singles):
            turn = next_turn((self.baseline, *singles.values()), alone, self.spec.evaluation.repeats, lost)
            if not turn.is_over:
                return Validation(False, Turn(turn.next, 0) if turn.next is not None else None)
        judged = {name: self._judge(name, candidate, alone) for name, candidate in singles.items()}
        return self._combine(judged)

    def _combine(self, judged: dict[str, JudgedChange]) -> Validation:
        """The largest set of changes that holds, the ones with the greatest gain first."""
        kept = sorted((it for it in judged.values() if it.is_kept), key=lambda it: (-it.gain, it.parameter))
        while kept:
            names = {it.parameter for it in kept}
            candidate = self._with(names)
            found, why, turn = self._together(kept, candidate)
            if turn is not None:
                return turn
            if found is not None:
                interaction = _gain(found) - sum(it.gain for it in kept) if len(kept) > 1 else None
                return Validation(True, None, tuple(judged.values()), candidate, found, interaction)
            weakest = kept.pop()
            judged[weakest.parameter] = replace(weakest, reason="LeftOutOfTheSet", message=why)
        return Validation(True, None, tuple(judged.values()))

    def _together(
        self, kept: Sequence[JudgedChange], candidate: Candidate
    ) -> tuple[Comparison | None, str, Validation | None]:
        """The comparison by which a set holds, or why it does not, or what is still to be run."""
        if len(kept) == 1:
            found = kept[0].comparison
        elif candidate == self.winner and self.ground is None:
            found = self.confirmed
        else:
            # Series 0 is that of the single changes.
            series = len(self.changes) - len(kept) or len(self.changes)
            runs = self._series(series)
            if failed := failure(runs, self.baseline):
                return None, f"the baseline has no result: {words(failed)}", None
            if why := self._why_not(candidate, runs):
                return None, f"{_words(kept)} together: {why}", None
            turn = next_turn((self.baseline, candidate), runs, self.spec.evaluation.repeats, frozenset())
            if not turn.is_over:
                due = Turn(turn.next, series) if turn.next is not None else None
                return None, "", Validation(False, due)
            found = self._compare(candidate, runs)
        if found is None:
            return None, f"{_words(kept)} together: a run lacks a metric", None
        if found.outcome is not Outcome.BETTER:
            alone = f"{_words(kept)} together" if len(kept) > 1 else "alone"
            return None, f"{alone}: gain in fitness {_interval(found)}, which may be none", None
        if len(kept) > 1 and _gain(found) < kept[0].gain:
            why = (
                f"{_words(kept)} together gain {_gain(found):+.3f}, and {kept[0].parameter}={kept[0].value} alone "
                f"{kept[0].gain:+.3f}"
            )
            return None, why, None
        return found, "", None

    def _judge(self, name: str, candidate: Candidate, runs: Sequence[ObservedTrial]) -> JudgedChange:
        value = self.changes[name]
        if self.plan.is_hopeless(candidate) and (prediction := self.plan.predict(candidate)) is not None:
            return JudgedChange(name, value, prediction.reason, self._where(prediction.message))
        if (broken := infeasible(runs, candidate)) is not None:
            return JudgedChange(name, value, "Infeasible", words(broken))
        if (failed := failure(runs, candidate)) is not None:
            return JudgedChange(name, value, failed.reason, self._where(words(failed)))
        found = self._compare(candidate, runs)
        if found is None:
            return JudgedChange(name, value, "MetricMissing", "a run lacks a metric")
        message = f"gain in fitness {_interval(found)}"
        if found.outcome is Outcome.NOT_BETTER or _gain(found) <= 0:
            return JudgedChange(name, value, "NoGainAlone", message, found)
        return JudgedChange(name, value, VALIDATED, message, found)

    def _why_not(self, candidate: Candidate, runs: Sequence[ObservedTrial]) -> str:
        """Why a candidate is run no more; empty: nothing speaks against it."""
        if self.plan.is_hopeless(candidate) and (prediction := self.plan.predict(candidate)) is not None:
            return self._where(prediction.message or prediction.reason)
        lost = infeasible(runs, candidate) or failure(runs, candidate)
        return self._where(words(lost)) if lost is not None else ""

    def _where(self, message: str) -> str:
        return message if self.ground is None else self.ground.words(message)

    def _compare(self, candidate: Candidate, runs: Sequence[ObservedTrial]) -> Comparison | None:
        was, now = ([it.measurements for it in measured(runs, each)] for each in (self.baseline, candidate))
        try:
            return compare(self.spec.objectives, was, now, float(self.spec.evaluation.confidence))
        except MissingMetricError:
            return None

    def _series(self, series: int) -> list[ObservedTrial]:
        return [it for it in self.runs if it.series == series]

    def _with(self, names: set[str]) -> Candidate:
        """The baseline with the winner's values of these parameters."""
        values = self.winner.values
        return Candidate(
            tuple((name, values[name] if name in names else was) for name, was in self.baseline.assignments)
        )

    def _none(self, why: str) -> Validation:
        undecided = tuple(JudgedChange(name, value, "NotValidated", why) for name, value in self.changes.items())
        return Validation(True, None, undecided)


def told(validation: Validation) -> str:
    """What is kept and what is left out, for a person."""
    return "; ".join(_told(validation.changes))


def _told(changes: Sequence[JudgedChange]) -> Iterator[str]:
    for it in changes:
        if it.is_kept:
            yield f"{it.parameter}={it.value} is kept: {it.message}"
    for it in changes:
        if not it.is_kept:
            yield f"{it.parameter}={it.value} is left out: {it.reason}: {it.message}"


def _gain(found: Comparison) -> float:
    return found.gain.estimate if found.gain is not None else found.fitness - found.baseline_fitness


def _interval(found: Comparison) -> str:
    if found.gain is None:
        return f"{_gain(found):+.3f}, of too few runs for an interval"
    return f"{found.gain.estimate:+.3f} ({found.gain.lower:+.3f} to {found.gain.upper:+.3f})"


def _words(kept: Sequence[JudgedChange]) -> str:
    return " ".join(f"{it.parameter}={it.value}" for it in kept)
