"""Commands that can be copied as they stand."""

import argparse
import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from cotune.api.experiment import Outcome
from cotune.api.profile import ProfilePhase, ProfileSpec, StageStatus, Strategy
from cotune.cli import get, history, verbs
from cotune.cli.__main__ import main
from cotune.report.resources import Experiment, Profile
from cotune.report.rollout import Instruction, RolloutGuide, rollout_guide
from support.played_experiment import Played
from support.told_report import experiment


def test_the_profile_is_watched_approved_paused_and_taken_back_by_its_real_names(voice: Played) -> None:
    found = rollout_guide(experiment(voice), Outcome.BETTER)

    assert [it.title for it in found.instructions] == [
        "Watch it",
        "Approve production",
        "Pause",
        "Roll back a stage in progress",
        "Take staging back",
        "See what was there before",
    ]
    where = "voice-21c756 -n voice-lab"
    assert command(found, "Watch it") == f"kubectl cotune get profile {where} -w"
    assert command(found, "Approve production") == f"kubectl cotune approve {where} --stage production"
    assert command(found, "Pause") == f"kubectl cotune pause {where}"
    assert command(found, "Roll back a stage in progress") == f"kubectl cotune abort {where}"
    back = "--stage staging --to-revision cotune-0123456789"
    assert command(found, "Take staging back") == f"kubectl cotune rollback {where} {back}"
    assert command(found, "See what was there before") == f"kubectl cotune history {where}"
    assert [(it.name, it.phase) for it in found.stages] == [("staging", "Promoted"), ("production", "AwaitingApproval")]


def test_the_commands_are_ones_that_the_command_line_knows(voice: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[str] = []

    def recorded(_: Callable[..., object]) -> Callable[[argparse.Namespace], int]:
        return lambda options: run.append(options.profile) or 0

    for module in (get, history, verbs):
        monkeypatch.setattr(module, "with_session", recorded)
    lines = [it.command for it in rollout_guide(experiment(voice), Outcome.BETTER).instructions]
    words = [shlex.split(it)[2:] for it in lines if it.startswith("kubectl cotune ")]

    assert [main(it) for it in words] == [0] * 6
    assert run == ["voice-21c756"] * 6


def test_a_stage_that_was_promoted_is_not_approved_again(voice: Played) -> None:
    whole = experiment(voice)
    promoted = StageStatus(name="production", phase=ProfilePhase.PROMOTED)
    profile = _profile(whole)
    status = profile.status.model_copy(update={"stages": (profile.status.stages[0], promoted)})

    found = rollout_guide(replace(whole, profile=replace(profile, status=status)), Outcome.BETTER)

    assert "Approve production" not in [it.title for it in found.instructions]


def test_what_came_through_git_goes_back_through_git(voice: Played) -> None:
    whole = experiment(voice)
    profile = _profile(whole)
    rollout = profile.spec.rollout.model_copy(update={"strategy": Strategy.GIT})
    spec = profile.spec.model_copy(update={"rollout": rollout})

    found = rollout_guide(replace(whole, profile=replace(profile, spec=spec)), Outcome.BETTER)

    assert command(found, "Take staging back") == ""


def test_a_winner_without_a_profile_gets_a_manifest_to_fill_in(voice: Played) -> None:
    whole = experiment(voice)
    status = whole.status.model_copy(update={"profile": None})

    found = rollout_guide(replace(whole, profile=None, status=status), Outcome.BETTER)

    spec = applied(command(found, "Make a profile").replace("NAMESPACE", "somewhere", 1).replace("NAMESPACE", "else"))
    assert {it.to for it in spec.changes} == {"0.60", "tiny"}
    assert spec.start_order == ("neighbour", "judge", "stt")


@pytest.mark.parametrize("outcome", [Outcome.NOT_BETTER, Outcome.CANNOT_TELL, None])
def test_without_a_winner_there_is_nothing_to_roll_out(voice: Played, outcome: Outcome | None) -> None:
    whole = experiment(voice)
    status = whole.status.model_copy(update={"profile": None})

    found = rollout_guide(replace(whole, profile=None, status=status), outcome)

    assert (found.stages, found.instructions) == ((), ())


def test_a_profile_that_is_not_among_the_objects_is_said_to_be_missing(voice: Played) -> None:
    found = rollout_guide(replace(experiment(voice), profile=None), Outcome.BETTER)

    assert "not among the objects" in found.state


def test_a_malicious_name_stays_one_word_of_the_command(voice: Played) -> None:
    whole = experiment(voice)
    evil = "x; rm -rf / #'\nEOF\ntouch owned"

    found = rollout_guide(replace(whole, namespace=evil, profile=replace(_profile(whole), name=evil)), Outcome.BETTER)

    assert shlex.split(command(found, "Watch it")) == ["kubectl", "cotune", "get", "profile", evil, "-n", evil, "-w"]
    unmade = replace(whole, namespace=evil, name=evil, profile=None)
    unmade = replace(unmade, status=whole.status.model_copy(update={"profile": None}))
    lines = command(rollout_guide(unmade, Outcome.BETTER), "Make a profile").splitlines()
    assert [number for number, it in enumerate(lines) if it == "EOF"] == [len(lines) - 1]


def command(guide: RolloutGuide, title: str) -> str:
    found: list[Instruction] = [it for it in guide.instructions if it.title == title]
    assert len(found) == 1, title
    return found[0].command


def applied(text: str) -> ProfileSpec:
    first, *manifest, last = text.splitlines()
    assert (first, last) == ("kubectl apply -f - <<'EOF'", "EOF")
    return ProfileSpec.model_validate(yaml.safe_load("\n".join(manifest))["spec"])


def _profile(whole: Experiment) -> Profile:
    assert whole.profile is not None
    return whole.profile
