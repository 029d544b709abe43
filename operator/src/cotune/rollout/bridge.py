"""The bridge of a stage: copies of its Deployments with the new values, which serve from another node meanwhile.

Their pods carry the labels of the originals, so that the namespace's Services find them, and one more, by which
everybody tells them apart.
"""

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

LABEL_BRIDGE = "cotune.dev/bridge"
_HOSTNAME = "kubernetes.io/hostname"
_NODES_OWN = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
"""Access modes of a volume that one node at a time may have."""

Object = dict[str, Any]


@dataclass(frozen=True)
class CreateBridge:
    """Make the copy of a workload."""

    component: str


@dataclass(frozen=True)
class RemoveBridge:
    """Delete the copy of a workload."""

    component: str


BridgeAction = CreateBridge | RemoveBridge


def bridge_id(profile_uid: str, stage: str) -> str:
    """The value of the bridge's label: the same at every pass, another for every profile and stage."""
    return hashlib.sha256(f"{profile_uid}/{stage}".encode()).hexdigest()[:10]


def bridge_name(workload: str, bridge: str) -> str:
    """The name of a copy; short enough for the names of its pods to be host names."""
    own = hashlib.sha256(workload.encode()).hexdigest()[:4]
    return f"{workload[:24].rstrip('-.').replace('.', '-')}-bridge-{own}{bridge}"


def not_surgeable(
    deployments: Mapping[str, Mapping[str, Any]],
    claims: Mapping[str, Collection[str] | None],
    card_nodes: Mapping[str, Collection[str]],
) -> str:
    """What keeps workloads from running twice, on two nodes; empty when nothing is known to.

    Args:
        deployments: component to its Deployment.
        claims: name of a PersistentVolumeClaim to its access modes; None: they are not known.
        card_nodes: component to the nodes on which its pods have a share of a card.
    """
    found = [
        f"{component}: Deployment {it['metadata']['name']} {why}"
        for component, it in deployments.items()
        for why in _tied(it["spec"]["template"]["spec"], claims)
    ]
    if len(nodes := sorted({node for it in card_nodes.values() for node in it})) > 1:
        found.append(f"its pods are on the cards of several nodes ({', '.join(nodes)}), and a bridge is on one")
    return "; ".join(found)


def claims_of(deployment: Mapping[str, Any]) -> list[str]:
    """The PersistentVolumeClaims that a Deployment's pods mount."""
    volumes = cast("Sequence[Mapping[str, Any]]", deployment["spec"]["template"]["spec"].get("volumes") or ())
    return [str(it["persistentVolumeClaim"]["claimName"]) for it in volumes if "persistentVolumeClaim" in it]


def _tied(pod: Mapping[str, Any], claims: Mapping[str, Collection[str] | None]) -> list[str]:
    """What ties a pod to its node, or its clients to it."""
    found: list[str] = []
    if pod.get("nodeName"):
        found.append(f"names its node, {pod['nodeName']}")
    if _HOSTNAME in (pod.get("nodeSelector") or {}):
        found.append(f"selects its node by {_HOSTNAME}")
    if pod.get("hostNetwork"):
        found.append("has hostNetwork: clients reach it by its node")
    containers: list[Mapping[str, Any]] = pod["containers"]
    if any(port.get("hostPort") for it in containers for port in it.get("ports") or ()):
        found.append("has a hostPort: clients reach it by its node")
    for volume in cast("Sequence[Mapping[str, Any]]", pod.get("volumes") or ()):
        if "hostPath" in volume:
            found.append(f"mounts a folder of its node, {volume['hostPath'].get('path')}")
        if claim := volume.get("persistentVolumeClaim"):
            name, modes = claim["claimName"], claims.get(str(claim["claimName"]))
            if modes is None:
                found.append(f"mounts the PersistentVolumeClaim {name}, whose access modes are not known")
            elif not set(modes) - _NODES_OWN:
                found.append(f"mounts the PersistentVolumeClaim {name} ({', '.join(modes)}), which one node may have")
    for claim in cast("Sequence[Mapping[str, Any]]", pod.get("resourceClaims") or ()):
        if claim.get("resourceClaimName"):
            found.append(f"uses the ResourceClaim {claim['resourceClaimName']}, which is of one device")
    return found


def bridge_of(
    deployment: Mapping[str, Any],
    container: str,
    values: Mapping[str, str | None],
    annotations: Mapping[str, str],
    bridge: str,
    stack: Sequence[Mapping[str, str]],
    neighbours: Collection[str],
) -> Object:
    """The copy of a Deployment, as it is created.

    It has no priority: what runs elsewhere is never evicted to make room for it.

    Args:
        deployment: the original, not changed yet.
        container: whose variables are set.
        values: to these; None: as the original has it.
        annotations: of the pods, beside those of the original.
        bridge: the value of its label.
        stack: the labels by which each Deployment of the stack selects its pods.
        neighbours: other namespaces; no node is taken on which pods of theirs run.
    """
    metadata, spec = deployment["metadata"], deployment["spec"]
    template = copy.deepcopy(spec["template"])
    mark = {LABEL_BRIDGE: bridge}
    template["metadata"] = {
        "labels": {**(template["metadata"].get("labels") or {}), **mark},
        "annotations": {**(template["metadata"].get("annotations") or {}), **annotations},
    }
    pod = template["spec"]
    for name in ("priorityClassName", "priority", "preemptionPolicy"):
        pod.pop(name, None)
    _set_values(next(it for it in pod["containers"] if it["name"] == container), values)
    pod["affinity"] = _elsewhere(pod.get("affinity") or {}, mark, stack, neighbours)
    selector = spec["selector"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": bridge_name(metadata["name"], bridge),
            "namespace": metadata["namespace"],
            "labels": dict(mark),
            "annotations": {},
            # It goes with the original, if with nothing else. Not its controller: the original makes no Deployments.
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
            ],
        },
        "spec": {
            "replicas": spec.get("replicas", 1),
            "strategy": {"type": "Recreate"},
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "revisionHistoryLimit": 0,
            "selector": {**selector, "matchLabels": {**selector["matchLabels"], **mark}},
            "template": template,
        },
    }


def _set_values(container: Object, values: Mapping[str, str | None]) -> None:
    wanted = {name: value for name, value in values.items() if value is not None}
    entries: list[Object] = [
        {"name": it["name"], "value": wanted.pop(it["name"])} if it["name"] in wanted else it
        for it in container.get("env") or ()
    ]
    container["env"] = [*entries, *({"name": name, "value": value} for name, value in wanted.items())]


def _elsewhere(
    affinity: Mapping[str, Any],
    mark: Mapping[str, str],
    stack: Sequence[Mapping[str, str]],
    neighbours: Collection[str],
) -> Object:
    """Beside the bridge's other pods, and on no node of the stack's.

    The scheduler holds such a term against pods that come later, too: the stack, when it starts again, keeps away from
    the bridge's card without a word in its own templates.
    """
    made = copy.deepcopy(dict(affinity))
    is_no_bridge = {"key": LABEL_BRIDGE, "operator": "DoesNotExist"}
    apart: list[Object] = [
        {
            "topologyKey": _HOSTNAME,
            "labelSelector": {"matchLabels": dict(labels), "matchExpressions": [is_no_bridge]},
        }
        for labels in stack
    ]
    if neighbours:
        apart.append({"topologyKey": _HOSTNAME, "labelSelector": {}, "namespaces": sorted(neighbours)})
    together: Object = {"topologyKey": _HOSTNAME, "labelSelector": {"matchLabels": dict(mark)}}
    for kind, terms in (("podAntiAffinity", apart), ("podAffinity", [together])):
        rules = dict(made.get(kind) or {})
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        rules[required] = [*(rules.get(required) or ()), *terms]
        made[kind] = rules
    return made
