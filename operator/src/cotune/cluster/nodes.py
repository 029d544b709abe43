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
