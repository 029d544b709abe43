"""The cluster's nodes as placement sees them."""

from cotune.artifacts.record import NodeFacts
from cotune.cluster.kinds import NODE
from cotune.cluster.objects import Object, Objects
from cotune.trials.placement import GPU_RESOURCE, Node


async def nodes(objects: Objects) -> tuple[Node, ...]:
    """All nodes."""
    return tuple(_node(it) for it in await objects.list(NODE))


async def node_facts(objects: Objects, name: str) -> NodeFacts:
    """What a node says of itself; only its name when it is gone."""
    found = next((it for it in await objects.list(NODE) if it["metadata"]["name"] == name), None)
    info: Object = found.get("status", {}).get("nodeInfo", {}) if found is not None else {}
    return NodeFacts(
        name=name,
        kubelet_version=info.get("kubeletVersion", ""),
        kernel_version=info.get("kernelVersion", ""),
        os_image=info.get("osImage", ""),
        container_runtime_version=info.get("containerRuntimeVersion", ""),
    )


async def why_lost(objects: Objects, name: str) -> str:
    """Why nothing more is heard from a node; empty when it is there.

    The control plane calls a kubelet's state unknown after it has been silent for a while (50 s by default). One that
    says itself that it is not ready is there: its containers go on, and so may what they measure.
    """
    node = await objects.find(NODE, None, name)
    if node is None:
        return f"the node {name} is no longer in the cluster"
    for it in node.get("status", {}).get("conditions", ()):
        if (it["type"], it["status"]) == ("Ready", "Unknown"):
            return f"the kubelet of {name} is silent: its last word was at {it.get('lastHeartbeatTime')}"
    return ""


def _node(node: Object) -> Node:
    status = node.get("status", {})
    spec = node.get("spec", {})
    ready = any(it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", ()))
    return Node(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels", {}),
        taints=frozenset(
            (it["key"], it.get("value", "")) for it in spec.get("taints", ()) if it["effect"] == "NoSchedule"
        ),
        is_ready=ready and not spec.get("unschedulable", False),
        gpu_shares=int(status.get("allocatable", {}).get(GPU_RESOURCE, 0)),
    )
