"""The pod of a stage's probe: where it sends what, and what it may not do."""

from typing import Any

from cotune.api.grant import GrantService
from cotune.api.stage_probe import StageProbe
from cotune.measurement.contract import ProbeConfiguration
from cotune.trials.probe_pod import ProbeImage
from cotune.trials.stage_probe_pod import StageIdentity, run_deadline_seconds, stage_probe_pod
from support.probed_stages import PROBE

SPEC = StageProbe.model_validate(PROBE)
SERVICES = {"stt": GrantService(name="whisper", port=9000), "judge": GrantService(name="vllm", port=80)}
STAGE = StageIdentity("voice-lab", "voice-5f3c9a", "uid-1", "production", "voice-prod", 0)


def pod(stage: StageIdentity = STAGE, number: int = 1, seed_number: int = 0) -> dict[str, Any]:
    return stage_probe_pod(stage, SPEC, SERVICES, ProbeImage("example/probe:1", "Always"), number, seed_number)


def configured(made: dict[str, Any]) -> ProbeConfiguration:
    (variable,) = made["spec"]["containers"][0]["env"]
    return ProbeConfiguration.model_validate_json(variable["value"])


def test_it_sends_to_the_services_of_the_stages_namespace_and_no_faster_than_it_says() -> None:
    found = configured(pod())

    assert [(it.component, it.host, it.port) for it in found.streams] == [
        ("stt", "whisper.voice-prod.svc", 9000),
        ("judge", "vllm.voice-prod.svc", 80),
    ]
    assert [it.arrivals.rate_per_second for it in found.streams] == ["2", "1.5"]
    assert found.paces_first_requests


def test_it_has_no_share_of_a_card_no_token_and_no_node_of_its_own() -> None:
    spec = pod()["spec"]

    assert not configured(pod()).gpu
    assert spec["containers"][0]["resources"]["limits"] == {}
    assert spec["automountServiceAccountToken"] is False
    assert not {"nodeName", "affinity", "tolerations", "hostNetwork", "priorityClassName"} & spec.keys()
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_it_lies_in_the_profiles_namespace_goes_with_the_profile_and_ends_without_anybody() -> None:
    made = pod()

    assert made["metadata"]["namespace"] == "voice-lab"
    assert [(it["kind"], it["uid"]) for it in made["metadata"]["ownerReferences"]] == [("GpuProfile", "uid-1")]
    assert made["spec"]["activeDeadlineSeconds"] == run_deadline_seconds(SPEC)
    assert made["spec"]["activeDeadlineSeconds"] > SPEC.load_seconds
    assert made["spec"]["restartPolicy"] == "Never"


def test_each_run_of_each_attempt_has_a_name_of_its_own_that_is_always_the_same() -> None:
    long = StageIdentity("voice-lab", "a." * 120 + "z", "uid-2", "b" * 63, "voice-prod", 1)
    other = StageIdentity("voice-lab", "voice-5f3c9a", "uid-3", "production", "voice-prod", 0)
    names = {STAGE.pod_name(1), STAGE.pod_name(2), other.pod_name(1), long.pod_name(1)}
    retried = StageIdentity("voice-lab", "voice-5f3c9a", "uid-1", "production", "voice-prod", 1)

    assert len(names | {retried.pod_name(1)}) == 5
    assert pod() == pod()
    assert all(len(it) <= 63 and ".-" not in it for it in names)
    assert all(len(it) <= 63 for it in pod(long)["metadata"]["labels"].values())


def test_a_run_of_the_baseline_and_that_of_the_stage_meet_the_same_arrivals_and_the_next_one_others() -> None:
    baseline, first, second = pod(number=1), pod(number=4), pod(number=5, seed_number=1)

    assert configured(baseline).seed == configured(first).seed
    assert configured(first).seed != configured(second).seed
