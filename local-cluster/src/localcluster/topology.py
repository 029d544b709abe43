"""What a local cluster consists of: its nodes and every address in it.

All addresses live in the instance's own network namespace, so they are the same for every instance and collide with
nothing on the host.
"""

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network

from localcluster.errors import LocalClusterError

NODE_NAMES = ("lab", "staging", "production")
"""What `up` starts unless it is asked for others."""
ALL_NODE_NAMES = (*NODE_NAMES, "lab-2", "lab-3", "edge-staging", "edge-production")
"""With those of a second site, for whoever asks for them."""
DEFAULT_CARD = "NVIDIA-GeForce-RTX-3060"

CONTROL_PLANE_ADDRESS = IPv4Address("10.240.0.1")
NAME_SERVER_ADDRESS = IPv4Address("10.240.0.53")
NAME_SERVER_READY_PORT = 8181
NODE_NETWORK = IPv4Network("10.240.0.0/24")
POD_NETWORK = IPv4Network("10.244.0.0/16")
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
API_SERVICE_ADDRESS = IPv4Address("10.96.0.1")
API_PORT = 6443
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Node:
    """One kubelet with its container runtime."""

    name: str
    address: IPv4Address
    pods: IPv4Network
    card: str

    @property
    def labels(self) -> dict[str, str]:
        """Labels the node registers itself with."""
        return {"cotune.dev/local-node": self.name, "simulation.cotune.dev/card": self.card}


@dataclass(frozen=True)
class Topology:
    """The request of `up`: without nodes it is a control plane for tests of the API alone."""

    node_names: tuple[str, ...] = NODE_NAMES
    card: str = DEFAULT_CARD

    def __post_init__(self) -> None:
        unknown = [name for name in self.node_names if name not in ALL_NODE_NAMES]
        if unknown or len(set(self.node_names)) != len(self.node_names):
            raise LocalClusterError(f"nodes {','.join(self.node_names)}: choose from {', '.join(ALL_NODE_NAMES)}")

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in the order of `ALL_NODE_NAMES`; a node's addresses do not depend on which others exist."""
        return tuple(
            Node(
                name=name,
                address=NODE_NETWORK.network_address + 10 + position,
                pods=IPv4Network((POD_NETWORK.network_address + 256 * position, 24)),
                card=self.card,
            )
            for position, name in enumerate(ALL_NODE_NAMES, start=1)
            if name in self.node_names
        )

    def includes(self, other: "Topology") -> bool:
        """Whether everything of another request is here, too."""
        return self.card == other.card and set(self.node_names) >= set(other.node_names)

    def to_json(self) -> str:
        """The form kept in the state folder."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Topology":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(node_names=tuple(fields["node_names"]), card=fields["card"])
