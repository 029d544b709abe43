"""Which nodes may run trials, and why the others may not.

The NVIDIA device plugin allocates per container: it never promises two containers the same card. So a trial only runs
on a node with exactly one card, and on none that somebody else's pods may use: it carries the taint
`cotune.dev/dedicated=trials:NoSchedule`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.experiment import Gpu, Sharing

DEDICATED_TAINT = "cotune.dev/dedicated"
DEDICATED_VALUE = "trials"
GPU_RESOURCE = "nvidia.com/gpu"

_PRODUCT, _COUNT = "nvidia.com/gpu.product", "nvidia.com/gpu.count"
_STRATEGY = "nvidia.com/gpu.sharing-strategy"
_STRATEGY_LABELS = {Sharing.EXCLUSIVE: "none", Sharing.TIME_SLICING: "time-slicing", Sharing.MPS: "mps"}


@dataclass(frozen=True)
class Node:
    """A node as far as placement is concerned."""

    name: str
    labels: Mapping[str, str]
    taints: frozenset[tuple[str, str]]
    """Key and value of the taints with effect NoSchedule."""
    is_ready: bool
    """Ready, and not cordoned."""
    gpu_shares: int
    """Allocatable `nvidia.com/gpu`: containers that may share the card."""


@dataclass(frozen=True)
class Placement:
    """The nodes that may run a trial, in the order of their names."""

    nodes: tuple[str, ...]
    refused: Mapping[str, str]
    """Node name to the first thing that is wrong with it; nodes with another card, or without one, are not listed."""
    shares: int = 0
    """The most shares that a card of these nodes is divided into; 0: no card is asked for."""

    def why_none(self) -> str:
        """What a person reads when no node is left."""
        if not self.refused:
            return "no node offers what spec.gpu asks for"
        return "; ".join(f"{name}: {why}" for name, why in sorted(self.refused.items()))


def place(nodes: Sequence[Node], gpu: Gpu | None, containers: int) -> Placement:
    """The nodes for a trial of so many containers on the card, the probe's among them.

    Without `gpu` the stack runs on the CPU, on any node that is dedicated to trials.
    """
    fit: list[Node] = []
    refused: dict[str, str] = {}
    for node in sorted(nodes, key=lambda it: it.name):
        if gpu is not None and not _has_product(node, gpu.product):
            continue
        if wrong := _wrong(node, gpu, containers):
            refused[node.name] = wrong
        else:
            fit.append(node)
    shares = max((it.gpu_shares for it in fit), default=0) if gpu is not None else 0
    return Placement(tuple(it.name for it in fit), refused, shares)


def _has_product(node: Node, product: str) -> bool:
    return node.labels.get(_PRODUCT, "").removesuffix("-SHARED") == product.removesuffix("-SHARED")


def _wrong(node: Node, gpu: Gpu | None, containers: int) -> str | None:
    if (DEDICATED_TAINT, DEDICATED_VALUE) not in node.taints:
        return f"not dedicated by the taint {DEDICATED_TAINT}={DEDICATED_VALUE}:NoSchedule"
    if not node.is_ready:
        return "not ready or not schedulable"
    if gpu is None:
        return None
    if (count := node.labels.get(_COUNT)) != "1":
        return f"has {count or 'an unknown number of'} cards, and the device plugin does not say who gets which"
    if (strategy := node.labels.get(_STRATEGY, "none")) != _STRATEGY_LABELS[gpu.sharing]:
        return f"shares its card by {strategy}, not by {_STRATEGY_LABELS[gpu.sharing]}"
    if node.gpu_shares < containers:
        return f"offers {node.gpu_shares} {GPU_RESOURCE}, and the stack with its probe needs {containers}"
    return None
