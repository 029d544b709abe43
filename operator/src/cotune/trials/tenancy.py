"""Whose the memory on the card was over the window, as the node agent saw it: exact, where it was there."""

from collections.abc import Mapping
from dataclasses import dataclass

from cotune.measurement.agent.contract import NodeReport, Tenant


@dataclass(frozen=True)
class PodIdentity:
    """By what a pod's processes are known on its node."""

    uid: str = ""
    containers: frozenset[str] = frozenset()
    """Ids of the containers that it has or had, without the runtime's name."""


@dataclass(frozen=True)
class Share:
    """One pod's memory on the card over the window."""

    least_mib: float
    most_mib: float


@dataclass(frozen=True)
class Tenancy:
    """All memory on the card, by whose it is."""

    readings: int
    shares: Mapping[str, Share]
    """Of every pod of the trial, by component; one without a process on the card holds nothing."""
    strangers: tuple[Tenant, ...] = ()
    """Not the trial's."""
    lost: tuple[int, ...] = ()
    """Processes that had ended before it could be read whose they were."""


def tenancy(report: NodeReport | None, card: str, pods: Mapping[str, PodIdentity]) -> Tenancy | None:
    """None: it is not known.

    Args:
        report: the agent's.
        card: the one that the probe has watched.
        pods: of the trial, by component, the probe's among them.
    """
    if report is None or report.card != card:
        return None
    owners = [(it, _component(it, pods)) for it in report.tenants]
    return Tenancy(
        readings=report.readings,
        shares={name: _share([it for it, owner in owners if owner == name]) for name in pods},
        strangers=tuple(it for it, owner in owners if owner is None),
        lost=report.lost,
    )


def _component(tenant: Tenant, pods: Mapping[str, PodIdentity]) -> str | None:
    for name, pod in pods.items():
        if (tenant.pod and tenant.pod == pod.uid) or not pod.containers.isdisjoint(tenant.containers):
            return name
    return None


def _share(tenants: list[Tenant]) -> Share:
    """A pod is one tenant; where its groups do not carry its uid, each of its containers is one: bounds then."""
    return Share(sum(it.least_mib for it in tenants), sum(it.most_mib for it in tenants))


def words(tenant: Tenant) -> str:
    """Such as `pod 0b5c...-..., container 3f2a1b..., process 4711 (python) with 512 MiB`."""
    who = [f"pod {tenant.pod}"] if tenant.pod else []
    who += [f"container {it[:12]}" for it in tenant.containers]
    processes = ", ".join(f"{it.pid} ({it.name})" for it in tenant.processes[:4])
    return f"{', '.join(who) or 'the node itself'}: process {processes} with {tenant.most_mib:.0f} MiB"
