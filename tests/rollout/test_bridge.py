"""What a bridge is made of, and what cannot have one."""

import copy
from typing import Any

import pytest
from cotune.rollout.bridge import LABEL_BRIDGE, bridge_id, bridge_name, bridge_of, claims_of, not_surgeable

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def deployment(name: str = "whisper", **pod: Any) -> dict[str, Any]:
    env = [{"name": "OTHER", "value": "1"}, {"name": "SIZE", "value": "small"}]
    container = {"name": "asr", "image": "x", "env": env}
    return {
        "metadata": {"name": name, "namespace": "prod", "uid": "u", "labels": {"argocd.argoproj.io/instance": "voice"}},
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "tier": "gpu"}, "annotations": {"owner/note": "mine"}},
                "spec": {"containers": [container]} | pod,
            },
        },
    }


def made(original: dict[str, Any], **otherwise: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "values": {"SIZE": "tiny", "NEW": "2", "UNSET": None},
        "annotations": {"cotune.dev/revision": "cotune-1"},
        "bridge": "b",
        "stack": [{"app": "whisper"}, {"app": "judge"}],
        "neighbours": {"staging", "lab"},
    }
    return bridge_of(original, "asr", **(arguments | otherwise))


def test_it_is_the_original_with_the_new_values_and_one_more_label() -> None:
    original = deployment()
    before = copy.deepcopy(original)

    bridge = made(original)

    assert original == before
    template = bridge["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "whisper", "tier": "gpu", LABEL_BRIDGE: "b"}
    assert template["metadata"]["annotations"] == {"owner/note": "mine", "cotune.dev/revision": "cotune-1"}
    assert template["spec"]["containers"][0]["env"] == [
        {"name": "OTHER", "value": "1"},
        {"name": "SIZE", "value": "tiny"},
        {"name": "NEW", "value": "2"},
    ]
    assert bridge["spec"]["replicas"] == 2
    assert bridge["spec"]["selector"] == {"matchLabels": {"app": "whisper", LABEL_BRIDGE: "b"}}
    assert bridge["metadata"]["labels"] == {LABEL_BRIDGE: "b"}
    assert bridge["metadata"]["ownerReferences"] == [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper", "uid": "u"}
    ]


def test_a_source_of_a_variable_gives_way_to_the_value() -> None:
    original = deployment()
    original["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}
    ]

    assert made(original)["spec"]["template"]["spec"]["containers"][0]["env"][0] == {"name": "SIZE", "value": "tiny"}


def test_it_is_on_one_node_and_on_none_of_the_stack_or_of_other_namespaces() -> None:
    own: dict[str, Any] = {
        "podAntiAffinity": {REQUIRED: [{"topologyKey": "zone", "labelSelector": {}}]},
        "nodeAffinity": {"x": 1},
    }

    affinity = made(deployment(affinity=own))["spec"]["template"]["spec"]["affinity"]

    assert affinity["nodeAffinity"] == {"x": 1}
    kept, *apart = affinity["podAntiAffinity"][REQUIRED]
    assert kept == {"topologyKey": "zone", "labelSelector": {}}
    assert {it["topologyKey"] for it in apart} == {"kubernetes.io/hostname"}
    assert [it["labelSelector"].get("matchLabels") for it in apart] == [{"app": "whisper"}, {"app": "judge"}, None]
    is_no_bridge = {"key": LABEL_BRIDGE, "operator": "DoesNotExist"}
    assert [it["labelSelector"].get("matchExpressions") for it in apart] == [[is_no_bridge], [is_no_bridge], None]
    assert apart[2]["namespaces"] == ["lab", "staging"]
    assert affinity["podAffinity"][REQUIRED] == [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {LABEL_BRIDGE: "b"}}}
    ]


def test_without_neighbours_no_term_means_all_pods() -> None:
    affinity = made(deployment(), neighbours=set())["spec"]["template"]["spec"]["affinity"]

    assert all(it["labelSelector"] for it in affinity["podAntiAffinity"][REQUIRED])


def test_it_evicts_nobody() -> None:
    pod = made(deployment(priorityClassName="production", priority=1000))["spec"]["template"]["spec"]

    assert not {"priorityClassName", "priority", "preemptionPolicy"} & pod.keys()


def test_its_name_is_the_same_every_time_and_no_other_workloads() -> None:
    bridge = bridge_id("uid", "production")

    assert bridge == bridge_id("uid", "production") != bridge_id("uid", "staging")
    long = "a-very-long-name-of-a-workload-that-goes-on"
    names = {bridge_name(it, bridge) for it in ("whisper", f"{long}-1", f"{long}-2", "x.y")}
    assert len(names) == 4
    assert max(map(len, names)) <= 46
    assert not any("." in it for it in names)


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ({"nodeName": "gpu-1"}, "names its node, gpu-1"),
        ({"nodeSelector": {"kubernetes.io/hostname": "gpu-1"}}, "selects its node by kubernetes.io/hostname"),
        ({"hostNetwork": True}, "has hostNetwork"),
        ({"containers": [{"name": "asr", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "has a hostPort"),
        ({"volumes": [{"name": "m", "hostPath": {"path": "/models"}}]}, "mounts a folder of its node, /models"),
        (
            {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "own"}}]},
            "mounts the PersistentVolumeClaim own (ReadWriteOnce), which one node may have",
        ),
        (
            {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "unknown"}}]},
            "mounts the PersistentVolumeClaim unknown, whose access modes are not known",
        ),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimName": "card"}]}, "uses the ResourceClaim card"),
    ],
)
def test_what_ties_a_pod_to_its_node_is_said(pod: dict[str, Any], said: str) -> None:
    found = not_surgeable({"stt": deployment(**pod)}, {"own": ["ReadWriteOnce"], "unknown": None}, {})

    assert found.startswith(f"stt: Deployment whisper {said}")


def test_what_many_nodes_may_have_ties_nobody() -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "many"}},
        {"name": "b", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "x"}},
    ]
    pod = deployment(volumes=volumes, nodeSelector={"gpu": "a"}, resourceClaims=[{"resourceClaimTemplateName": "t"}])

    assert claims_of(pod) == ["many"]
    assert not not_surgeable({"stt": pod}, {"many": ["ReadOnlyMany", "ReadWriteOnce"]}, {"stt": {"gpu-1"}})


def test_a_stack_on_several_cards_has_no_bridge_on_one() -> None:
    found = not_surgeable({"stt": deployment()}, {}, {"stt": {"gpu-1"}, "judge": {"gpu-2", "gpu-1"}})

    assert found == "its pods are on the cards of several nodes (gpu-1, gpu-2), and a bridge is on one"
