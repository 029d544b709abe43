from typing import Any

from cotune.api.experiment import Constraint, ExperimentSpec
from cotune.api.workload import Arrivals, ArrivalType, FileRef
from cotune.measurement.contract import ProbeConfiguration
from cotune.trials.probe_pod import ProbeImage, probe_pod
from cotune.trials.render import TrialIdentity, component_service
from support.resources import voice_experiment

SPEC = voice_experiment()
IMAGE = ProbeImage("example/probe:1", "IfNotPresent")


def identity(name: str = "voice-7f3a0000-0") -> TrialIdentity:
    return TrialIdentity("voice-lab", name, "uid-1", "voice")


def configured(pod: dict[str, Any]) -> ProbeConfiguration:
    (variable,) = pod["spec"]["containers"][0]["env"]
    assert variable["name"] == "COTUNE_PROBE"
    return ProbeConfiguration.model_validate_json(variable["value"])


def test_the_probe_loads_every_component_where_its_service_answers() -> None:
    configuration = configured(probe_pod(identity(), SPEC, "lab", IMAGE))

    services = {it.name: component_service(identity(), it) for it in SPEC.stack.components}
    assert {it.component for it in configuration.streams} == set(services)
    for stream in configuration.streams:
        service = services[stream.component]
        assert (stream.host, stream.port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])


def test_all_candidates_of_an_experiment_meet_the_same_arrivals() -> None:
    first, second = (configured(probe_pod(identity(it), SPEC, "lab", IMAGE)) for it in ("voice-a-0", "voice-b-0"))

    assert first.seed == second.seed


def test_the_corpus_is_mounted_where_the_configuration_says() -> None:
    pod = probe_pod(identity(), SPEC, "lab", IMAGE)

    (speech,) = [it.corpus for it in configured(pod).streams if it.corpus]
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == speech
    assert pod["spec"]["volumes"] == [{"name": mount["name"], "configMap": {"name": "speech"}}]


def test_the_probe_holds_a_share_of_the_card_and_none_without_one() -> None:
    on_card = probe_pod(identity(), SPEC, "lab", IMAGE)
    on_cpu = probe_pod(identity(), SPEC.model_copy(update={"gpu": None}), "lab", IMAGE)

    assert on_card["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert on_cpu["spec"]["containers"][0]["resources"]["limits"] == {}
    assert not configured(on_cpu).gpu


def test_the_probe_is_ready_when_the_card_is_drained_and_may_run_under_pod_security_restricted() -> None:
    pod = probe_pod(identity(), SPEC, "lab", IMAGE)
    container = pod["spec"]["containers"][0]

    assert container["readinessProbe"]["httpGet"] == {"path": "/drained", "port": 8080}
    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not pod["spec"]["automountServiceAccountToken"]


def test_the_same_experiment_gives_the_same_pod_to_the_byte() -> None:
    again = ExperimentSpec.model_validate(SPEC.model_dump(by_alias=True))

    assert probe_pod(identity(), SPEC, "lab", IMAGE) == probe_pod(identity(), again, "lab", IMAGE)


def test_the_largest_allocation_is_tried_only_where_a_constraint_names_it() -> None:
    asked = SPEC.model_copy(update={"constraints": (Constraint(metric="gpu.largestAllocMiB", min="512"),)})
    pod = probe_pod(identity(), asked, "lab", IMAGE)

    probe, driver = pod["spec"]["containers"][0]["env"]
    assert ProbeConfiguration.model_validate_json(probe["value"]).largest_allocation
    assert driver == {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"}
    assert not configured(probe_pod(identity(), SPEC, "lab", IMAGE)).largest_allocation


def test_a_trace_and_a_dataset_are_mounted_where_the_configuration_says() -> None:
    trace, prompts = FileRef(config_map="traces", key="monday.jsonl"), FileRef(config_map="prompts", key="all.jsonl")
    speech, judge = SPEC.workload.streams
    streams = (
        speech,
        judge.model_copy(
            update={"arrivals": Arrivals(type=ArrivalType.TRACE, trace_ref=trace), "dataset_ref": prompts}
        ),
    )
    spec = SPEC.model_copy(update={"workload": SPEC.workload.model_copy(update={"streams": streams})})
    pod = probe_pod(identity(), spec, "lab", IMAGE)

    mounts = {it["name"]: it["mountPath"] for it in pod["spec"]["containers"][0]["volumeMounts"]}
    folders = {it["configMap"]["name"]: mounts[it["name"]] for it in pod["spec"]["volumes"]}
    loaded = configured(pod).streams[1]
    assert set(folders) == {"speech", "traces", "prompts"}
    assert (loaded.trace, loaded.dataset) == (f"{folders['traces']}/monday.jsonl", f"{folders['prompts']}/all.jsonl")


def test_on_a_card_of_its_own_the_service_has_the_only_share_and_the_probe_watches() -> None:
    (container,) = probe_pod(identity(), SPEC, "lab", IMAGE, is_exclusive=True)["spec"]["containers"]

    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert "nvidia.com/gpu" not in container["resources"]["requests"]
    variables = {it["name"]: it["value"] for it in container["env"]}
    assert (variables["NVIDIA_VISIBLE_DEVICES"], variables["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "utility")
    assert ProbeConfiguration.model_validate_json(variables["COTUNE_PROBE"]).gpu
