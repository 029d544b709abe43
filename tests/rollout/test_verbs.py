"""A person's word in a rollout: what it edits, and when it means nothing."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cotune.api.profile import Approval, ProfilePhase, ProfileSpec, ProfileStatus, StageStatus
from cotune.rollout.progress import current_stage, hindrance, retried
from cotune.rollout.verbs import Edit, NotNowError, abort, approve, pause, resume, retry
from support.resources import manifest

SPEC = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
STAGING, PRODUCTION = SPEC.rollout.stages
PROMOTED, ROLLED_BACK, BAKING = ProfilePhase.PROMOTED, ProfilePhase.ROLLED_BACK, ProfilePhase.BAKING


def status(*phases: ProfilePhase, retries: int = 0) -> ProfileStatus:
    stages = tuple(
        StageStatus(name=stage.name, phase=phase, message="why")
        for stage, phase in zip(SPEC.rollout.stages, phases, strict=False)
    )
    return ProfileStatus(phase=phases[-1] if phases else ProfilePhase.PENDING, stages=stages, retries=retries)


def after(edit: Edit, spec: ProfileSpec = SPEC) -> ProfileSpec:
    return spec.model_copy(update={"rollout": edit.rollout})


def approvals(edit: Edit) -> list[Approval]:
    return [it.approval for it in edit.rollout.stages]


def test_the_next_stage_is_approved_and_no_other() -> None:
    assert approvals(approve(SPEC, status(PROMOTED), None)) == [Approval.AUTO, Approval.AUTO]
    assert approve(SPEC, status(), None) == Edit(SPEC.rollout, "stage staging needs no approval")


def test_a_stage_may_be_approved_by_name_before_its_time() -> None:
    edit = approve(SPEC, status(), "production")

    assert approvals(edit) == [Approval.AUTO, Approval.AUTO]
    assert edit.said == "stage production is approved"


@pytest.mark.parametrize(
    ("stage", "phases", "words"),
    [
        ("prod", [], "there is no stage prod: it has staging, production"),
        (None, [PROMOTED, PROMOTED], "no stage is left to approve: the profile is Promoted"),
        (None, [ROLLED_BACK], "no stage is left to approve: the profile is RolledBack"),
    ],
)
def test_what_cannot_be_approved_is_refused(stage: str | None, phases: list[ProfilePhase], words: str) -> None:
    with pytest.raises(NotNowError, match=words):
        approve(SPEC, status(*phases), stage)


def test_a_pause_and_an_abort_end_with_resume() -> None:
    held = after(abort(after(pause(SPEC)), status()))
    assert (held.rollout.paused, held.rollout.abort) == (True, True)

    assert resume(held).rollout == SPEC.rollout


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([], "aborted: no further stage begins"),
        ([PROMOTED], "aborted: no further stage begins"),
        ([BAKING], "aborted: stage staging is taken back"),
        ([PROMOTED, ProfilePhase.PROGRESSING], "aborted: stage production is taken back"),
        ([ProfilePhase.ROLLING_BACK], "stage staging is on its way back already"),
    ],
)
def test_an_abort_says_what_it_does(phases: list[ProfilePhase], said: str) -> None:
    edit = abort(SPEC, status(*phases))

    assert (edit.rollout.abort, edit.said) == (True, said)


@pytest.mark.parametrize("phases", [[PROMOTED, PROMOTED], [ROLLED_BACK]])
def test_nothing_is_aborted_that_is_over(phases: list[ProfilePhase]) -> None:
    with pytest.raises(NotNowError, match="nothing is in progress"):
        abort(SPEC, status(*phases))


@pytest.mark.parametrize("phases", [[], [BAKING], [PROMOTED, PROMOTED], [ProfilePhase.DEGRADED]])
def test_only_what_was_taken_back_starts_anew(phases: list[ProfilePhase]) -> None:
    with pytest.raises(NotNowError, match="no stage was taken back"):
        retry(SPEC, status(*phases))


def test_an_aborted_stage_starts_anew() -> None:
    edit = retry(after(abort(SPEC, status(BAKING))), status(ROLLED_BACK))

    assert (edit.rollout.abort, edit.rollout.retries) == (False, 1)


def approve_production(spec: ProfileSpec) -> Edit:
    return approve(spec, status(PROMOTED), "production")


def abort_staging(spec: ProfileSpec) -> Edit:
    return abort(spec, status(BAKING))


def retry_production(spec: ProfileSpec) -> Edit:
    return retry(spec, status(PROMOTED, ROLLED_BACK, retries=2))


@pytest.mark.parametrize("verb", [approve_production, pause, resume, abort_staging, retry_production])
def test_saying_it_twice_is_saying_it_once(verb: Callable[[ProfileSpec], Edit]) -> None:
    once = verb(SPEC)

    assert verb(after(once)).rollout == once.rollout


def test_a_stage_that_starts_anew_has_not_begun_and_those_before_it_stay_promoted() -> None:
    spec = after(retry(SPEC, status(PROMOTED, ROLLED_BACK)))

    anew = retried(spec, status(PROMOTED, ROLLED_BACK))

    assert anew is not None
    assert [(it.name, it.phase) for it in anew.stages] == [("staging", PROMOTED)]
    assert (anew.retries, anew.phase, current_stage(spec, anew)) == (1, ProfilePhase.PROGRESSING, PRODUCTION)
    assert retried(spec, anew) is None


@pytest.mark.parametrize(("second", "starts"), [(PROMOTED, True), (BAKING, False), (ProfilePhase.DEGRADED, False)])
def test_a_stage_starts_anew_once_those_behind_it_have_come_to_their_end(second: ProfilePhase, starts: bool) -> None:
    both = status(ROLLED_BACK, second)

    anew = retried(after(retry(SPEC, both)), both)

    assert (anew is not None) is starts
    if anew is not None:
        assert [it.name for it in anew.stages] == ["production"]


@pytest.mark.parametrize(("used", "starts"), [(0, True), (1, True), (2, False)])
def test_retries_are_used_up_one_by_one(used: int, starts: bool) -> None:
    twice = SPEC.model_copy(update={"rollout": SPEC.rollout.model_copy(update={"retries": 2})})

    assert (retried(twice, status(ROLLED_BACK, retries=used)) is not None) is starts


def test_an_abort_holds_retries_and_stages_back() -> None:
    rollout = SPEC.rollout.model_copy(update={"retries": 2, "abort": True})
    aborted = SPEC.model_copy(update={"rollout": rollout})

    assert retried(aborted, status(ROLLED_BACK)) is None
    held = hindrance(aborted, STAGING, datetime.now(UTC))
    assert held is not None
    assert held.reason == "Aborted"
