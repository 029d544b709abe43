"""The winner's changes one by one, in made-up worlds: what each change does to a latency is known beforehand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from cotune.api.experiment import Bind, Evaluation, ExperimentSpec, Goal, Objective, Outcome, Parameter
from cotune.api.trial import Prediction, Purpose, TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.partial_winner import Ground, JudgedChange, Turn, Validation, told, validate
from cotune.experiments.predictions import SpacePlan, survey, unplanned
from cotune.fitness.comparison import Comparison, compare
from cotune.search.space import Candidate, Space
from hypothesis import given, settings
from hypothesis import strategies as st
from support.resources import voice_experiment

REPEATS = 4
LATENCY = "judge.latency.p95"
NOISE_MS = (0.0, 1.0, -1.0, 0.5)

Changes = frozenset[str]


def experiment(names: str) -> ExperimentSpec:
    """One parameter for each letter, all of them `off` today."""
    parameters = tuple(
        Parameter(name=it, bind=Bind(component="judge", env=it.upper()), values=("off", "on"), baseline="off")
        for it in names
    )
    return voice_experiment().model_copy(
        update={
            "parameters": parameters,
            "objectives": (Objective(metric=LATENCY, goal=Goal.MINIMIZE, weight="1"),),
            "evaluation": Evaluation(repeats=REPEATS, confidence="0.95"),
        }
    )


@dataclass
class World:
    """What would be measured."""

    names: str
    milliseconds: Callable[[Changes], float]
    fails: Mapping[Changes, str] = field(default_factory=dict[Changes, str])
    """Sets of changes that do not start, and the reason."""
    breaks: frozenset[Changes] = frozenset()
    """Sets of changes that break a constraint."""
    drift: float = 0.0
    """Milliseconds that every run takes longer than the one before."""
    runs: list[ObservedTrial] = field(default_factory=list[ObservedTrial])
    ground: Ground | None = None

    @property
    def spec(self) -> ExperimentSpec:
        return experiment(self.names)

    @property
    def baseline(self) -> Candidate:
        return Space(self.spec.parameters).baseline

    def candidate(self, names: str) -> Candidate:
        return Candidate(tuple((it, "on" if it in names else "off") for it in self.names))

    @property
    def confirmed(self) -> Comparison:
        everything = frozenset(self.names)
        was, now = (
            [{LATENCY: self.milliseconds(changed) + it} for it in NOISE_MS]
            for changed in (frozenset[str](), everything)
        )
        return compare(self.spec.objectives, was, now, 0.95)

    def validate(self, plan: SpacePlan | None = None, runs: list[ObservedTrial] | None = None) -> Validation:
        winner = self.candidate(self.names)
        plan = plan or unplanned(Space(self.spec.parameters))
        seen = self.runs if runs is None else runs
        return validate(self.spec, self.baseline, winner, self.confirmed, seen, plan, self.ground)

    def run(self, turn: Turn) -> None:
        changed = frozenset(name for name, value in turn.candidate.values.items() if value == "on")
        repeat = sum(it.candidate == turn.candidate for it in self.runs)
        latency = self.milliseconds(changed) + NOISE_MS[repeat % 4] + self.drift * len(self.runs)
        failed = self.fails.get(changed)
        self.runs.append(
            ObservedTrial(
                name=turn.candidate.trial_name("voice", repeat),
                candidate=turn.candidate,
                repeat=repeat,
                phase=TrialPhase.FAILED if failed else TrialPhase.SUCCEEDED,
                is_judged=True,
                fitness=None if failed or changed in self.breaks else 0.5,
                reason=failed or "",
                message="9.4 GiB free, 10.2 GiB asked" if failed else "",
                purpose=Purpose.VALIDATION,
                series=turn.series,
                measurements={} if failed else {LATENCY: latency},
            )
        )

    def skip(self, candidate: Candidate) -> None:
        name = candidate.trial_name("voice", 0)
        skipped = ObservedTrial(name, candidate, 0, TrialPhase.SKIPPED, True, None, purpose=Purpose.VALIDATION)
        self.runs.append(replace(skipped, is_skipped=True))

    def end(self, plan: SpacePlan | None = None) -> Validation:
        """Until it is over."""
        for _ in range(200):
            found = self.validate(plan)
            if found.is_over:
                return found
            assert found.next is not None or found.skipped, "a pass that does nothing is followed by more of them"
            for it in found.skipped:
                self.skip(it)
            if found.next is not None:
                self.run(found.next)
        raise AssertionError("the validation does not end")

    @property
    def order(self) -> list[str]:
        return ["".join(n for n, v in it.candidate.values.items() if v == "on") or "-" for it in self.runs]


def gains(**milliseconds: float) -> Callable[[Changes], float]:
    """Every change takes so much off 1,000 ms."""
    return lambda changed: 1000.0 - sum(milliseconds[it] for it in changed)


def kept(found: Validation) -> str:
    return "".join(it.parameter for it in found.changes if it.is_kept)


def change(found: Validation, name: str) -> JudgedChange:
    return next(it for it in found.changes if it.parameter == name)


def test_changes_that_gain_on_their_own_are_the_winner_as_it_was_confirmed() -> None:
    world = World("ab", gains(a=300, b=100))

    found = world.end()

    assert found.deployable == world.candidate("ab")
    assert kept(found) == "ab"
    assert world.order == ["-", "a", "b", "b", "a", "-", "-", "a", "b", "b", "a", "-"]
    assert found.comparison == world.confirmed
    alone = [0.5 - 700 / 1700, 0.5 - 900 / 1900]
    assert [it.gain for it in found.changes] == pytest.approx(alone, abs=0.001)
    assert found.interaction == pytest.approx(0.5 - 600 / 1600 - sum(alone), abs=0.002)


def test_a_winner_with_one_change_was_validated_when_it_was_confirmed() -> None:
    world = World("a", gains(a=300))

    found = world.end()

    assert (found.deployable, kept(found), world.runs) == (world.candidate("a"), "a", [])


def test_a_change_that_does_not_start_on_its_own_is_left_out_with_its_reason() -> None:
    world = World("ab", gains(a=300, b=100), fails={frozenset("b"): "CardTaken"})

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("a"), "a")
    assert change(found, "b").reason == "CardTaken"
    assert "b=on is left out: CardTaken: " in told(found)
    assert "9.4 GiB free, 10.2 GiB asked" in told(found)
    assert world.order.count("b") == 1


def test_a_change_that_breaks_a_constraint_on_its_own_is_left_out() -> None:
    world = World("ab", gains(a=300, b=100), breaks=frozenset({frozenset("b")}))

    found = world.end()

    assert (kept(found), change(found, "b").reason) == ("a", "Infeasible")


def test_a_change_that_cannot_start_by_arithmetic_takes_no_card() -> None:
    world = World("ab", gains(a=300, b=100))
    refused = Prediction(fits=False, reason="NoCacheBlocks", message="0.83 GiB less than the weights")
    plan = survey(
        Space(world.spec.parameters), 0.0, lambda it: refused if it == world.candidate("b") else Prediction(fits=True)
    )

    found = world.end(plan)

    assert set(world.order) == {"-", "a"}
    assert (kept(found), change(found, "b").reason) == ("a", "NoCacheBlocks")
    assert change(found, "b").message == "0.83 GiB less than the weights"


def test_a_change_without_a_gain_of_its_own_is_left_out() -> None:
    world = World("ab", gains(a=300, b=-50))

    found = world.end()

    assert (kept(found), change(found, "b").reason) == ("a", "NoGainAlone")


def test_nothing_is_deployable_when_no_change_gains_beyond_the_noise() -> None:
    world = World("ab", gains(a=0.01, b=0.01))

    found = world.end()

    assert found.deployable is None
    assert kept(found) == ""
    assert {it.reason for it in found.changes} <= {"NoGainAlone", "LeftOutOfTheSet"}


def test_a_set_that_is_not_the_winner_is_run_by_turns_with_the_baseline_before_it_is_deployed() -> None:
    world = World("abc", gains(a=300, b=100, c=-50))

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("ab"), "ab")
    together = [name for name, run in zip(world.order, world.runs, strict=True) if run.series == 1]
    assert together == ["-", "ab", "ab", "-", "-", "ab", "ab", "-"]
    assert found.comparison is not None
    assert found.comparison.outcome is Outcome.BETTER


def test_of_a_set_that_does_not_start_together_the_change_with_the_least_gain_is_left_out() -> None:
    world = World("abc", gains(a=300, b=100, c=-50), fails={frozenset("ab"): "CudaOutOfMemory"})

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("a"), "a")
    assert change(found, "b").reason == "LeftOutOfTheSet"
    assert "a=on b=on together: " in change(found, "b").message
    assert "CudaOutOfMemory" in change(found, "b").message


def test_changes_that_spoil_each_other_are_not_put_together() -> None:
    def milliseconds(changed: Changes) -> float:
        return {frozenset(""): 1000.0, frozenset("a"): 700.0, frozenset("b"): 800.0}.get(changed, 900.0)

    found = World("ab", milliseconds).end()

    assert kept(found) == "a"
    assert "alone +0." in change(found, "b").message


def test_what_drifts_steadily_is_no_gain() -> None:
    world = World("ab", gains(a=0.0, b=0.0), drift=-5.0)

    assert world.end().deployable is None


def test_a_baseline_that_fails_leaves_all_changes_unvalidated() -> None:
    found = World("ab", gains(a=300, b=100), fails={frozenset(): "CudaOutOfMemory"}).end()

    assert found.deployable is None
    assert {it.reason for it in found.changes} == {"NotValidated"}


def test_a_run_on_its_way_is_waited_for() -> None:
    world = World("ab", gains(a=300, b=100))
    first = world.validate().next
    assert first is not None
    world.run(first)
    started = ObservedTrial("voice-x", world.candidate("a"), 0, TrialPhase.STARTING, True, None)

    found = world.validate(runs=[*world.runs, started])

    assert (found.is_over, found.next) == (False, None)


def target(world: World, plan: SpacePlan | None = None) -> Ground:
    """What runs in staging: the experiment's services, and two more."""
    known = plan or unplanned(Space(world.spec.parameters))
    return Ground("voice-staging", "voice-stack-1", known, ("embeddings", "chat"))


def test_on_the_target_a_winner_with_one_change_is_run_again() -> None:
    world = World("a", gains(a=300))
    world.ground = target(world)

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("a"), "a")
    assert world.order == ["-", "a", "a", "-", "-", "a", "a", "-"]


def test_on_the_target_the_whole_winner_is_run_by_turns_for_it_was_confirmed_elsewhere() -> None:
    world = World("ab", gains(a=300, b=100))
    world.ground = target(world)

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("ab"), "ab")
    together = [(name, run.series) for name, run in zip(world.order, world.runs, strict=True) if run.series]
    assert together == [(it, 2) for it in ("-", "ab", "ab", "-", "-", "ab", "ab", "-")]


def test_a_winner_that_does_not_start_as_a_whole_beside_what_runs_there_loses_a_change() -> None:
    world = World("ab", gains(a=300, b=100), fails={frozenset("ab"): "CudaOutOfMemory"})
    world.ground = target(world)

    found = world.end()

    assert (kept(found), change(found, "b").reason) == ("a", "LeftOutOfTheSet")
    assert "in voice-staging, beside embeddings, chat: voice-" in change(found, "b").message


def test_a_change_that_does_not_start_beside_what_runs_there_is_left_out_with_both() -> None:
    world = World("ab", gains(a=300, b=100), fails={frozenset("b"): "CardTaken"})
    world.ground = target(world)

    found = world.end()

    assert (found.deployable, kept(found)) == (world.candidate("a"), "a")
    assert "b=on is left out: CardTaken: in voice-staging, beside embeddings, chat: " in told(found)
    assert "9.4 GiB free, 10.2 GiB asked" in told(found)


def test_a_change_that_is_impossible_beside_what_runs_there_is_recorded_and_takes_no_card() -> None:
    world = World("ab", gains(a=300, b=100))
    refused = Prediction(fits=False, reason="CardTaken", message="judge: 9.40 GiB are free, and 10.20 are asked for")
    fits = Prediction(fits=True)
    plan = survey(Space(world.spec.parameters), 0.0, lambda it: refused if it == world.candidate("b") else fits)
    world.ground = target(world, plan)

    found = world.end()

    assert world.order == ["b", "-", "a", "a", "-", "-", "a", "a", "-"]
    assert world.runs[0].is_skipped
    assert (kept(found), change(found, "b").reason) == ("a", "CardTaken")
    assert change(found, "b").message == f"in voice-staging, beside embeddings, chat: {refused.message}"


@settings(max_examples=8)
@given(
    alone=st.dictionaries(st.sampled_from("abcd"), st.integers(-200, 200), min_size=2),
    failing=st.sets(st.frozensets(st.sampled_from("abcd"), min_size=1), max_size=4),
    breaking=st.sets(st.frozensets(st.sampled_from("abcd"), min_size=1), max_size=4),
)
def test_whatever_the_world_is_like_only_a_set_that_was_measured_better_is_deployable(
    alone: dict[str, int], failing: set[Changes], breaking: set[Changes]
) -> None:
    names = "".join(sorted(alone))
    world = World(names, gains(**alone), dict.fromkeys(failing, "CardTaken"), frozenset(breaking))

    found = world.end()
    again = world.validate(runs=world.runs[::-1])

    assert again == found, "the same runs say the same in whatever order they are read"
    assert len(world.runs) <= REPEATS * (len(names) + 1 + 2 * (len(names) - 2)) or len(names) == 2
    assert len({it.name for it in world.runs}) == len(world.runs), "no repeat is run twice"
    assert [it.parameter for it in found.changes] == list(names)
    if found.deployable is None:
        assert kept(found) == ""
        return
    assert found.deployable == world.candidate(kept(found))
    assert found.comparison is not None
    assert found.comparison.outcome is Outcome.BETTER
    deployed = frozenset(kept(found))
    for it in deployed:
        assert frozenset(it) not in failing | breaking, "every change was feasible on its own"
    assert deployed not in failing | breaking or deployed == frozenset(names)
