"""Which Deployments of a namespace are one stack, and which grants mean them."""

from collections.abc import Sequence

import pytest
from cotune.api.grant import GrantSpec
from cotune.api.profile import ProfileSpec
from cotune.cluster.revisions import as_stored
from cotune.rollout.stacks import LabelledWorkload, spread
from cotune.rollout.state import Revision, StoredRevision, WorkloadRevision
from cotune.rollout.targets import Refusal, Targets, ignored_by_git_ops, not_granted, resolve, still_granted
from support.resources import manifest

PROFILE = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
GRANT = GrantSpec.model_validate(
    {
        "from": [{"namespace": "voice-lab"}],
        "allow": ["Rollout"],
        "stackLabel": "stack",
        "targets": [
            {
                "component": component,
                "workloadSelector": {"apiVersion": "apps/v1", "kind": "Deployment", "matchLabels": {"part": component}},
                "container": "main",
                "env": ["ASR_WHISPER_SIZE"] if component == "stt" else [],
            }
            for component in ("stt", "judge")
        ],
    }
)
NAMED = GrantSpec.model_validate(manifest("GpuTuningGrant")["spec"])


def workload(component: str, stack: str | None, name: str = "") -> LabelledWorkload:
    labels = {"part": component} if stack is None else {"part": component, "stack": stack}
    return LabelledWorkload(name or f"{component}-{stack}", labels)


def stacks(*names: str) -> list[LabelledWorkload]:
    return [workload(component, it) for it in names for component in ("judge", "stt")]


def resolved(workloads: Sequence[LabelledWorkload], *more: GrantSpec) -> Targets | Refusal:
    return resolve(PROFILE, "voice-lab", "voice-prod", [GRANT, *more], workloads)


def begun(*names: str) -> Targets:
    found = resolved(stacks(*names))
    assert isinstance(found, Targets)
    return found


def still(workloads: Sequence[LabelledWorkload], grant: GrantSpec = GRANT) -> Targets | Refusal:
    return still_granted(PROFILE, "voice-lab", "voice-prod", [grant], workloads, begun("a", "b").by_component)


def test_each_stack_has_one_workload_of_each_component_in_the_order_of_the_start() -> None:
    targets = resolved(stacks("b", "a"))

    assert isinstance(targets, Targets)
    assert {name: it.workload.name for name, it in targets.by_component.items()} == {
        "a/judge": "judge-a",
        "a/stt": "stt-a",
        "b/judge": "judge-b",
        "b/stt": "stt-b",
    }
    assert list(targets.by_component) == ["a/judge", "a/stt", "b/judge", "b/stt"]
    assert targets.stacks == ("a", "b")


@pytest.mark.parametrize(
    ("workloads", "reason", "message"),
    [
        ([], "WorkloadNotFound", "no Deployment that the grant's workloadSelectors match"),
        ([*stacks("a"), workload("judge", "b")], "StackIncomplete", "stack b has no Deployment of stt"),
        (
            [*stacks("a", "b"), workload("stt", "b", "stt-2")],
            "StackAmbiguous",
            "stack b has 2 Deployments of stt: stt-2, stt-b",
        ),
        ([*stacks("a"), workload("stt", None, "stt-x")], "StackIncomplete", "Deployment stt-x is selected and lacks"),
        ([*stacks("a"), workload("stt", "", "stt-x")], "StackIncomplete", "Deployment stt-x is selected and lacks"),
        (stacks(*(f"s{it:02}" for it in range(65))), "TooManyStacks", "65 stacks of 2 workloads"),
    ],
)
def test_stacks_that_are_not_whole_are_refused_by_name(
    workloads: Sequence[LabelledWorkload], reason: str, message: str
) -> None:
    refusal = resolved(workloads)

    assert isinstance(refusal, Refusal)
    assert (refusal.reason, message in refusal.message) == (reason, True), refusal.message


def test_one_grant_names_and_another_one_selects_is_ambiguous() -> None:
    refusal = resolved(stacks("a"), NAMED)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "AmbiguousGrant"


def test_a_change_must_be_granted_in_every_stack() -> None:
    targets = tuple(it.model_copy(update={"env": ()}) for it in GRANT.targets)
    refusal = resolve(
        PROFILE, "voice-lab", "voice-prod", [GRANT.model_copy(update={"targets": targets})], stacks("a", "b")
    )

    assert refusal == Refusal(
        "ChangeNotGranted", "no grant in namespace voice-prod lets a/stt have ASR_WHISPER_SIZE=tiny"
    )


def test_a_stack_that_appears_is_left_alone_and_one_that_is_gone_is_waited_for() -> None:
    appeared = still([*stacks("a", "b", "c"), workload("judge", "half")])
    gone = still(stacks("a"))

    assert isinstance(appeared, Targets)
    assert appeared.appeared == ("c", "half")
    assert appeared.by_component == begun("a", "b").by_component
    assert isinstance(gone, Targets)


@pytest.mark.parametrize(
    ("workloads", "grant", "reason"),
    [
        (stacks("a", "b"), GRANT.model_copy(update={"stack_label": "other"}), "WorkloadNotFound"),
        (
            [*stacks("a"), workload("judge", "b"), workload("stt", "c", "stt-b")],
            GRANT,
            "WorkloadNotFound",
        ),
        (stacks("a", "b"), NAMED, "WorkloadNotFound"),
        (stacks("a", "b"), GRANT.model_copy(update={"allow": ()}), "NoGrant"),
        (
            stacks("a", "b"),
            GRANT.model_copy(update={"targets": tuple(it.model_copy(update={"env": ()}) for it in GRANT.targets)}),
            "ChangeNotGranted",
        ),
    ],
)
def test_a_stage_in_the_middle_is_let_on_only_as_long_as_the_grant_means_its_stacks(
    workloads: Sequence[LabelledWorkload], grant: GrantSpec, reason: str
) -> None:
    refusal = still(workloads, grant)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason


def test_a_stored_revision_of_stacks_is_held_against_what_is_selected_today() -> None:
    targets = begun("a", "b").by_component
    stored = StoredRevision("cotune-0", 0, Revision(()), dict.fromkeys(targets), targets, was_found=True)
    ignoring = GRANT.model_copy(
        update={"targets": tuple(it.model_copy(update={"ignored_by_git_ops": True}) for it in GRANT.targets[:1])}
    )

    assert not_granted(stored, "voice-lab", "voice-prod", [GRANT], stacks("a", "b")) is None
    assert ignored_by_git_ops(stored, "voice-lab", [ignoring], stacks("a")) == {"a/stt"}


def test_a_stored_workload_of_the_only_stack_says_nothing_of_a_stack() -> None:
    """Its content, and so the revision's name, is what it was before there were several."""
    named = {it.component: it for it in NAMED.targets}
    of_one = as_stored(Revision((WorkloadRevision("stt", {"SIZE": "tiny"}, 1),)), named, None)
    targets = begun("a", "b").by_component
    revision = Revision(tuple(WorkloadRevision(it, {"SIZE": "tiny"}, 1) for it in targets))
    of_two = as_stored(revision, targets, {it: f"cotune-{n}" for n, it in enumerate(targets)})

    assert of_one.name == "cotune-a2471d2cc1"
    assert of_two.revision == revision
    assert {name: it.workload.name for name, it in of_two.targets.items()} == {
        name: it.workload.name for name, it in targets.items()
    }
    assert of_two.markers["b/stt"] == "cotune-3"


def test_the_profile_of_several_stacks_has_each_component_once_for_each() -> None:
    assert spread(PROFILE, ()) is PROFILE

    of_two = spread(PROFILE, ("a", "b"))

    assert of_two.start_order == ("a/judge", "a/stt", "b/judge", "b/stt")
    assert [(it.component, it.to) for it in of_two.changes] == [("a/stt", "tiny"), ("b/stt", "tiny")]
