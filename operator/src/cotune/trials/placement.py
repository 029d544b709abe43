"""Which nodes may run trials, and why the others may not.

The NVIDIA device plugin allocates per container: it never promises two containers the same card. So a trial only runs
on a node with exactly one card, and on none that somebody else's pods may use: it carries the taint
`cotune.dev/dedicated=trials:NoSchedule`. How a node shares its card was decided when it was prepared: a candidate that
wants another way runs on another node.

Source: labels of NVIDIA's GPU feature discovery (`internal/lm/resource.go` of NVIDIA/k8s-device-plugin).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec
from cotune.api.sharing import Sharing

DEDICATED_TAINT = "cotune.dev/dedicated"
DEDICATED_VALUE = "trials"
GPU_RESOURCE = "nvidia.com/gpu"
NO_SUITABLE_NODE = "NoSuitableNode"
"""The reason of an experiment or of a trial that no node may run."""

_PRODUCT, _COUNT, _REPLICAS = "nvidia.com/gpu.product", "nvidia.com/gpu.count", "nvidia.com/gpu.replicas"
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

    @property
    def sharing(self) -> Sharing | None:
        """How its card is shared; None: no label says so."""
        return next((it for it, label in _STRATEGY_LABELS.items() if self.labels.get(_STRATEGY) == label), None)

    @property
    def replicas(self) -> int:
        """Into how many shares its card is divided."""
        label = self.labels.get(_REPLICAS, "")
        return max(int(label) if label.isdecimal() else self.gpu_shares, 1)


@dataclass(frozen=True)
class Asked:
    """What a trial asks of the card."""

    product: str
    sharing: Sharing
    shares: int
    """Containers that have one, the probe's among them."""


@dataclass(frozen=True)
class Placement:
    """The nodes that may run a trial, in the order of their names."""

    nodes: tuple[str, ...]
    refused: Mapping[str, str]
    """Node name to the first thing that is wrong with it; nodes with another card, or without one, are not listed."""
    prepared: tuple[str, ...] = ()
    """Those of the refused that are only not ready, or whose device plugin is away: they may be back."""
    impossible: str = ""
    """Why no node whatever could run it."""
    replicas: int | None = None
    """Into how many shares the cards of fit and prepared nodes are divided at most; None: there is no such node."""

    @property
    def may_come(self) -> bool:
        """Whether a node may run it, now or later."""
        return bool(self.nodes or self.prepared)

    def why_none(self) -> str:
        """What a person reads when no node is left."""
        if self.impossible:
            return self.impossible
        if not self.refused:
            return "no node offers what spec.gpu asks for"
        return "; ".join(f"{name}: {why}" for name, why in sorted(self.refused.items()))


@dataclass(frozen=True)
class SharingModes:
    """What the cluster says of the ways in which an experiment's candidates share the card."""

    missing: tuple[tuple[Sharing, str], ...] = ()
    """Ways, the baseline's not among them, for which no node is prepared, and why."""
    mps_replicas: int | None = None
    """Into how many shares the cards of nodes with MPS are divided at most; None: not known."""


ANY_SHARING = SharingModes()
"""Nothing is known of the nodes."""


def place(nodes: Sequence[Node], asked: Asked | None) -> Placement:
    """The nodes for a trial that asks for this of the card.

    Without it the stack runs on the CPU, on any node that is dedicated to trials.
    """
    fit: list[Node] = []
    prepared: list[Node] = []
    refused: dict[str, str] = {}
    for node in sorted(nodes, key=lambda it: it.name):
        if asked is not None and not _has_product(node, asked.product):
            continue
        if wrong := _unprepared(node, asked):
            refused[node.name] = wrong
        elif away := _away(node, asked):
            refused[node.name] = away
            prepared.append(node)
        else:
            fit.append(node)
    shares = [it.replicas for it in (*fit, *prepared)] if asked is not None else []
    names = tuple(it.name for it in fit), tuple(it.name for it in prepared)
    return Placement(names[0], refused, names[1], replicas=max(shares, default=None))


def place_stack(nodes: Sequence[Node], spec: ExperimentSpec, sharing: Sharing | None) -> Placement:
    """The nodes for trials of an experiment that share the card in this way; None: without a card."""
    if sharing is not None and (why := _impossible(spec.stack.components, sharing)):
        return Placement((), {}, impossible=why)
    return place(nodes, _asked(spec, sharing))


def placements(nodes: Sequence[Node], spec: ExperimentSpec) -> Mapping[Sharing | None, Placement]:
    """The placement of every way in which the experiment's candidates share the card."""
    parameter = spec.sharing_parameter
    if spec.gpu is None or parameter is None:
        return {spec.baseline_sharing: place_stack(nodes, spec, spec.baseline_sharing)}
    return {it: place_stack(nodes, spec, it) for it in map(Sharing, parameter.values or ())}


def sharing_modes(spec: ExperimentSpec, placed: Mapping[Sharing | None, Placement]) -> SharingModes:
    """What follows from the placements for the plan of the space."""
    missing = tuple(
        (mode, it.why_none())
        for mode, it in placed.items()
        if mode is not None and mode is not spec.baseline_sharing and not it.may_come
    )
    under_mps = placed.get(Sharing.MPS)
    return SharingModes(missing, under_mps.replicas if under_mps is not None else None)


def card_shares(component: Component) -> int:
    """How many shares of a card its containers ask for."""
    return sum(_limit(it) for it in _containers(component))


def _asked(spec: ExperimentSpec, sharing: Sharing | None) -> Asked | None:
    if spec.gpu is None or sharing is None:
        return None
    of_services = sum(card_shares(it) for it in spec.stack.components)
    return Asked(spec.gpu.product, sharing, of_services + (sharing is not Sharing.EXCLUSIVE))


def _impossible(components: Sequence[Component], sharing: Sharing) -> str:
    """Why no node could run the stack in this way; empty: nothing speaks against it."""
    match sharing:
        case Sharing.EXCLUSIVE:
            asking = {it.name: shares for it in components if (shares := card_shares(it))}
            if sum(asking.values()) > 1:
                words = ", ".join(f"{name} {shares}" for name, shares in asking.items())
                return f"Exclusive gives a container a card of its own, and a stack shares one: {words}"
        case Sharing.MPS:
            users = {it.name: user for it in components if card_shares(it) and (user := _user(it)) is not None}
            if len(set(users.values())) > 1:
                words = ", ".join(f"{name} runs as {user}" for name, user in users.items())
                return f"MPS serves one user at a time: {words}"
        case Sharing.TIME_SLICING:
            pass
    return ""


def _has_product(node: Node, product: str) -> bool:
    return node.labels.get(_PRODUCT, "").removesuffix("-SHARED") == product.removesuffix("-SHARED")


def _unprepared(node: Node, asked: Asked | None) -> str | None:
    """What somebody has to do first."""
    if (DEDICATED_TAINT, DEDICATED_VALUE) not in node.taints:
        return f"not dedicated by the taint {DEDICATED_TAINT}={DEDICATED_VALUE}:NoSchedule"
    if asked is None:
        return None
    if (count := node.labels.get(_COUNT)) != "1":
        return f"has {count or 'an unknown number of'} cards, and the device plugin does not say who gets which"
    if (strategy := node.labels.get(_STRATEGY, "none")) != _STRATEGY_LABELS[asked.sharing]:
        return f"shares its card by {strategy}, not by {_STRATEGY_LABELS[asked.sharing]}"
    if 0 < node.gpu_shares < asked.shares:
        return _too_few_shares(node, asked)
    return None


def _away(node: Node, asked: Asked | None) -> str | None:
    """What may pass by itself."""
    if not node.is_ready:
        return "not ready or not schedulable"
    if asked is not None and node.gpu_shares < asked.shares:
        return _too_few_shares(node, asked)
    return None


def _too_few_shares(node: Node, asked: Asked) -> str:
    return f"offers {node.gpu_shares} {GPU_RESOURCE}, and the stack with its probe needs {asked.shares}"


def _user(component: Component) -> int | None:
    """The user that its containers on the card run as; None: the image says it."""
    spec = cast("Mapping[str, Any]", component.template.get("spec") or {})
    of_pod = cast("Mapping[str, Any]", spec.get("securityContext") or {}).get("runAsUser")
    own = (cast("Mapping[str, Any]", it.get("securityContext") or {}) for it in _containers(component) if _limit(it))
    users = [int(user) for it in own if (user := it.get("runAsUser", of_pod)) is not None]
    return users[0] if users else None


def _containers(component: Component) -> Sequence[Mapping[str, Any]]:
    spec = cast("Mapping[str, Any]", component.template.get("spec") or {})
    return cast("Sequence[Mapping[str, Any]]", spec.get("containers") or ())


def _limit(container: Mapping[str, Any]) -> int:
    resources = cast("Mapping[str, Any]", container.get("resources") or {})
    limit = str(cast("Mapping[str, Any]", resources.get("limits") or {}).get(GPU_RESOURCE, "0"))
    return int(limit) if limit.isdecimal() else 1
