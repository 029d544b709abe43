"""What a trial does next: Pending -> Draining -> Starting -> Measuring -> finished.

The probe's pod comes first. It becomes ready when it has seen the card drained, holds its share of the card for the
whole trial, and loads the services when all of them answer. Components start in the order of their dependencies, each
when those it depends on are ready.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from cotune.api.experiment import Component, Workload
from cotune.api.stage_probe import StageProbe
from cotune.api.trial import TrialPhase
from cotune.measurement.contract import GRACE_SECONDS
from cotune.trials.pod_failure import PodFailure
from cotune.trials.root_cause import Cause, root_cause


class PodState(StrEnum):
    """A pod as far as a trial is concerned."""

    WAITING = "Waiting"
    """Not scheduled, not running or not ready yet."""
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class ObservedPod:
    """One pod, read once."""

    state: PodState
    log: str | None = ""
    """The end of its log, for a pod that ended; None: the kubelet does not give it at the moment."""
    hindrance: PodFailure | None = None
    """What keeps a waiting pod from starting that the candidate is not to blame for."""
    oom_killed: tuple[str, ...] = ()
    """Containers that the kernel has ended for want of the machine's memory."""


@dataclass(frozen=True)
class Observed:
    """All that a trial's next step depends on, read in one pass."""

    holds_card: bool
    """Whether this trial holds the Lease of its card."""
    probe: ObservedPod | None
    components: Mapping[str, ObservedPod]
    """The pods that exist, by component."""
    refused: PodFailure | None = None
    """Why the last pass could not create a pod, where that may pass."""
    lost_node: str = ""
    """Why nothing more is heard from the trial's node; empty: it is there."""


@dataclass(frozen=True)
class Deadlines:
    """How long each phase may last."""

    drain: timedelta
    start: timedelta
    measure: timedelta


_LEAST_SLACK, _MOST_SLACK = timedelta(seconds=60), timedelta(minutes=15)


def measuring_deadline(workload: Workload | StageProbe, rounds: timedelta = timedelta()) -> timedelta:
    """How long a probe may take for a workload.

    The load, with the answers that are waited for before and after it; and for its own start and the first request
    with every clip, which a slow server takes longer for, half as long again, within bounds.

    Args:
        workload: the load on all services.
        rounds: what the rounds of the interference matrix take at most.
    """
    load = timedelta(seconds=workload.load_seconds)
    slack = min(max(load / 2, _LEAST_SLACK), _MOST_SLACK)
    return load + 2 * timedelta(seconds=GRACE_SECONDS) + slack + rounds


@dataclass(frozen=True)
class Step:
    """One pass: the phase that follows, and what to do. Doing it twice does no harm."""

    phase: TrialPhase
    reason: str = ""
    message: str = ""
    start_probe: bool = False
    start: tuple[str, ...] = ()
    """Components whose pods are to be created."""
    clean_up: bool = False
    """Delete every pod and service, and give the card's Lease back once they are gone.

    Only ever in a finished phase: the result must be stored before the pods that have it go.
    """
    blames_the_card: bool = False
    """The next trial on the card would fare no better: its node is left alone for a while."""


def decide(
    components: Sequence[Component],
    phase: TrialPhase,
    phase_since: datetime,
    observed: Observed,
    deadlines: Deadlines,
    now: datetime,
) -> Step:
    """The next step of a trial in `phase` since `phase_since`."""
    elapsed = now - phase_since
    is_run = phase in {TrialPhase.DRAINING, TrialPhase.STARTING, TrialPhase.MEASURING}
    if is_run and observed.lost_node:
        # Before all else: of pods on such a node the API server only knows what was. The candidate is not to blame that
        # they are not ready, and no waiting is worth it: another node may run it meanwhile.
        return _invalid("NodeLost", observed.lost_node)
    if is_run and observed.holds_card and (unread := _unread(observed)):
        return log_unreadable(phase, elapsed, deadlines, unread)
    match phase:
        case TrialPhase.PENDING:
            if not observed.holds_card:
                return Step(phase, "WaitingForCard", "another trial runs on the card")
            return Step(TrialPhase.DRAINING, start_probe=True)
        case TrialPhase.DRAINING:
            return _draining(observed, elapsed, deadlines.drain)
        case TrialPhase.STARTING:
            return _starting(components, observed, elapsed, deadlines.start)
        case TrialPhase.MEASURING:
            return _measuring(components, observed, elapsed, deadlines.measure)
        case TrialPhase.SUCCEEDED | TrialPhase.FAILED | TrialPhase.SKIPPED | TrialPhase.INVALID:
            return Step(phase, clean_up=observed.holds_card or observed.probe is not None or bool(observed.components))


def log_unreadable(phase: TrialPhase, elapsed: timedelta, deadlines: Deadlines, pods: str) -> Step:
    """The step of a trial that would be judged by a log which cannot be read: it is waited for as long as the phase."""
    limits = {TrialPhase.DRAINING: deadlines.drain, TrialPhase.STARTING: deadlines.start}
    message = f"the kubelet does not give the log of {pods}"
    if elapsed > limits.get(phase, deadlines.measure):
        return _invalid("LogUnreadable", message)
    return Step(phase, "LogUnreadable", message)


def _unread(observed: Observed) -> str:
    pods = dict(observed.components) | ({"the probe": observed.probe} if observed.probe is not None else {})
    return ", ".join(name for name, it in pods.items() if it.log is None)


def _draining(observed: Observed, elapsed: timedelta, deadline: timedelta) -> Step:
    if not observed.holds_card:
        return _invalid("CardLost", "the card's Lease was lost")
    if observed.probe is None:
        if elapsed > deadline and observed.refused is not None:
            return _invalid(observed.refused.reason, observed.refused.message)
        return Step(TrialPhase.DRAINING, start_probe=True)
    match observed.probe.state:
        case PodState.READY:
            return Step(TrialPhase.STARTING)
        case PodState.FAILED | PodState.SUCCEEDED:
            return _probe_ended(observed.probe.log or "")
        case PodState.WAITING:
            if (why := observed.probe.hindrance) is not None:
                message = f"the probe: {why.message}"
                if elapsed > deadline:
                    return _invalid(why.reason, message)
                return Step(TrialPhase.DRAINING, why.reason, message)
            if elapsed > deadline:
                message = f"the card was not drained within {deadline.total_seconds():g} s"
                return replace(_invalid("NotDrained", message), blames_the_card=True)
            return Step(TrialPhase.DRAINING, "WaitingForCard", "the card is not drained yet")


def _starting(components: Sequence[Component], observed: Observed, elapsed: timedelta, deadline: timedelta) -> Step:
    if broken := _broken(components, observed):
        return broken
    ready = {name for name, pod in observed.components.items() if pod.state is PodState.READY}
    missing = [it for it in components if it.name not in ready]
    if not missing:
        return Step(TrialPhase.MEASURING)
    hindered = [
        (it.name, why)
        for it in missing
        if it.name in observed.components and (why := observed.components[it.name].hindrance) is not None
    ]
    if elapsed > deadline:
        if hindered:
            return _invalid(hindered[0][1].reason, "; ".join(f"{name}: {why.message}" for name, why in hindered))
        if observed.refused is not None:
            return _invalid(observed.refused.reason, observed.refused.message)
        names = ", ".join(it.name for it in missing)
        return _failed("NotReadyInTime", f"not ready within {deadline.total_seconds():g} s: {names}")
    start = tuple(it.name for it in missing if it.name not in observed.components and ready.issuperset(it.depends_on))
    if hindered:
        message = "; ".join(f"{name}: {why.message}" for name, why in hindered)
        return Step(TrialPhase.STARTING, hindered[0][1].reason, message, start=start)
    return Step(TrialPhase.STARTING, "WaitingForReadiness", ", ".join(it.name for it in missing), start=start)


def _measuring(components: Sequence[Component], observed: Observed, elapsed: timedelta, deadline: timedelta) -> Step:
    # The card comes first: whoever lost it may have measured somebody else's load. The probe's success comes next: what
    # it measured stands, whatever ends after it.
    vanished = [it.name for it in components if it.name not in observed.components]
    has_result = observed.probe is not None and observed.probe.state is PodState.SUCCEEDED
    if observed.holds_card and has_result and not vanished:
        return Step(TrialPhase.SUCCEEDED)
    if broken := _broken(components, observed):
        return broken
    if vanished:
        # With the pod went its log: what it said of its memory, and whether it had any left.
        return _invalid("PodVanished", f"the pod is gone: {', '.join(vanished)}")
    if elapsed > deadline:
        return _invalid("ProbeTimedOut", f"no result within {deadline.total_seconds():g} s")
    return Step(TrialPhase.MEASURING)


def _broken(components: Sequence[Component], observed: Observed) -> Step | None:
    """What ends a trial in both of the phases in which its stack runs."""
    for component in components:
        pod = observed.components.get(component.name)
        if pod is not None and pod.state in {PodState.FAILED, PodState.SUCCEEDED}:
            cause = root_cause(pod.log or "")
            if cause.cause.blames_the_candidate():
                return _failed(cause.cause, f"{component.name}: {cause.line}")
            if cause.cause is Cause.CARD_ERROR:
                return _card_error(f"{component.name}: {cause.line}")
            if cause.cause is Cause.UNKNOWN and pod.oom_killed:
                names = ", ".join(pod.oom_killed)
                words = f"{component.name}: the kernel ended container {names} for want of memory of the machine"
                return _failed(Cause.OOM_KILLED, words)
            return _invalid(f"ComponentEnded{cause.cause}", f"{component.name}: {cause.line}")
    if not observed.holds_card:
        return _invalid("CardLost", "the card's Lease was lost")
    if observed.probe is None:
        return _invalid("PodVanished", "the probe's pod is gone")
    if observed.probe.state is PodState.FAILED:
        return _probe_ended(observed.probe.log or "")
    return None


def _probe_ended(log: str) -> Step:
    cause = root_cause(log)
    return _card_error(cause.line) if cause.cause is Cause.CARD_ERROR else _invalid("ProbeEnded", cause.line)


def _card_error(message: str) -> Step:
    return replace(_invalid(Cause.CARD_ERROR, message), blames_the_card=True)


def _failed(reason: str, message: str) -> Step:
    """The candidate is to blame."""
    return Step(TrialPhase.FAILED, reason, message)


def _invalid(reason: str, message: str) -> Step:
    """The candidate is not to blame: the trial says nothing about it and never scores."""
    return Step(TrialPhase.INVALID, reason, message)
