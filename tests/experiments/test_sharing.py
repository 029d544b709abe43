"""How the card is shared as a parameter like any other: what is skipped, planned, confirmed and won."""

from dataclasses import replace
from typing import Any

import pytest
from cotune.api.experiment import ExperimentPhase, ExperimentSpec
from cotune.api.sharing import Sharing
from cotune.api.trial import Purpose, TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.predictions import SpacePlan, SpaceTooLargeError, is_hopeless, plan_experiment
from cotune.experiments.step import ExperimentStep, decide
from cotune.planning.candidates import LARGEST_SPACE
from cotune.planning.cards import card
from cotune.planning.sizes import MIB
from cotune.search.space import Candidate, Space
from cotune.trials.placement import ANY_SHARING, SharingModes
from hypothesis import given
from hypothesis import strategies as st
from support.resources import manifest

NO_MPS = SharingModes(missing=((Sharing.MPS, "lab: shares its card by time-slicing, not by mps"),))


def spec(memory_mib: int | None = None, probe_skipped: str = "0", **gpu: Any) -> ExperimentSpec:
    """Speech in three sizes, by time-slicing and by MPS; with `memory_mib`, each service holds so much."""
    made = manifest("GpuAllocationExperiment")["spec"]
    sharing = {"name": "sharing", "bind": {"gpu": "sharing"}, "values": ["TimeSlicing", "MPS"]}
    made["parameters"] = [made["parameters"][1], sharing | {"baseline": "TimeSlicing"}]
    made["gpu"] |= gpu
    made["planning"] = {"probeSkipped": probe_skipped}
    made["search"] = {"maxTrials": 10}
    made["evaluation"] = {"repeats": 3, "confidence": "0.9", "baselineEvery": 0}
    for it in made["stack"]["components"] if memory_mib is not None else ():
        it["memory"] = {"model": "Declared", "memoryMiB": memory_mib}
    return ExperimentSpec.model_validate(made)


def ended(planned: Any, milliseconds: float, fitness: float) -> ObservedTrial:
    """A trial as it ends: skipped where it was planned to be, else measured."""
    rest = {"judge.latency.p95": 900.0, "judge.kvCache.concurrency": 3.4, "stability": 1.0, "gpu.utilization": 0.7}
    found = ObservedTrial(planned.name, planned.candidate, planned.repeat, TrialPhase.SUCCEEDED, True, fitness)
    if planned.is_skipped:
        reason = planned.prediction.reason
        return replace(found, phase=TrialPhase.SKIPPED, fitness=None, is_skipped=True, reason=reason)
    measured = {"stt.latency.p95": milliseconds + 3 * (planned.repeat % 3), **rest}
    return replace(found, purpose=planned.purpose, series=planned.series, measurements=measured)


def run(experiment: ExperimentSpec, plan: SpacePlan) -> tuple[ExperimentStep, list[ObservedTrial]]:
    """Until it is over; MPS makes speech four times as fast."""
    trials: list[ObservedTrial] = []
    for _ in range(100):
        step = decide("voice", experiment, trials, 1, plan)
        if step.phase not in {ExperimentPhase.RUNNING, ExperimentPhase.VALIDATING}:
            return step, trials
        for planned in (*step.start, *step.record):
            is_fast = planned.candidate.values["sharing"] == "MPS"
            trials.append(ended(planned, 80.0 if is_fast else 320.0, 0.7 if is_fast else 0.5))
    raise AssertionError("the experiment does not end")


def test_the_winner_says_which_nodes_it_wants_and_that_none_is_reconfigured() -> None:
    experiment = spec()

    step, _ = run(experiment, plan_experiment(experiment, {}, {}, modes=ANY_SHARING))

    assert step.winner is not None
    assert step.winner.sharing is Sharing.MPS
    wants = "it wants nodes that share their card as MPS, not as TimeSlicing"
    assert step.message.endswith(f"{wants}: they are to be prepared, no node is reconfigured")


def test_a_winner_that_shares_as_today_wants_no_other_nodes() -> None:
    experiment = spec()
    plan = plan_experiment(experiment, {}, {}, modes=ANY_SHARING)
    trials: list[ObservedTrial] = []
    step = decide("voice", experiment, trials, 1, plan)
    while step.phase is ExperimentPhase.RUNNING:
        for it in step.start:
            is_fast = it.candidate.values == {"whisperModel": "tiny", "sharing": "TimeSlicing"}
            trials.append(ended(it, 80.0 if is_fast else 320.0, 0.7 if is_fast else 0.5))
        step = decide("voice", experiment, trials, 1, plan)

    assert step.winner is not None
    assert step.winner.sharing is None
    assert "reconfigured" not in step.message


@pytest.mark.parametrize("memory_mib", [None, 1_000])
def test_candidates_without_a_node_are_skipped_with_the_reason_and_the_others_are_tried(memory_mib: int | None) -> None:
    experiment = spec(memory_mib)
    plan = plan_experiment(experiment, {}, {}, modes=NO_MPS)

    step, trials = run(experiment, plan)

    assert step.phase is ExperimentPhase.SUCCEEDED
    skipped = {it.candidate.values["sharing"] for it in trials if it.phase is TrialPhase.SKIPPED}
    assert skipped == {"MPS"}
    assert {it.reason for it in trials if it.is_skipped} == {"NoSuitableNode"}
    assert step.counts.skipped == plan.skipped == plan.without_node == 3
    assert {it.candidate.values["sharing"] for it in trials if not it.is_skipped} == {"TimeSlicing"}
    assert step.gpu_seconds_saved is None, "no start would have failed"


def test_what_the_planner_says_of_the_space_counts_them() -> None:
    summary = plan_experiment(spec(1_000), {}, {}, modes=NO_MPS).summary

    assert summary is not None
    assert (summary.candidates, summary.fitting) == (6, 3)
    (refused,) = summary.refused
    assert (refused.reason, refused.count, refused.skipped) == ("NoSuitableNode", 3, 3)
    assert refused.example.endswith("not by mps")
    assert plan_experiment(spec(), {}, {}, modes=NO_MPS).summary is None, "nothing was planned"


@given(probe_skipped=st.sampled_from(["0", "0.5", "1"]), candidate=st.sampled_from(list(Space(spec().parameters))))
def test_probe_skipped_runs_nothing_that_has_no_node(probe_skipped: str, candidate: Candidate) -> None:
    experiment = spec(1_000, probe_skipped)
    plan = plan_experiment(experiment, {}, {}, modes=NO_MPS)

    hopeless = is_hopeless(plan.predict(candidate), candidate, float(probe_skipped))

    assert hopeless == (candidate.values["sharing"] == "MPS")
    assert (candidate in list(plan.allowed(Space(experiment.parameters)))) != hopeless


def test_a_space_that_is_too_large_to_look_at_says_so() -> None:
    experiment = spec()
    many = tuple(str(it) for it in range(100))
    wide = [experiment.parameters[0].model_copy(update={"name": f"p{it}", "values": many}) for it in range(3)]
    large = experiment.model_copy(update={"parameters": (*wide, experiment.parameters[1])})
    assert len(Space(large.parameters)) > LARGEST_SPACE

    with pytest.raises(SpaceTooLargeError):
        plan_experiment(large, {}, {}, modes=NO_MPS)


def test_the_planner_caps_each_client_where_the_candidate_runs_under_mps() -> None:
    share = card("NVIDIA-GeForce-RTX-3060").client_limit(8) // MIB
    plan = plan_experiment(spec(share + 1), {}, {}, modes=SharingModes(mps_replicas=8))
    candidates = list(Space(spec().parameters))

    refused = [it for it in candidates if (found := plan.predict(it)) is not None and not found.fits]

    assert {it.values["sharing"] for it in refused} == {"MPS"}
    assert len(refused) == 3
    found = plan.predict(refused[0])
    assert found is not None
    assert found.reason == "ClientLimit"
    unknown = plan_experiment(spec(share + 1), {}, {}, modes=ANY_SHARING)
    assert all((it := unknown.predict(one)) is not None and it.fits for one in candidates)


def test_without_a_parameter_the_experiments_own_sharing_decides() -> None:
    made = spec(2_000, sharing="TimeSlicing")
    fixed = made.model_copy(
        update={
            "gpu": made.gpu.model_copy(update={"sharing": Sharing.MPS}) if made.gpu else None,
            "parameters": made.parameters[:1],
        }
    )

    plan = plan_experiment(fixed, {}, {}, modes=SharingModes(mps_replicas=8))

    assert plan.is_nothing_feasible
    assert fixed.baseline_sharing is Sharing.MPS


def test_a_context_is_smaller_under_mps_and_so_is_what_must_be_seen_on_the_card() -> None:
    made = manifest("GpuAllocationExperiment")["spec"]
    made["gpu"] = {"product": "NVIDIA-H200"}
    made["stack"]["components"][1]["memory"] = {"model": "Whisper", "sizeEnv": "ASR_WHISPER_SIZE"}
    sharing = {"name": "sharing", "bind": {"gpu": "sharing"}, "values": ["TimeSlicing", "MPS"], "baseline": "MPS"}
    made["parameters"] = [made["parameters"][1], sharing]
    plan = plan_experiment(ExperimentSpec.model_validate(made), {}, {}, modes=SharingModes(mps_replicas=4))

    def least(mode: str) -> int:
        found = plan.predict(Candidate((("whisperModel", "tiny"), ("sharing", mode))))
        assert found is not None
        return next(it.least_mib for it in found.holdings)

    assert least("TimeSlicing") - least("MPS") == 532 - (32 + 125)


def test_a_trial_that_lost_its_node_in_the_search_does_not_end_the_experiment() -> None:
    experiment = spec()
    plan = plan_experiment(experiment, {}, {}, modes=ANY_SHARING)
    trials: list[ObservedTrial] = []
    step = decide("voice", experiment, trials, 1, plan)
    while step.phase is ExperimentPhase.RUNNING:
        for it in step.start:
            trial = ended(it, 300.0, 0.5)
            if it.candidate.values["sharing"] == "MPS":
                assert it.purpose is Purpose.SEARCH
                trial = replace(trial, phase=TrialPhase.SKIPPED, fitness=None, measurements={}, reason="NoSuitableNode")
            trials.append(trial)
        step = decide("voice", experiment, trials, 1, plan)

    assert step.phase is ExperimentPhase.SUCCEEDED
    assert step.counts.skipped == 3
    assert len({it.name for it in trials}) == len(trials)
