"""To which revision a stage may be taken, and what that one does not say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.grant import GrantSpec
from cotune.api.profile import AskedOutcome, ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.rollout.progress import retried
from cotune.rollout.state import ObservedWorkload, Revision, StoredRevision, WorkloadRevision
from cotune.rollout.targets import Refusal, not_granted
from cotune.rollout.to_revision import answered, choose, completed, is_present, refused, taken_back, unanswered
from cotune.rollout.verbs import NotNowError, begun_stage, find_revision, retry, to_revision
from support.resources import manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
STACK = SPEC.start_order
GRANT = GrantSpec.model_validate(manifest("GpuTuningGrant")["spec"])
TARGETS = {it.component: it for it in GRANT.targets}
SIZE, MEMORY = "ASR_WHISPER_SIZE", "JUDGE_MEMORY"
OWNERS = dict.fromkeys(STACK)
PROMOTED = StageStatus(name="staging", phase=ProfilePhase.PROMOTED, revision="cotune-0000000001")


def revision(replicas: int = 1, **values: dict[str, str | None]) -> Revision:
    return Revision(tuple(WorkloadRevision(it, values.get(it, {}), replicas) for it in STACK))


def stored(
    number: int, content: Revision, was_found: bool = True, markers: Mapping[str, str | None] | None = None
) -> StoredRevision:
    return StoredRevision(
        f"cotune-{number:010}", number, content, markers or OWNERS, {it: TARGETS[it] for it in STACK}, was_found
    )


def observed(content: Revision, is_ready: bool = True) -> dict[str, ObservedWorkload]:
    return {it.component: ObservedWorkload(it.values, it.replicas, it.replicas, is_ready) for it in content.workloads}


SMALL, TINY = revision(stt={SIZE: "small"}), revision(stt={SIZE: "tiny"})


def chosen(number: int, *known: StoredRevision, state: StageStatus = PROMOTED) -> str:
    """The reason of a refusal, or nothing."""
    found = choose(f"cotune-{number:010}", known, STACK, state, "voice-staging")
    return found.reason if isinstance(found, Refusal) else ""


def test_what_was_found_when_a_stage_began_is_good() -> None:
    assert chosen(0, stored(0, SMALL), stored(1, TINY, was_found=False)) == ""


def test_what_was_only_to_be_is_good_once_the_stage_was_promoted_with_it_or_the_same_was_found_later() -> None:
    goal = stored(1, TINY, was_found=False)
    failed = PROMOTED.model_copy(update={"phase": ProfilePhase.ROLLED_BACK})

    assert chosen(1, stored(0, SMALL), goal) == ""
    assert chosen(1, stored(0, SMALL), goal, state=failed) == "RevisionNotGood"
    assert chosen(1, stored(0, SMALL), goal, stored(2, TINY), state=failed) == ""
    more = stored(2, revision(replicas=2, stt={SIZE: "tiny"}))
    assert chosen(1, stored(0, SMALL), goal, more, state=failed) == "RevisionNotGood"


def test_a_revision_that_is_not_there_is_told_with_those_that_are() -> None:
    found = choose("cotune-0000000009", [stored(0, SMALL), stored(1, TINY, was_found=False)], STACK, PROMOTED, "n")

    assert found == Refusal(
        "RevisionUnknown",
        "namespace n has no revision cotune-0000000009: there are cotune-0000000000 (0), cotune-0000000001 (1)",
    )
    assert choose("cotune-0000000009", [], STACK, PROMOTED, "n") == Refusal(
        "RevisionUnknown", "namespace n has no revision cotune-0000000009: there is none to go to"
    )


def test_a_revision_of_another_stack_is_no_way_back() -> None:
    other = replace(stored(0, SMALL), targets={"stt": TARGETS["stt"]})

    assert chosen(0, other) == "RevisionOfAnotherStack"


def test_variables_that_were_set_later_go_back_to_what_they_were_before_that() -> None:
    first = stored(0, SMALL)
    second = stored(2, revision(judge={MEMORY: None}, stt={SIZE: "tiny"}))
    third = stored(4, revision(judge={MEMORY: "0.5"}, stt={SIZE: "tiny"}))
    now = observed(revision(judge={MEMORY: "0.6"}, stt={SIZE: "tiny"}))

    goal = completed(first, [first, second, third], now)

    assert goal == revision(judge={MEMORY: None}, stt={SIZE: "small"})


def test_a_variable_of_which_no_revision_says_what_it_was_keeps_the_stage_where_it_is() -> None:
    first = stored(3, SMALL)
    earlier = stored(1, revision(judge={MEMORY: None}, stt={SIZE: "small"}))
    meant = stored(4, revision(judge={MEMORY: "0.6"}, stt={SIZE: "small"}), was_found=False)
    now = observed(revision(judge={MEMORY: "0.6"}, stt={SIZE: "tiny"}))

    found = completed(first, [earlier, first, meant], now)

    assert found == Refusal(
        "RevisionIncomplete", f"no revision says what {MEMORY} of judge was at the time of {first.name}"
    )


@pytest.mark.parametrize(
    ("now", "is_so"),
    [
        (observed(SMALL), True),
        (observed(SMALL, is_ready=False), True),
        (observed(TINY), False),
        (observed(revision(replicas=2, stt={SIZE: "small"})), False),
        ({}, False),
        (observed(SMALL) | {"stt": replace(observed(SMALL)["stt"], unbindable="no such container")}, False),
    ],
)
def test_a_revision_is_present_with_its_values_and_its_replicas(now: dict[str, ObservedWorkload], is_so: bool) -> None:
    assert is_present(SMALL, now) is is_so


def test_values_must_be_granted_today_unless_they_were_the_owners() -> None:
    source = GRANT.from_[0].namespace
    marked = dict.fromkeys(STACK, "cotune-0000000001")
    narrow = GRANT.model_copy(
        update={"targets": tuple(it.model_copy(update={"env": (), "values": None}) for it in GRANT.targets)}
    )

    def refusal(of: StoredRevision, grant: GrantSpec, source: str = source) -> str:
        found = not_granted(of, source, "voice-staging", [grant])
        return found.reason if found is not None else ""

    assert refusal(stored(1, TINY, markers=marked), GRANT) == ""
    assert refusal(stored(1, TINY, markers=marked), narrow) == "ChangeNotGranted"
    assert refusal(stored(0, SMALL), narrow) == ""
    assert refusal(stored(0, SMALL), GRANT, source="elsewhere") == "NoGrant"
    elsewhere = {name: it.model_copy(update={"container": "other"}) for name, it in TARGETS.items()}
    assert refusal(replace(stored(0, SMALL), targets=elsewhere), GRANT) == "WorkloadNotFound"


def asking(name: str | None) -> ProfileSpec:
    first, *others = SPEC.rollout.stages
    stages = (first.model_copy(update={"to_revision": name}), *others)
    return SPEC.model_copy(update={"rollout": SPEC.rollout.model_copy(update={"stages": stages})})


def answer(outcome: AskedOutcome, state: StageStatus = PROMOTED, name: str = "cotune-0000000000") -> StageStatus:
    return answered(state, name, outcome, "Reason", "why", NOW)


@pytest.mark.parametrize(
    ("asked", "state", "is_open"),
    [
        (None, PROMOTED, False),
        ("cotune-0000000000", PROMOTED, True),
        ("cotune-0000000000", answer(AskedOutcome.REFUSED), True),
        ("cotune-0000000000", answer(AskedOutcome.WAITING), True),
        ("cotune-0000000000", answer(AskedOutcome.TAKEN), False),
        ("cotune-0000000000", answer(AskedOutcome.ALREADY_THERE), False),
        ("cotune-0000000001", answer(AskedOutcome.TAKEN), True),
        (None, answer(AskedOutcome.TAKEN), True),
    ],
)
def test_what_was_answered_for_good_is_not_answered_again(asked: str | None, state: StageStatus, is_open: bool) -> None:
    assert bool(unanswered(asking(asked), ProfileStatus(stages=(state,)))) is is_open
    assert not unanswered(asking(asked), ProfileStatus())


def test_an_answer_that_says_the_same_later_is_the_same() -> None:
    first = answer(AskedOutcome.REFUSED)

    again = answered(first, "cotune-0000000000", AskedOutcome.REFUSED, "Reason", "why", NOW + timedelta(hours=1))

    assert again is first
    assert refused([PROMOTED, first]) == first.asked
    assert refused([PROMOTED, answer(AskedOutcome.TAKEN)]) is None


def test_a_way_back_that_begins_has_its_own_deadline_and_no_guard() -> None:
    later = NOW + timedelta(hours=1)

    state = taken_back(PROMOTED.model_copy(update={"finished_at": NOW, "unready_since": NOW}), "why", later)

    assert (state.phase, state.phase_started_at, state.message) == (ProfilePhase.ROLLING_BACK, later, "why")
    assert (state.finished_at, state.unready_since, state.guarded) == (None, None, ())


def test_a_stage_that_was_taken_to_a_revision_starts_anew_only_when_that_is_no_longer_said() -> None:
    spec = asking("cotune-0000000000")
    spec = spec.model_copy(update={"rollout": spec.rollout.model_copy(update={"retries": 3})})
    back = PROMOTED.model_copy(update={"phase": ProfilePhase.ROLLED_BACK})
    status = ProfileStatus(stages=(answer(AskedOutcome.TAKEN, back),))

    assert retried(spec, status) is None
    edited = retry(spec, status).rollout
    assert [it.to_revision for it in edited.stages] == [None, None]
    assert retried(spec.model_copy(update={"rollout": edited}), status) is not None


STAGE: Stage = SPEC.rollout.stages[0]


@pytest.mark.parametrize("wanted", ["0", "cotune-0000000000"])
def test_a_person_names_a_revision_or_its_number(wanted: str) -> None:
    known = [stored(0, SMALL), stored(1, TINY, was_found=False)]

    assert find_revision(SPEC, STAGE, PROMOTED, known, wanted) == known[0]


def test_a_number_that_two_revisions_have_is_no_name() -> None:
    known = [stored(0, SMALL), replace(stored(1, TINY), number=0)]

    with pytest.raises(NotNowError, match="several revisions have the number 0: name one, cotune-0000000000 or"):
        find_revision(SPEC, STAGE, PROMOTED, known, "0")


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (ProfilePhase.PROMOTED, "stage staging is taken to revision"),
        (ProfilePhase.ROLLED_BACK, "stage staging is taken to revision"),
        (ProfilePhase.DEGRADED, "stage staging is taken to revision"),
        (ProfilePhase.PROGRESSING, "stage staging is taken back, and then to revision"),
        (ProfilePhase.BAKING, "stage staging is taken back, and then to revision"),
        (ProfilePhase.ROLLING_BACK, "when it is back"),
    ],
)
def test_asking_writes_one_field_and_says_what_follows(phase: ProfilePhase, said: str) -> None:
    state = PROMOTED.model_copy(update={"phase": phase})

    edit = to_revision(SPEC, STAGE, state, stored(0, SMALL), is_present=False)

    assert edit.rollout == asking("cotune-0000000000").rollout
    assert said in edit.said
    again = asking("cotune-0000000000")
    assert (
        to_revision(again, again.rollout.stages[0], state, stored(0, SMALL), is_present=False).rollout == edit.rollout
    )


def test_the_present_revision_is_left_alone() -> None:
    edit = to_revision(SPEC, STAGE, PROMOTED, stored(0, SMALL), is_present=True)

    assert (edit.rollout, edit.said) == (
        SPEC.rollout,
        "namespace voice-staging has revision cotune-0000000000 (0) already",
    )


def test_a_revision_that_others_have_left_again_is_not_asked_for_by_the_same_word() -> None:
    spec = asking("cotune-0000000000")
    taken = answer(AskedOutcome.TAKEN, PROMOTED.model_copy(update={"phase": ProfilePhase.ROLLED_BACK}))

    with pytest.raises(
        NotNowError, match="went to revision cotune-0000000000 \\(0\\) at 2026-01-01T00:00:00Z, and some"
    ):
        to_revision(spec, spec.rollout.stages[0], taken, stored(0, SMALL), is_present=False)


def test_only_a_stage_that_has_begun_is_taken_anywhere() -> None:
    production = PROMOTED.model_copy(update={"name": "production"})
    both = ProfileStatus(stages=(PROMOTED, production))

    assert begun_stage(SPEC, ProfileStatus(stages=(PROMOTED,)), None) == (STAGE, PROMOTED)
    assert begun_stage(SPEC, both, "production")[1] == production
    for status, name, message in (
        (ProfileStatus(), None, "no stage has begun"),
        (ProfileStatus(stages=(PROMOTED,)), "production", "stage production has not begun"),
        (both, None, "say --stage, staging or production"),
        (both, "nobody", "there is no stage nobody: it has staging, production"),
    ):
        with pytest.raises(NotNowError, match=message):
            begun_stage(SPEC, status, name)
