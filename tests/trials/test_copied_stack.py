"""What of somebody else's workload may run in a trial, and what of it is lost."""

from typing import Any

import pytest
from cotune.api.experiment import MemoryModel
from cotune.api.grant import GrantSpec
from cotune.trials.copied_stack import (
    CopiedService,
    CopiedStack,
    CopyRefusal,
    differences,
    granted,
    other_values,
    sanitized,
    with_stack,
)
from support.resources import manifest, voice_experiment

PROBE = {"httpGet": {"path": "/health", "port": 9000}}
SHARE = {"limits": {"nvidia.com/gpu": "1"}}
SERVER: dict[str, Any] = {
    "name": "asr",
    "image": "example/whisper@sha256:1",
    "imagePullPolicy": "Always",
    "command": ["python"],
    "args": ["--size=$(ASR_WHISPER_SIZE)"],
    "workingDir": "/srv",
    "ports": [{"name": "http", "containerPort": 9000}],
    "env": [{"name": "ASR_WHISPER_SIZE", "value": "small"}],
    "envFrom": [{"configMapRef": {"name": "settings"}}],
    "resources": {**SHARE, "requests": {"memory": "1Gi"}},
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "startupProbe": PROBE,
    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    "securityContext": {"allowPrivilegeEscalation": False},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "FallbackToLogsOnError",
}
POD: dict[str, Any] = {
    "containers": [SERVER],
    "initContainers": [{"name": "warm", "image": "example/warm:1", "restartPolicy": "Always"}],
    "volumes": [{"name": "cache", "emptyDir": {}}],
    "securityContext": {"runAsNonRoot": True},
    "runtimeClassName": "nvidia",
    "imagePullSecrets": [{"name": "registry"}],
    "terminationGracePeriodSeconds": 5,
    "shareProcessNamespace": True,
    "hostUsers": False,
}
LOST_OF_THE_POD: dict[str, Any] = {
    "serviceAccountName": "owner",
    "automountServiceAccountToken": True,
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
    "hostname": "whisper-0",
    "subdomain": "whisper",
    "setHostnameAsFQDN": True,
    "nodeName": "production-1",
    "nodeSelector": {"pool": "production"},
    "affinity": {"podAntiAffinity": {}},
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "priorityClassName": "system-node-critical",
    "priority": 2_000_000_000,
    "preemptionPolicy": "PreemptLowerPriority",
    "overhead": {"cpu": "1"},
    "readinessGates": [{"conditionType": "example.com/in-rotation"}],
    "schedulingGates": [{"name": "example.com/wait"}],
    "activeDeadlineSeconds": 5,
    "dnsConfig": {"nameservers": ["10.0.0.1"]},
    "enableServiceLinks": True,
    "resourceClaims": [{"name": "card", "resourceClaimName": "production-card"}],
    "ephemeralContainers": [{"name": "shell"}],
    "aFieldOfTomorrow": {"grants": "everything"},
}
LOST_OF_THE_CONTAINER: dict[str, Any] = {
    "volumeDevices": [{"name": "disk", "devicePath": "/dev/sdb"}],
    "stdin": True,
    "tty": True,
    "aFieldOfTomorrow": True,
}
LOST_VOLUMES: dict[str, Any] = {
    "persistentVolumeClaim": {"claimName": "models"},
    "ephemeral": {"volumeClaimTemplate": {}},
    "hostPath": {"path": "/"},
    "csi": {"driver": "secrets-store.csi.k8s.io"},
    "nfs": {"server": "files", "path": "/"},
    "aVolumeOfTomorrow": {},
}
KEPT_VOLUMES: dict[str, Any] = {
    "emptyDir": {"medium": "Memory"},
    "configMap": {"name": "settings"},
    "secret": {"secretName": "settings"},
    "downwardAPI": {"items": []},
    "image": {"reference": "example/models:1"},
    "projected": {"sources": [{"configMap": {"name": "settings"}}]},
}
ENV = frozenset({"ASR_WHISPER_SIZE"})


def copied(spec: dict[str, Any], metadata: dict[str, Any] | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    found = sanitized({"metadata": metadata or {}, "spec": spec}, "asr", ENV)
    assert found.template.keys() == {"spec"}
    return found.template["spec"], found.lost


def test_what_decides_how_a_service_computes_is_copied_and_nothing_is_said_to_be_lost() -> None:
    assert copied(POD) == (POD, ())


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_labels_and_annotations_are_lost(field: str) -> None:
    assert copied(POD, {field: {"inject": "sidecar"}}) == (POD, (f"metadata.{field}",))


@pytest.mark.parametrize("field", LOST_OF_THE_POD)
def test_rights_and_places_of_a_pod_are_lost(field: str) -> None:
    assert copied(POD | {field: LOST_OF_THE_POD[field]}) == (POD, (f"spec.{field}",))


@pytest.mark.parametrize("field", ["dnsPolicy", "restartPolicy", "schedulerName", "serviceAccount"])
def test_what_the_api_server_writes_into_every_template_is_lost_without_a_word(field: str) -> None:
    assert copied(POD | {field: "default"}) == (POD, ())


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("field", LOST_OF_THE_CONTAINER)
def test_devices_and_unknown_fields_of_containers_are_lost(kind: str, field: str) -> None:
    first = POD[kind][0]

    found = copied(POD | {kind: [first | {field: LOST_OF_THE_CONTAINER[field]}]})

    assert found == (POD, (f"spec.{kind}[{first['name']}].{field}",))


@pytest.mark.parametrize("field", ["hostPort", "hostIP"])
def test_ports_of_the_node_are_lost(field: str) -> None:
    port = SERVER["ports"][0]

    found = copied(POD | {"containers": [SERVER | {"ports": [port | {field: 80}]}]})

    assert found == (POD, (f"spec.containers[asr].ports.{field}",))


def test_claims_of_devices_are_lost() -> None:
    resources = SERVER["resources"] | {"claims": [{"name": "card"}]}

    found = copied(POD | {"containers": [SERVER | {"resources": resources}]})

    assert found == (POD, ("spec.containers[asr].resources.claims",))


@pytest.mark.parametrize("kind", LOST_VOLUMES)
def test_an_empty_directory_takes_the_place_of_a_volume_that_is_a_claim_or_the_nodes(kind: str) -> None:
    spec, lost = copied(POD | {"volumes": [{"name": "cache", kind: LOST_VOLUMES[kind]}]})

    assert (spec, lost) == (POD, (f"spec.volumes[cache].{kind}",))


@pytest.mark.parametrize("kind", KEPT_VOLUMES)
def test_volumes_that_hold_no_claim_are_kept(kind: str) -> None:
    volumes = [{"name": "cache", kind: KEPT_VOLUMES[kind]}]

    spec, lost = copied(POD | {"volumes": volumes})

    assert (spec["volumes"], lost) == (volumes, ())


@pytest.mark.parametrize("source", ["serviceAccountToken", "podCertificate", "clusterTrustBundle"])
def test_an_identity_that_is_projected_into_a_volume_is_lost(source: str) -> None:
    settings = {"configMap": {"name": "settings"}}

    both, lost = copied(POD | {"volumes": [{"name": "cache", "projected": {"sources": [settings, {source: {}}]}}]})
    alone, _ = copied(POD | {"volumes": [{"name": "cache", "projected": {"sources": [{source: {}}]}}]})

    assert both["volumes"] == [{"name": "cache", "projected": {"sources": [settings]}}]
    assert lost == (f"spec.volumes[cache].projected.{source}",)
    assert alone == POD


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_literal_variables_are_lost_unless_they_are_granted(kind: str) -> None:
    source = {"secretKeyRef": {"name": "hub", "key": "token"}}
    granted_and_referred = [{"name": "ASR_WHISPER_SIZE", "value": "small"}, {"name": "HUB", "valueFrom": source}]
    first = POD[kind][0]
    env = [*granted_and_referred, {"name": "TOKEN", "value": "secret"}, {"name": "EMPTY"}]

    spec, lost = copied(POD | {kind: [first | {"env": env}]})

    assert spec[kind] == [first | {"env": granted_and_referred}]
    assert lost == tuple(f"spec.{kind}[{first['name']}].env[{it}]" for it in ("TOKEN", "EMPTY"))


def test_the_container_that_serves_comes_first_and_must_be_there() -> None:
    sidecar = {"name": "sidecar", "image": "example/sidecar:1"}

    spec, _ = copied(POD | {"containers": [sidecar, SERVER]})

    assert [it["name"] for it in spec["containers"]] == ["asr", "sidecar"]
    with pytest.raises(LookupError, match="no container asr"):
        sanitized({"spec": {"containers": [sidecar]}}, "asr", ENV)


def grant(**changes: Any) -> GrantSpec:
    return GrantSpec.model_validate(manifest("GpuTuningGrant")["spec"] | changes)


def target(component: str, workload: str = "", **more: Any) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload or component}
    return {"component": component, "workloadRef": reference, "container": "main", **more}


def names(*grants: GrantSpec) -> tuple[str, ...] | str:
    found = granted(grants, "voice-lab", "voice-prod", ["judge", "stt"])
    return found.reason if isinstance(found, CopyRefusal) else tuple(it.component for it in found)


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ([], "NoGrant"),
        ([grant(allow=["Rollout"])], "NoGrant"),
        ([grant(**{"from": [{"namespace": "elsewhere"}]})], "NoGrant"),
        ([grant()], ("stt", "judge")),
        ([grant(targets=[target("stt")])], "WorkloadNotFound"),
        ([grant(targets=[target("stt")]), grant(targets=[target("judge")])], ("stt", "judge")),
        ([grant(targets=[target("judge"), target("embeddings"), target("stt")])], ("judge", "embeddings", "stt")),
        ([grant(targets=[target("judge"), target("stt")]), grant(targets=[target("stt", "other")])], "AmbiguousGrant"),
        ([grant(targets=[target("judge"), target("stt"), *(target(f"s{it}") for it in range(14))])], None),
        ([grant(targets=[target("judge"), target("stt"), *(target(f"s{it}") for it in range(15))])], "StackTooLarge"),
    ],
)
def test_only_what_a_grant_with_copy_spec_names_is_copied(grants: list[GrantSpec], expected: Any) -> None:
    found = names(*grants)

    assert found == expected if expected is not None else len(found) == 16


def test_what_several_grants_say_of_a_workload_adds_up() -> None:
    first = grant(targets=[target("judge"), target("stt", env=["SIZE"], memoryMiB=500)])
    second = grant(targets=[target("stt", copyEnv=["SCALE"], memoryMiB=900)])

    found = granted([first, second], "voice-lab", "voice-prod", ["judge", "stt"])

    assert not isinstance(found, CopyRefusal)
    assert (set(found[1].copy_env), found[1].memory_mib) == ({"SIZE", "SCALE"}, 500)


def service(
    component: str, memory_mib: int | None = None, shares: bool = True, env: dict[str, str] | None = None
) -> CopiedService:
    container: dict[str, Any] = {"name": "main", "image": f"example/{component}:1", "ports": [{"containerPort": 7000}]}
    container["env"] = [{"name": name, "value": value} for name, value in (env or {}).items()]
    if shares:
        container["resources"] = SHARE
    return CopiedService(component, component, {"spec": {"containers": [container]}}, (), memory_mib)


STACK = CopiedStack(
    "voice-prod",
    (service("stt"), service("embeddings", 1200), service("judge"), service("chat"), service("proxy", shares=False)),
)


def test_what_else_runs_there_starts_first_one_after_the_other() -> None:
    run = with_stack(voice_experiment(), STACK)

    assert [(it.name, it.depends_on) for it in run.stack.components] == [
        ("embeddings", ()),
        ("chat", ("embeddings",)),
        ("proxy", ("embeddings", "chat")),
        ("judge", ("embeddings", "chat", "proxy")),
        ("stt", ("embeddings", "chat", "proxy", "judge")),
    ]
    images = [it.template["spec"]["containers"][0]["image"] for it in run.stack.components]
    assert images == [f"example/{it.name}:1" for it in run.stack.components]
    assert run.loaded_components == ("judge", "stt")
    assert STACK.beside(["judge", "stt"]) == ("embeddings", "chat", "proxy")


def test_the_experiments_own_components_keep_their_protocols_ports_and_memory() -> None:
    spec = planned()

    own = with_stack(spec, STACK).stack.components[-2:]

    for before, after in zip(spec.stack.components, own, strict=True):
        assert (after.protocol, after.port, after.memory) == (before.protocol, before.port, before.memory)


def planned() -> Any:
    spec = voice_experiment()
    memory = {"model": "Whisper", "sizeEnv": "ASR_WHISPER_SIZE"}
    body = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    body["stack"]["components"][1]["memory"] = memory
    return type(spec).model_validate(body)


def test_what_else_runs_there_is_planned_as_its_owner_says_or_learned() -> None:
    memories = {it.name: it.memory for it in with_stack(planned(), STACK).stack.components}

    assert memories["embeddings"] is not None
    assert (memories["embeddings"].model, memories["embeddings"].memory_mib) == (MemoryModel.DECLARED, 1200)
    assert memories["chat"] is not None
    assert memories["chat"].model is MemoryModel.LEARNED
    assert memories["proxy"] is None, "it has no share of a card"


def test_nothing_is_planned_beside_components_of_which_nothing_is_known() -> None:
    assert all(it.memory is None for it in with_stack(voice_experiment(), STACK).stack.components)


def test_a_copy_is_named_by_all_that_is_in_it_and_read_as_it_was_written() -> None:
    others = [
        CopiedStack("voice-staging", STACK.services),
        CopiedStack("voice-prod", STACK.services[:-1]),
        CopiedStack("voice-prod", (*STACK.services[:-1], service("proxy", 7, shares=False))),
    ]

    assert CopiedStack.read(STACK.data()) == STACK
    assert len({it.name("voice") for it in (STACK, *others)}) == 4
    assert STACK.name("voice").startswith("voice-stack-")


def test_what_has_changed_between_two_copies_is_told_by_component() -> None:
    now = CopiedStack("voice-prod", (service("judge", env={"SIZE": "7B"}), service("stt"), service("tts")))

    assert differences(STACK, now) == (
        "embeddings runs no more",
        "chat runs no more",
        "proxy runs no more",
        "tts is new",
        "judge is not what it was",
    )
    assert differences(STACK, STACK) == ()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, ()),
        ({"JUDGE_MEMORY": "0.5"}, ()),
        ({"JUDGE_MEMORY": "0.55"}, ("judge has JUDGE_MEMORY=0.55 there, and the baseline is 0.50",)),
    ],
)
def test_a_value_there_that_is_not_the_baseline_is_told(env: dict[str, str], told: tuple[str, ...]) -> None:
    stack = CopiedStack("voice-prod", (service("stt"), service("judge", env=env)))

    assert other_values(voice_experiment(), stack) == told
