"""What a stage that bakes is found to be: well, not ready for the moment, or no longer what it shall be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.rollout.convergence import lacks_values
from cotune.rollout.state import ObservedWorkload, Revision


@dataclass(frozen=True)
class Standing:
    """All workloads of a stage, judged without an intention to change them."""

    broken: str = ""
    """What no waiting mends."""
    unready: Sequence[str] = ()
    """Components that may be ready again at any moment, with what their pods do meanwhile."""
    starting: Sequence[str] = ()
    """Components that somebody else has scaled, and whose pods are still starting."""
    scaled: Mapping[str, str] | None = None
    """Component to how many replicas it has and should have, where that is somebody else's doing."""
    asleep: Sequence[str] = ()
    """Components that somebody else has scaled to zero: nothing can be said of them."""

    @property
    def others(self) -> str:
        """What somebody else has done, for a person; empty when nobody has."""
        return "; ".join((self.scaled or {}).values())


def standing(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Standing:
    """What has become of a stage that was ready once."""
    unready: list[str] = []
    starting: list[str] = []
    asleep: list[str] = []
    scaled: dict[str, str] = {}
    for wanted in target.workloads:
        name, now = wanted.component, observed.get(wanted.component)
        if now is None:
            unready.append(name)
            continue
        if lacks_values(wanted, observed):
            return Standing(broken=f"{name}: somebody else has changed its variables")
        if now.failure is not None:
            return Standing(broken=f"{name}: {now.failure.reason}: {now.failure.message}")
        if now.replicas != wanted.replicas:
            scaled[name] = f"{name} has {now.replicas} replicas, not {wanted.replicas}"
        if now.replicas == 0 < wanted.replicas:
            asleep.append(name)
        elif not now.is_ready and wanted.replicas:
            (starting if name in scaled else unready).append(f"{name} ({now.unready})" if now.unready else name)
    return Standing("", unready, starting, scaled, asleep)
