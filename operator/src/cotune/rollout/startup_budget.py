"""Whether a workload's probes leave a start the time that it was measured to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.profile import Expect

_QUESTIONS = ("httpGet", "tcpSocket", "exec", "grpc")


@dataclass(frozen=True)
class StartupBudget:
    """The time after which a kubelet ends a container that has not answered yet."""

    probe: str
    """`startupProbe` or `livenessProbe`."""
    initial_delay_seconds: int
    period_seconds: int
    failure_threshold: int

    @property
    def seconds(self) -> int:
        """As Kubernetes states it."""
        return self.initial_delay_seconds + self.period_seconds * self.failure_threshold


def startup_budget(container: Mapping[str, Any]) -> StartupBudget | None:
    """The budget that a container's start is known to need; None: no probe ends it while it starts.

    A liveness probe does not run before the startup probe has had its answer. A probe that asks something else than the
    readiness probe may be answered long before readiness: what it needs was not measured, and it is not judged.
    """
    name = next((it for it in ("startupProbe", "livenessProbe") if container.get(it)), None)
    if name is None:
        return None
    probe = cast("Mapping[str, Any]", container[name])
    readiness = cast("Mapping[str, Any]", container.get("readinessProbe") or {})
    if readiness and _question(probe) != _question(readiness):
        return None
    return StartupBudget(
        name,
        int(probe.get("initialDelaySeconds", 0)),
        int(probe.get("periodSeconds", 10)),
        int(probe.get("failureThreshold", 3)),
    )


def too_small(expect: Expect | None, containers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why probes would end a start that is as good as the measured one; None: none is known to.

    Args:
        expect: the profile's.
        containers: component to its container in the pod template.
    """
    measured = {it.component: it.seconds for it in expect.startup_seconds} if expect is not None else {}
    found = [
        f"{component}: the {budget.probe} of container {container.get('name')} ends a start after {budget.seconds} s "
        f"(initialDelaySeconds {budget.initial_delay_seconds} + periodSeconds {budget.period_seconds} x "
        f"failureThreshold {budget.failure_threshold}), and it was measured to take {measured[component]} s"
        for component, container in containers.items()
        if component in measured
        and (budget := startup_budget(container)) is not None
        and budget.seconds < measured[component]
    ]
    return "; ".join(found) or None


def _question(probe: Mapping[str, Any]) -> dict[str, Any]:
    return {it: probe[it] for it in _QUESTIONS if it in probe}
