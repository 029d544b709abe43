"""From the API's objects to the summary's models."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cotune.api.experiment import ExperimentStatus
from cotune.api.profile import ProfilePhase, ProfileStatus
from cotune.api.trial import TrialSpec, TrialStatus

from cotune_demo.summary import (
    NothingFeasibleSummary,
    PlanSummary,
    ProfileSummary,
    RefusedSummary,
    StageSummary,
    TargetExperimentSummary,
    TrialSummary,
    ValidatedSummary,
)

LABEL_TRIAL, _LABEL_COMPONENT = "cotune.dev/trial", "cotune.dev/component"

TRIAL_OVER = frozenset({"Succeeded", "Failed", "Skipped", "Invalid"})

_FAILED_PHASES = frozenset({ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK, ProfilePhase.DEGRADED})


def trial(body: Mapping[str, Any], probe_pods: int) -> TrialSummary:
    """A GpuTrial."""
    spec = TrialSpec.model_validate(body["spec"])
    status = TrialStatus.model_validate(body.get("status") or {})
    return TrialSummary(
        name=body["metadata"]["name"],
        parameters={it.name: it.value for it in spec.candidate},
        repeat=spec.repeat,
        phase=str(status.phase),
        reason=status.reason,
        message=status.message,
        metrics={it.metric: float(it.value) for it in status.measurements},
        fitness=float(status.fitness) if status.fitness is not None else None,
        started_at=status.started_at,
        finished_at=status.finished_at,
        probe_pods=probe_pods,
        purpose=str(spec.purpose),
        predicted="" if spec.prediction is None else "fits" if spec.prediction.fits else spec.prediction.reason,
    )


def probes(pods: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Trial and identity of each probe's pod."""
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        if labels.get(_LABEL_COMPONENT) == "probe":
            yield labels[LABEL_TRIAL], pod["metadata"]["uid"]


def plan(status: ExperimentStatus) -> PlanSummary | None:
    """What an experiment's status says of its space; None: nothing was planned."""
    if status.plan is None:
        return None
    saved = status.gpu_seconds_saved
    return PlanSummary(
        candidates=status.plan.candidates,
        fitting=status.plan.fitting,
        refused=tuple(
            RefusedSummary(reason=it.reason, count=it.count, skipped=it.skipped, example=it.example)
            for it in status.plan.refused
        ),
        wrong_fits=status.trials.wrong_fits,
        wrong_does_not_fit=status.trials.wrong_does_not_fit,
        gpu_seconds_saved=float(saved) if saved is not None else None,
    )


def nothing_feasible(body: Mapping[str, Any], trials: int, pods: int, seconds: float) -> NothingFeasibleSummary:
    """A GpuAllocationExperiment that has ended without a trial, or should have."""
    status = ExperimentStatus.model_validate(body.get("status") or {})
    stalled = next((it for it in status.conditions if (it.type, it.status) == ("Stalled", "True")), None)
    return NothingFeasibleSummary(
        name=body["metadata"]["name"],
        phase=str(status.phase),
        reason=stalled.reason if stalled else "",
        message=stalled.message if stalled else "",
        plan=plan(status),
        trials=trials,
        pods=pods,
        seconds=round(seconds, 1),
    )


def target_experiment(
    name: str, status: ExperimentStatus, trials: tuple[TrialSummary, ...], changes: Mapping[str, str]
) -> TargetExperimentSummary:
    """A GpuAllocationExperiment whose changes were validated on its target.

    Args:
        name: of the experiment.
        status: of the experiment, at its end.
        trials: all that it had.
        changes: those of its profile; empty: there is none.
    """
    return TargetExperimentSummary(
        name=name,
        phase=str(status.phase),
        conditions={it.type: it.reason for it in status.conditions},
        gpu_seconds=round(float(status.gpu_seconds or 0), 1),
        trials=trials,
        validated=tuple(
            ValidatedSummary(parameter=it.parameter, value=it.value, kept=it.kept, reason=it.reason, message=it.message)
            for it in (status.validation.changes if status.validation is not None else ())
        ),
        changes=changes,
    )


def profile(body: Mapping[str, Any]) -> ProfileSummary:
    """A GpuProfile."""
    status = ProfileStatus.model_validate(body.get("status") or {})
    return ProfileSummary(
        name=body["metadata"]["name"],
        changes={f"{it['component']}.{it['env']}": it["to"] for it in body["spec"]["changes"]},
        phase=str(status.phase),
        stages=tuple(
            StageSummary(
                name=it.name,
                phase=str(it.phase),
                message=it.message,
                revision=it.revision,
                last_good_revision=it.last_good_revision,
                started_at=it.started_at,
                finished_at=it.finished_at,
            )
            for it in status.stages
        ),
    )


def failed_stage(found: ProfileSummary) -> StageSummary | None:
    """The stage in which a profile was taken back."""
    return next((it for it in found.stages if it.phase in _FAILED_PHASES), None)


def degraded_at(body: Mapping[str, Any]) -> datetime | None:
    """When the profile's Degraded condition became true."""
    status = ProfileStatus.model_validate(body.get("status") or {})
    return next(
        (it.last_transition_time for it in status.conditions if (it.type, it.status) == ("Degraded", "True")), None
    )


def errors_at(pod: Mapping[str, Any]) -> list[datetime]:
    """When containers of a pod have ended with an error."""
    ended = [
        it[state]["terminated"]
        for it in pod.get("status", {}).get("containerStatuses", ())
        for state in ("state", "lastState")
        if "terminated" in it.get(state, {})
    ]
    return [datetime.fromisoformat(it["finishedAt"]) for it in ended if it["exitCode"] != 0 and it.get("finishedAt")]
