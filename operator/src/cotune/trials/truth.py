"""Whether the figures of a trial may count: gates that look at how it was measured, not at what came out.

Each gate is a small function from the evidence to what is wrong. A trial that breaks one is Invalid: it says nothing
about its candidate, is repeated, and never scores. The exception is what the candidate itself has done.

Only what is known is judged. Where a node agent has seen whose the processes on the card are, that decides. NVML itself
does not say it: without an agent a share of the card is matched with the components by size, and where it does not list
all processes, the card's memory as a whole is all that can be compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cotune.api.experiment import ExperimentSpec
from cotune.api.sharing import Sharing
from cotune.api.trial import Measurement, Prediction
from cotune.measurement.contract import CardConduct, Conduct, InterferenceCell, Punctuality
from cotune.trials.holdings import wanted_holdings
from cotune.trials.root_cause import root_cause
from cotune.trials.tenancy import PodIdentity, Tenancy, words

_THROTTLED_SHARE = 0.05
"""Of the readings: a single one may fall into a change of the clocks."""
_LATE_MS, _LATE_SHARE = 50.0, 0.1
"""A probe is starved that sends later than both: so many milliseconds, and such a share of the p95 that it measures."""
_FEW_REQUESTS, _LATE_MS_OF_FEW = 100, 250.0
"""With fewer, the p99 is a single request, and one that is late is no starvation yet."""
_XIDS_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
"""What a faulty program brings about on a sound card: NVIDIA's device plugin does not count them against it either."""
_MPS_SERVER = "nvidia-cuda-mps"
"""The server that shares a card by MPS has a context of its own on it; the kernel cuts names to 15 characters."""
_RESTS_ON_ANSWERS = re.compile(r"\.(p50|p95|p99|wer(\.[A-Za-z0-9]+)?|errorRate)$")
"""Not a quality: its questions are a fixed set, and all of them are asked."""


@dataclass(frozen=True)
class Breach:
    """Why the figures must not count."""

    reason: str
    message: str
    blames_the_candidate: bool = False
    """It has failed, and would again."""
    blames_the_card: bool = False
    """The next trial on it would fare no better: its node is left alone for a while."""


@dataclass(frozen=True)
class ComponentEvidence:
    """What Kubernetes says of one component's pod."""

    cards: frozenset[str] = frozenset()
    """UUIDs of the cards that the kubelet has given to its containers; empty: it does not say."""
    moments: Sequence[datetime] = ()
    """When containers of it have started or ended, to the second."""
    log: str = ""
    identity: PodIdentity = field(default_factory=PodIdentity)


@dataclass(frozen=True)
class Evidence:
    """All that the gates look at."""

    spec: ExperimentSpec
    conduct: Conduct
    components: Mapping[str, ComponentEvidence]
    """The probe's pod among them."""
    measurements: Mapping[str, Measurement]
    prediction: Prediction | None = None
    interference: Sequence[InterferenceCell] = ()
    """Empty: it was not asked for."""
    tenancy: Tenancy | None = None
    """Whose the memory on the card was; None: no node agent has seen it."""
    sharing: Sharing | None = None
    """How the trial has shared its card; None: without a card."""


@dataclass(frozen=True)
class _Watched:
    """The window, or a round of the interference matrix after it."""

    words: str
    """Which of them, to be put behind a message; empty for the window."""
    punctuality: Sequence[Punctuality]
    card: CardConduct | None
    p95: Mapping[str, float]
    """Of each component that has one, in ms."""


def _watched(evidence: Evidence) -> Iterator[_Watched]:
    conduct, measured = evidence.conduct, evidence.measurements
    names = [it.component for it in conduct.punctuality]
    latencies = {it: measured[f"{it}.latency.p95"] for it in names if f"{it}.latency.p95" in measured}
    yield _Watched("", conduct.punctuality, conduct.card, {name: float(it.value) for name, it in latencies.items()})
    for it in conduct.rounds:
        cells = [cell for cell in evidence.interference if cell.loaded == it.loaded and cell.latency is not None]
        p95 = {cell.component: cell.latency.p95 for cell in cells if cell.latency is not None}
        yield _Watched(f", in the round of {' and '.join(it.loaded)}", it.punctuality, it.card, p95)


Gate = Callable[[Evidence], Breach | None]


def breach(evidence: Evidence) -> Breach | None:
    """The first gate that the trial breaks; None: its figures may count."""
    return next((found for gate in GATES if (found := gate(evidence)) is not None), None)


def card_error(evidence: Evidence) -> Breach | None:
    """The driver tells of no critical error, and no memory of the card has lost what was written to it."""
    card = evidence.conduct.card
    if card is None:
        return None
    told: list[str] = []
    if card.xids:
        told.append(f"Xid {', '.join(str(it) for it in card.xids)} within the window")
    if card.uncorrected_ecc_errors:
        told.append(f"{card.uncorrected_ecc_errors} new uncorrected ECC errors within the window")
    if not told:
        return None
    if card.needs_reset:
        told.append("it waits for a reset to replace the memory concerned")
    blames_the_card = bool(card.uncorrected_ecc_errors) or not _XIDS_OF_PROGRAMS.issuperset(card.xids or ())
    return Breach("CardError", f"{card.uuid}: {'; '.join(told)}", blames_the_card=blames_the_card)


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
    """Nobody else is on the card while it is measured; without an agent, and after the window, nobody comes to it."""
    first = evidence.conduct.card
    if first is None:
        return None
    if evidence.tenancy is not None and (found := _stranger(evidence.sharing, evidence.tenancy)):
        return found
    known = {it.pid for it in first.processes}
    for watched in _watched(evidence):
        if not watched.words and evidence.tenancy is not None:
            continue
        card = watched.card or first
        # Who came between two rounds is no newcomer of the second; none of the stack's own comes so late.
        strangers = [it for it in card.processes if watched.words and it.pid not in known]
        if newcomers := [*card.newcomers, *strangers]:
            came = ", ".join(f"process {it.pid} with {it.least_mib:g} MiB" for it in newcomers)
            return Breach("SecondTenant", f"came to the card within the window{watched.words}: {came}")
    return None


def _stranger(sharing: Sharing | None, tenancy: Tenancy) -> Breach | None:
    found = [
        words(it)
        for it in tenancy.strangers
        if not (sharing is Sharing.MPS and all(process.name == _MPS_SERVER for process in it.processes))
    ]
    if tenancy.lost:
        lost = ", ".join(str(it) for it in tenancy.lost[:4])
        found.append(f"process {lost}, which ended before it could be read whose it was")
    return Breach("SecondTenant", f"not of this trial: {'; '.join(found)}") if found else None


def device_fallback(evidence: Evidence) -> Breach | None:
    """Every component that asks for a card holds on it what it was planned to hold at least."""
    card = evidence.conduct.card
    wanted = wanted_holdings(evidence.spec, evidence.prediction)
    if card is None or not wanted:
        return None
    if evidence.tenancy is not None:
        return _absent(wanted, evidence.tenancy)
    if not card.are_all_listed:
        least = sum(wanted.values())
        if card.rise_mib >= least:
            return None
        return Breach(
            "DeviceFallback",
            f"the card holds {card.rise_mib:.0f} MiB more than when it was drained, and {_least_words(wanted)} should "
            f"hold {least:.0f} MiB at least",
        )
    if _all_have_a_share(card, wanted):
        return None
    # One whose absence alone explains what is seen; often there are several, and it is not known which.
    suspects = [it for it in wanted if _all_have_a_share(card, {name: wanted[name] for name in wanted if name != it})]
    who = f"{suspects[0]} has no" if len(suspects) == 1 else "not every component has its"
    there = ", ".join(f"{it.least_mib:.0f}" for it in card.processes) or "none"
    return Breach(
        "DeviceFallback",
        f"{who} share of the card: wanted at least {_least_words(wanted)}; processes on the card, MiB: {there}",
    )


def _absent(wanted: Mapping[str, float], tenancy: Tenancy) -> Breach | None:
    held = {name: tenancy.shares[name].least_mib for name in wanted if name in tenancy.shares}
    absent = [
        f"{name} held {held.get(name, 0.0):.0f} MiB of the card, and should hold {least:.0f} MiB at least"
        for name, least in wanted.items()
        if held.get(name, 0.0) < least
    ]
    return Breach("DeviceFallback", "; ".join(absent)) if absent else None


def throttled(evidence: Evidence) -> Breach | None:
    """The clocks are the card's own, not those of a hot day or a weak supply."""
    for watched in _watched(evidence):
        card = watched.card
        if card is None or card.throttled is None or card.throttled <= _THROTTLED_SHARE * card.readings:
            continue
        clock = f", down to {card.sm_clock_mhz} MHz" if card.sm_clock_mhz is not None else ""
        heat = f", up to {card.temperature_celsius} C" if card.temperature_celsius is not None else ""
        reasons = ", ".join(card.throttle_reasons)
        words = f"{reasons} in {card.throttled} of {card.readings} readings{watched.words}{clock}{heat}"
        return Breach("Throttled", words)
    return None


def component_restarted(evidence: Evidence) -> Breach | None:
    """No container starts or ends from the beginning of the window to the end of the last round after it."""
    # Kubernetes cuts its times to the second: one of the window's first second may seem to lie before it.
    start = evidence.conduct.started_at.replace(microsecond=0)
    end = max([evidence.conduct.ended_at, *(it.ended_at for it in evidence.conduct.rounds)])
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
    for watched in _watched(evidence):
        if (late := sent_late(watched.punctuality, watched.p95, watched.words)) is not None:
            return Breach("ProbeStarved", late)
    return None


def sent_late(punctuality: Sequence[Punctuality], p95: Mapping[str, float], words: str = "") -> str | None:
    """Which requests a probe has sent too late for its figures to count; None: all of them in time.

    Args:
        punctuality: of each component.
        p95: its latency in ms, where it is known.
        words: when that was, after a comma.
    """
    for it in punctuality:
        least = _LATE_MS if it.requests >= _FEW_REQUESTS else _LATE_MS_OF_FEW
        bound = max(least, _LATE_SHARE * p95.get(it.component, 0.0))
        if it.late_p99_ms > bound:
            return (
                f"requests to {it.component} were sent up to {it.late_p99_ms:.1f} ms late (p99){words}, "
                f"and at most {bound:.1f} ms count as in time"
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
        if is_slowdown(metric):
            sent = min((it for it in (sent, _sent_alone(evidence, component)) if it is not None), default=None)
        samples = found.samples if found is not None else 0
        if sent is None or samples >= least:
            continue
        sent //= conditions_beside(evidence.spec, metric)
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


def is_slowdown(metric: str) -> bool:
    """Whether it rests on a round of its component alone, beside the window."""
    return ".slowdown." in metric


def _sent_alone(evidence: Evidence, component: str) -> int | None:
    """Requests that were due in the round of a component alone; None: there was none."""
    alone = (it for it in evidence.conduct.rounds if it.loaded == (component,))
    return next((one.requests for it in alone for one in it.punctuality), None)


def conditions_beside(spec: ExperimentSpec, metric: str) -> int:
    """Among how many conditions the requests are split of which a metric names one; 1 for all others."""
    component, _, name = metric.partition(".")
    corpora = (it.corpus_ref for it in spec.workload.streams if it.component == component)
    noises = (it.noise.conditions for it in corpora if it is not None and it.noise is not None)
    return max((len(it) for it in noises if name.removeprefix("wer.") in it), default=1)


GATES: tuple[Gate, ...] = (
    card_error,
    not_colocated,
    second_tenant,
    device_fallback,
    throttled,
    component_restarted,
    probe_starved,
    sample_too_small,
)
"""In the order in which they are asked: what explains the others comes first."""


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


def _least_words(wanted: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {mib:.0f} MiB" for name, mib in wanted.items())
