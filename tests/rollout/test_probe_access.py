"""Whether grants let a probe load a stage's services."""

from typing import Any

import pytest
from cotune.api.grant import GrantService, GrantSpec
from cotune.rollout.probe_access import services
from cotune.rollout.targets import Refusal
from rollout.probed_stage import probe_of, probed_stage
from support.resources import manifest

PROBE = probe_of(probed_stage())
"""Sends 2 + 1.5 requests a second."""


def grant(rate: str | None = "3.5", whisper: str | None = "whisper", judge: str | None = "judge") -> GrantSpec:
    """A grant from voice-lab with services and a limit; without a limit it does not allow Probe."""
    spec: dict[str, Any] = manifest("GpuTuningGrant")["spec"]
    for target, name in zip(spec["targets"], (whisper, judge), strict=True):
        target |= {"service": {"name": name, "port": 8000}} if name is not None else {}
    spec |= {"allow": ["Rollout", "Probe"], "probe": {"maxRatePerSecond": rate}} if rate is not None else {}
    return GrantSpec.model_validate(spec)


def test_the_services_are_those_of_the_grant() -> None:
    assert services(PROBE, "voice-lab", "voice-prod", [grant()]) == {
        "stt": GrantService(name="whisper", port=8000),
        "judge": GrantService(name="judge", port=8000),
    }


@pytest.mark.parametrize(
    ("grants", "source", "words"),
    [
        ([], "voice-lab", "no GpuTuningGrant in namespace voice-prod allows Probe from voice-lab"),
        ([grant(rate=None)], "voice-lab", "allows Probe from voice-lab"),
        ([grant()], "elsewhere", "allows Probe from elsewhere"),
        ([grant("3.4")], "voice-lab", "lets a probe send 3.4 requests a second, and the stage's sends 3.5"),
        # The limit of each that invites holds.
        ([grant("9"), grant("1", None, None)], "voice-lab", "lets a probe send 1 requests a second"),
        ([grant(judge=None)], "voice-lab", "name no service that a probe may load for judge"),
        # One that does not allow Probe names nothing for it.
        ([grant(judge=None), grant(rate=None)], "voice-lab", "name no service that a probe may load for judge"),
        ([grant(), grant(whisper="other")], "voice-lab", "name several services that a probe may load for stt"),
    ],
)
def test_what_no_grant_allows_is_refused_and_says_why(grants: list[GrantSpec], source: str, words: str) -> None:
    refusal = services(PROBE, source, "voice-prod", grants)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "ProbeNotGranted"
    assert words in refusal.message


def test_several_grants_may_name_the_services_between_them() -> None:
    found = services(PROBE, "voice-lab", "voice-prod", [grant(judge=None), grant(whisper=None), grant()])

    assert not isinstance(found, Refusal)
    assert set(found) == {"stt", "judge"}
