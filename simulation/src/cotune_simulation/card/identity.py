"""Which card a node has: written once when the node's pod starts, read by the daemon and the device plugin."""

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from cotune_simulation.figures import Entry

_NAMESPACE = uuid.UUID("b9a6f3f2-6f0e-4a57-9b3e-2d0a6f0c7d11")


@dataclass(frozen=True)
class CardIdentity:
    """A card's product and UUID, and how it is shared."""

    product: str
    uuid: str
    mps_replicas: int = 0
    """Into how many shares MPS divides it; 0: it is shared by time-slicing, or not at all."""


def card_uuid(node: str) -> str:
    """The UUID of the node's card: the same whenever it is asked for, another one on every node."""
    return f"GPU-{uuid.uuid5(_NAMESPACE, node)}"


def write_identity(path: Path, identity: CardIdentity) -> None:
    """Replace the file as a whole."""
    beginning = path.with_name(f".{path.name}.{os.getpid()}")
    beginning.write_text(json.dumps(asdict(identity)))
    beginning.rename(path)


def read_identity(path: Path) -> CardIdentity:
    """What `write_identity` wrote."""
    values = Entry(json.loads(path.read_text()))
    return CardIdentity(values.text("product"), values.text("uuid"), values.integer("mps_replicas"))
