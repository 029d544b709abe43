"""Whether the figures of a trial may count: gates that look at how it was measured, not at what came out.

Each gate is a small function from the evidence to what is wrong. A trial that breaks one is Invalid: it says nothing
about its candidate, is repeated, and never scores. The exception is what the candidate itself has done.

Only what is known is judged. NVML does not say whose a process is, so a share of the card is matched with the
components by size; where it does not list all processes, the card's memory as a whole is all that can be compared.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec
from cotune.api.trial import Measurement, Prediction
from cotune.measurement.contract import CardConduct, Conduct
from cotune.trials.placement import GPU_RESOURCE
from cotune.trials.root_cause import root_cause

_THROTTLED_SHARE = 0.05
"""Of the readings: a single one may fall into a change of the clocks."""
_LATE_MS, _LATE_SHARE = 50.0, 0.1
"""A probe is starved that sends later than both: so many milliseconds, and such a share of the p95 that it measures."""
_FEW_REQUESTS, _LATE_MS_OF_FEW = 100, 250.0
"""With fewer, the p99 is a single request, and one that is late is no starvation yet."""
_SOMETHING_MIB = 1.0
"""What a component holds at least that is not planned, and asks for a card."""
_RESTS_ON_ANSWERS = re.compile(r"\.(p50|p95|p99|wer|errorRate)$")


@dataclass(frozen=True)
class Breach:
    """Why the figures must not count."""

    reason: str
    message: str
    blames_the_candidate: bool = False
    """It has failed, and would again."""


@dataclass(frozen=True)
class ComponentEvidence:
    """What Kubernetes says of one component's pod."""

    cards: frozenset[str] = frozenset()
    """UUIDs of the cards that the kubelet has given to its containers; empty: it does not say."""
    moments: Sequence[datetime] = ()
    """When containers of it have started or ended, to the second."""
    log: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that the gates look at."""

    spec: ExperimentSpec
    conduct: Conduct
    components: Mapping[str, ComponentEvidence]
    """The probe's pod among them."""
    measurements: Mapping[str, Measurement]
    prediction: Prediction | None = None


Gate = Callable[[Evidence], Breach | None]


def breach(evidence: Evidence) -> Breach | None:
    """The first gate that the trial breaks; None: its figures may count."""
    return next((found for gate in GATES if (found := gate(evidence)) is not None), None)


def not_colocated(evidence: Evidence) -> Breach | None:
    """All containers share one card: the one that the probe has watched."""
    if evidence.conduct.card is None:
        return None
    by_card: dict[str, list[str]] = {evidence.conduct.card.uuid: []}
    for name, it in evidence.components.items():
        for uuid in it.cards:
            by_card.setdefault(uuid, []).append(name)
    if len(by_card) == 1:
        return None
    words = (f"{uuid}: {', '.join(names) or 'the one that was watched'}" for uuid, names in sorted(by_card.items()))
    return Breach("NotColocated", "; ".join(words))


def second_tenant(evidence: Evidence) -> Breach | None:
    """Nobody comes to the card while it is measured."""
    card = evidence.conduct.card
    if card is None or not card.newcomers:
        return None
    words = ", ".join(f"process {it.pid} with {it.least_mib:g} MiB" for it in card.newcomers)
    return Breach("SecondTenant", f"came to the card within the window: {words}")


def device_fallback(evidence: Evidence) -> Breach | None:
    """Every component that asks for a card holds on it what it was planned to hold at least."""
    card = evidence.conduct.card
    wanted = _wanted(evidence)
    if card is None or not wanted:
        return None
    if not card.are_all_listed:
        least = sum(wanted.values())
        if card.rise_mib >= least:
            return None
        return Breach(
            "DeviceFallback",
            f"the card holds {card.rise_mib:.0f} MiB more than when it was drained, and {_words(wanted)} should hold "
            f"{least:.0f} MiB at least",
        )
    if _all_have_a_share(card, wanted):
        return None
    # One whose absence alone explains what is seen; often there are several, and it is not known which.
    suspects = [it for it in wanted if _all_have_a_share(card, {name: wanted[name] for name in wanted if name != it})]
    who = f"{suspects[0]} has no" if len(suspects) == 1 else "not every component has its"
    there = ", ".join(f"{it.least_mib:.0f}" for it in card.processes) or "none"
    return Breach(
        "DeviceFallback",
        f"{who} share of the card: wanted at least {_words(wanted)}; processes on the card, MiB: {there}",
    )


def throttled(evidence: Evidence) -> Breach | None:
    """The clocks are the card's own, not those of a hot day or a weak supply."""
    card = evidence.conduct.card
    if card is None or card.throttled is None or card.throttled <= _THROTTLED_SHARE * card.readings:
        return None
    clock = f", down to {card.sm_clock_mhz} MHz" if card.sm_clock_mhz is not None else ""
    heat = f", up to {card.temperature_celsius} C" if card.temperature_celsius is not None else ""
    reasons = ", ".join(card.throttle_reasons)
    return Breach("Throttled", f"{reasons} in {card.throttled} of {card.readings} readings{clock}{heat}")


def component_restarted(evidence: Evidence) -> Breach | None:
    """No container starts or ends within the window."""
    # Kubernetes cuts its times to the second: one of the window's first second may seem to lie before it.
    start, end = evidence.conduct.started_at.replace(microsecond=0), evidence.conduct.ended_at
    for component in evidence.spec.stack.components:
        it = evidence.components.get(component.name, ComponentEvidence())
        if not any(start <= moment <= end for moment in it.moments):
            continue
        cause = root_cause(it.log)
        if cause.cause.blames_the_candidate():
            return Breach(str(cause.cause), f"{component.name}: {cause.line}", blames_the_candidate=True)
        return Breach("ComponentRestarted", f"{component.name}: a container started or ended within the window")
    return None


def probe_starved(evidence: Evidence) -> Breach | None:
    """The probe sends in time: what it sends late, it measures of itself."""
    for it in evidence.conduct.punctuality:
        latency = evidence.measurements.get(f"{it.component}.latency.p95")
        least = _LATE_MS if it.requests >= _FEW_REQUESTS else _LATE_MS_OF_FEW
        bound = max(least, _LATE_SHARE * float(latency.value) if latency is not None else 0.0)
        if it.late_p99_ms > bound:
            return Breach(
                "ProbeStarved",
                f"requests to {it.component} were sent up to {it.late_p99_ms:.1f} ms late (p99), and at most "
                f"{bound:.1f} ms count as in time",
            )
    return None


def sample_too_small(evidence: Evidence) -> Breach | None:
    """What is decided by rests on enough answers."""
    least = evidence.spec.workload.minimum_samples
    requests = {it.component: it.requests for it in evidence.conduct.punctuality}
    for metric in metrics_that_rest_on_answers(evidence.spec):
        found = evidence.measurements.get(metric)
        component = metric.split(".", 1)[0]
        sent = requests.get(component)
        samples = found.samples if found is not None else 0
        if sent is None or samples >= least:
            continue
        if sent < least:
            return Breach("SampleTooSmall", f"{metric} rests on {samples} of {least} samples: {sent} were due")
        if found is None:
            continue  # Not one good answer, or no such metric: the judgement says that it is missing.
        return Breach(
            "TooFewAnswers",
            f"{metric} rests on {samples} of {least} samples, though {sent} requests were sent",
            blames_the_candidate=True,
        )
    return None


def metrics_that_rest_on_answers(spec: ExperimentSpec) -> list[str]:
    """What the experiment decides by and wants `minimumSamples` answers for."""
    named = {it.metric for it in (*spec.objectives, *spec.constraints)}
    return sorted(it for it in named if _RESTS_ON_ANSWERS.search(it))


GATES: tuple[Gate, ...] = (
    not_colocated,
    second_tenant,
    device_fallback,
    throttled,
    component_restarted,
    probe_starved,
    sample_too_small,
)
"""In the order in which they are asked: what explains the others comes first."""


def _wanted(evidence: Evidence) -> dict[str, float]:
    """The least that each component which asks for a card holds on it, in MiB."""
    planned = {it.component: float(it.least_mib) for it in evidence.prediction.holdings} if evidence.prediction else {}
    asking = [it.name for it in evidence.spec.stack.components if evidence.spec.gpu is not None and _asks_for_card(it)]
    return {it: planned.get(it, _SOMETHING_MIB) for it in asking}


def _asks_for_card(component: Component) -> bool:
    spec = cast("Mapping[str, Any]", component.template.get("spec") or {})
    containers = cast("Sequence[Mapping[str, Any]]", spec.get("containers") or ())
    resources = (cast("Mapping[str, Any]", it.get("resources") or {}) for it in containers)
    limits = (cast("Mapping[str, Any]", it.get("limits") or {}) for it in resources)
    return any(str(it.get(GPU_RESOURCE, "0")) != "0" for it in limits)


def _all_have_a_share(card: CardConduct, wanted: Mapping[str, float]) -> bool:
    """Whether there are processes for every component, the largest served first; a component may have several."""
    left = sorted((it.least_mib for it in card.processes), reverse=True)
    for least in sorted(wanted.values(), reverse=True):
        held = 0.0
        while left and held < least:
            held += left.pop(0)
        if held < least:
            return False
    return True


def _words(wanted: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {mib:.0f} MiB" for name, mib in wanted.items())
