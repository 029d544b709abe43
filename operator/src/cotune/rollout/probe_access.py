"""Whether the owner of a stage's namespace lets a probe load its services, and where they are."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from cotune.api.grant import GrantService, GrantSpec, Permission
from cotune.api.stage_probe import StageProbe
from cotune.rollout.targets import Refusal


def services(
    probe: StageProbe, source: str, namespace: str, grants: Sequence[GrantSpec]
) -> Mapping[str, GrantService] | Refusal:
    """Component to the Service that a probe of namespace `source` may send requests to.

    Every limit of every grant that invites holds, whichever of them names a service.

    Args:
        probe: of the stage.
        source: the profile's namespace, in which the probe runs.
        namespace: the stage's.
        grants: of the stage's namespace.
    """
    inviting = [
        it for it in grants if Permission.PROBE in it.allow and any(origin.namespace == source for origin in it.from_)
    ]
    if not inviting:
        return _refused(f"no GpuTuningGrant in namespace {namespace} allows Probe from {source}")
    rate = sum((Decimal(it.arrivals.rate_per_second or "0") for it in probe.streams), Decimal())
    limits = [Decimal(it.probe.max_rate_per_second) for it in inviting if it.probe is not None]
    if limits and rate > min(limits):
        return _refused(
            f"a grant in namespace {namespace} lets a probe send {min(limits)} requests a second, and the stage's "
            f"sends {rate}"
        )
    found: dict[str, GrantService] = {}
    for name in dict.fromkeys(it.component for it in probe.streams):
        targets = (it for grant in inviting for it in grant.targets if it.component == name)
        named = {(it.service.name, it.service.port): it.service for it in targets if it.service is not None}
        if len(named) != 1:
            how_many = "several services" if named else "no service"
            return _refused(f"grants in namespace {namespace} name {how_many} that a probe may load for {name}")
        (found[name],) = named.values()
    return found


def _refused(message: str) -> Refusal:
    return Refusal("ProbeNotGranted", message)
