"""What the node agent answers to a probe and to the operator, and what a probe hands on of it.

    GET /v1/node                                  -> Node
    GET /v1/window?card=UUID&seconds=60           -> NodeReport, when the window is over; before it, white space
    GET /v1/held?pod=UID&pod=UID                  -> NodeHoldings, at once

The answer begins at once, so that nobody on the way takes the connection for a dead one.
"""

from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel

API_PORT = 9401
METRICS_PORT = 9402
NODE_VARIABLE = "COTUNE_NODE"
"""The name of the node that a pod runs on, from its own fields."""
LONGEST_WINDOW_SECONDS = 12 * 3600
LONGEST_SERIES = 600
MOST_PODS_ASKED = 256

ContainerId = Annotated[str, Field(max_length=64)]
PodUid = Annotated[str, Field(max_length=64)]


class Node(ApiModel):
    """Where an agent runs."""

    name: Annotated[str, Field(max_length=253)]
    cards: Annotated[tuple[str, ...], Field(max_length=64)]
    """UUIDs; empty as long as there is no driver."""


class TenantProcess(ApiModel):
    """A process that held memory on the card."""

    pid: int
    """In the node's namespace."""
    name: Annotated[str, Field(max_length=64)] = ""
    """As the kernel has it, cut to 15 characters."""
    container: ContainerId = ""
    """Empty: it runs in no container."""


class Tenant(ApiModel):
    """A pod's, a container's, or the node's own share of the card over a window."""

    pod: PodUid = ""
    """Empty: not a pod of Kubernetes."""
    containers: Annotated[tuple[ContainerId, ...], Field(max_length=64)] = ()
    """Whose processes these are; empty: processes of the node itself."""
    processes: Annotated[tuple[TenantProcess, ...], Field(max_length=256)]
    least_mib: Annotated[float, Field(ge=0, alias="leastMiB")]
    """Over all readings of the window, those without any of its processes among them."""
    most_mib: Annotated[float, Field(ge=0, alias="mostMiB")]
    memory_mib: Annotated[tuple[float, ...], Field(max_length=LONGEST_SERIES, alias="memoryMiB")] = ()
    """Over the window, in equal parts: the most of each part."""


class OutOfMemoryKills(ApiModel):
    """How often the kernel has ended processes of a container for want of the machine's memory, since its start."""

    container: ContainerId
    pod: PodUid = ""
    kills: Annotated[int, Field(ge=1)]


class NodeReport(ApiModel):
    """What an agent saw on one card over a window, and in the containers of its node at the window's end."""

    node: Annotated[str, Field(max_length=253)]
    card: Annotated[str, Field(max_length=96)]
    readings: Annotated[int, Field(ge=1)]
    tenants: Annotated[tuple[Tenant, ...], Field(max_length=256)] = ()
    lost: Annotated[tuple[int, ...], Field(max_length=256)] = ()
    """Processes that had ended before it could be read whose they were."""
    kills: Annotated[tuple[OutOfMemoryKills, ...], Field(max_length=256)] | None = None
    """Of the containers that have such kills; None: the counters of the control groups cannot be read."""
    xids: Annotated[tuple[int, ...], Field(max_length=64)] | None = None
    """Critical errors (NVIDIA's Xid numbers) in the window; None: the driver does not say."""


class Holding(ApiModel):
    """Memory on one card that processes of one pod hold now."""

    pod: PodUid
    card: Annotated[str, Field(max_length=96)]
    mib: Annotated[float, Field(ge=0)]
    processes: Annotated[tuple[TenantProcess, ...], Field(max_length=256)]


class NodeHoldings(ApiModel):
    """What some pods hold on the cards of a node, read once."""

    node: Annotated[str, Field(max_length=253)]
    cards: Annotated[tuple[str, ...], Field(max_length=64)]
    """That were read."""
    held: Annotated[tuple[Holding, ...], Field(max_length=1024)] = ()
    """Of the pods that were asked for; what is not listed holds nothing on a card that was read."""
    unknown: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=64)] = ()
    """Why it is not known of some cards whose their processes are."""
