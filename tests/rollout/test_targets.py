import pytest
from cotune.api.grant import GrantSpec
from cotune.api.profile import ProfileSpec
from cotune.rollout.targets import Refusal, Targets, resolve
from support.resources import manifest

PROFILE = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
GRANT = GrantSpec.model_validate(manifest("GpuTuningGrant")["spec"])


def resolved(*grants: GrantSpec, source: str = "voice-lab") -> Targets | Refusal:
    return resolve(PROFILE, source, "voice-prod", grants)


def changed(**target: object) -> GrantSpec:
    """The grant with its target for stt changed."""
    targets = tuple(it.model_copy(update=target) if it.component == "stt" else it for it in GRANT.targets)
    return GRANT.model_copy(update={"targets": targets})


def test_the_grant_names_the_workload_of_every_component() -> None:
    targets = resolved(GRANT)

    assert isinstance(targets, Targets)
    assert {name: it.workload.name for name, it in targets.by_component.items()} == {
        "judge": "judge",
        "stt": "whisper",
    }


@pytest.mark.parametrize(
    ("grants", "source", "reason"),
    [
        ((), "voice-lab", "NoGrant"),
        ((GRANT,), "somebody-else", "NoGrant"),
        ((GRANT.model_copy(update={"allow": ("CopySpec",)}),), "voice-lab", "NoGrant"),
        ((GRANT.model_copy(update={"targets": GRANT.targets[:1]}),), "voice-lab", "WorkloadNotFound"),
        ((GRANT, changed(container="other")), "voice-lab", "AmbiguousGrant"),
        ((changed(env=()),), "voice-lab", "ChangeNotGranted"),
        ((changed(values=("base", "small")),), "voice-lab", "ChangeNotGranted"),
    ],
)
def test_what_no_grant_allows_is_refused_and_says_why(grants: tuple[GrantSpec, ...], source: str, reason: str) -> None:
    refusal = resolved(*grants, source=source)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert "voice-prod" in refusal.message


def test_several_grants_add_up() -> None:
    first = GRANT.model_copy(update={"targets": GRANT.targets[:1]})
    second = GRANT.model_copy(update={"targets": GRANT.targets[1:]})

    assert isinstance(resolved(first, second), Targets)
    assert isinstance(resolved(changed(values=("base",)), GRANT), Targets)
