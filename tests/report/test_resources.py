"""What of a dump belongs to the experiment."""

import copy
from typing import Any

import pytest
from cotune.report.resources import ResourcesError, find_experiment
from support.played_experiment import NAME, NAMESPACE, Body, Played


def test_trials_and_profile_are_found_with_what_only_later_releases_say(voice: Played) -> None:
    bodies = copy.deepcopy(voice.bodies)
    bodies[0]["status"]["ofALaterRelease"] = {"anything": 1}

    found = find_experiment(bodies, NAME)

    assert (found.namespace, len(found.trials)) == (NAMESPACE, len(bodies) - 2)
    assert found.profile is not None
    assert found.challenger is not None
    assert sum(it.artifact is not None for it in found.trials) == 14
    assert any(it.status.interference for it in found.trials)


def test_trials_of_an_earlier_experiment_of_the_same_name_are_not_its_own(voice: Played) -> None:
    bodies = copy.deepcopy(voice.bodies)
    trials = [it for it in bodies if it["kind"] == "GpuTrial"]
    trials[0]["metadata"]["ownerReferences"][0]["uid"] = "somebody-else"
    trials[1]["spec"]["experiment"] = "another"

    found = find_experiment(bodies, NAME)

    assert len(found.trials) == len(trials) - 2


def test_two_namespaces_have_to_be_told_apart(voice: Played) -> None:
    bodies = [*voice.bodies, *_moved(voice.bodies, "elsewhere")]

    with pytest.raises(ResourcesError, match="it stands in voice-lab, elsewhere, name one of them"):
        find_experiment(bodies, NAME)

    found = find_experiment(bodies, NAME, "elsewhere")
    assert (found.namespace, len(found.trials)) == ("elsewhere", len(voice.bodies) - 2)


def test_an_experiment_that_is_not_there_is_named(voice: Played) -> None:
    with pytest.raises(ResourcesError, match="0 GpuAllocationExperiments of the name nobody in namespace voice-lab"):
        find_experiment(voice.bodies, "nobody", NAMESPACE)


def test_an_object_that_is_not_what_it_says_is_named_with_the_field(voice: Played) -> None:
    bodies = copy.deepcopy(voice.bodies)
    bodies[1]["status"]["phase"] = "Sleeping"

    with pytest.raises(ResourcesError, match=r"GpuTrial voice-\w+-0: status.phase: "):
        find_experiment(bodies, NAME)


def _moved(bodies: list[Body], namespace: str) -> list[dict[str, Any]]:
    found = copy.deepcopy(bodies)
    for it in found:
        it["metadata"]["namespace"] = namespace
    return found
