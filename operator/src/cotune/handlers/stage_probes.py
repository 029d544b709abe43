"""The probes of stages: whether they may run, which run is next, and what came of it.

A run is written into the stage's status before its pod is made, and its result before the pod is deleted: whoever takes
over in between finds one or the other.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.grant import GrantService
from cotune.api.profile import ProfilePhase, ProfileStatus, Stage, StageStatus
from cotune.api.stage_probe import ProbeRun, StageProbe, StageProbeStatus
from cotune.cluster.grants import GrantInvalidError, grants_of
from cotune.cluster.kinds import CONFIG_MAP
from cotune.cluster.objects import REFUSALS, ApiError, Object, Objects
from cotune.cluster.probe_pods import NotOursError, ProbePods, RunEnd
from cotune.cluster.workloads import Workload
from cotune.handlers.statuses import status_of
from cotune.rollout.probe_access import services
from cotune.rollout.probe_runs import (
    current,
    digest,
    is_baseline_run_due,
    is_complete,
    is_given_up,
    is_run_due,
    is_stale,
    wanted,
    wants_baseline,
)
from cotune.rollout.progress import IN_PROGRESS, Waiting, by_name, with_stage
from cotune.rollout.stage import StageStep
from cotune.rollout.targets import Refusal
from cotune.trials.outcome import NoResultError, probe_result
from cotune.trials.probe_pod import ProbeImage
from cotune.trials.stage_probe_pod import StageIdentity, run_deadline_seconds, stage_probe_pod
from cotune.trials.truth import sent_late

_AGAIN = timedelta(minutes=10)
"""After a baseline that came to nothing."""

_logger = logging.getLogger("cotune.probes")

_Services = Mapping[str, GrantService]


@dataclass(frozen=True)
class StageProbes:
    """Looks after the probes of stages; all that it knows lies in the profiles' statuses."""

    objects: Objects
    image: ProbeImage

    async def hindrance(self, body: Object, stage: Stage) -> Waiting | None:
        """Why a stage with a probe must not begin: its owner, the API server, or what the load is made of."""
        probe = stage.probe
        if probe is None:
            return None
        found = await self._services(body, stage, probe)
        if isinstance(found, Refusal):
            return Waiting(found.reason, f"stage {stage.name}: {found.message}", is_stalled=True)
        namespace = body["metadata"]["namespace"]
        for name in probe.config_maps:
            if await self.objects.find(CONFIG_MAP, namespace, name) is None:
                message = f"stage {stage.name}: its probe reads ConfigMap {name}, and namespace {namespace} has none"
                return Waiting("CorpusNotFound", message, is_stalled=True)
        known = by_name(ProfileStatus.model_validate(status_of(body))).get(stage.name)
        if known is not None and known.probe is not None and known.probe.begun:
            return None  # One was let in, and what becomes of the others is said of them.
        manifest = stage_probe_pod(_identity(body, stage), probe, found, self.image, 0, 0)
        try:
            await self._pods(body).rehearse(manifest)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            message = f"stage {stage.name}: its probe's pod would be refused: {error.message}"
            return Waiting("ProbeRefused", message, is_stalled=True)
        return None

    async def baseline(
        self, body: Object, stage: Stage, found: Mapping[str, Workload], status: ProfileStatus, now: datetime
    ) -> tuple[Waiting | None, ProfileStatus]:
        """Measure the stage as it is before its change, if a gate compares with that; None: nothing holds it up.

        Args:
            body: the profile.
            stage: which is to begin.
            found: its workloads; one that is changed makes the baseline another.
            status: in which the runs are recorded.
            now: the time.
        """
        probe = stage.probe
        if probe is None or not wants_baseline(stage):
            return None, status
        known = by_name(status).get(stage.name)
        record = current(stage, probe, known.probe if known is not None else None)
        of = digest({name: it.observed.generation for name, it in found.items()})
        if record.baseline_of != of or (record.pod is None and is_stale(record.baseline, now)):
            record = record.model_copy(update={"baseline_of": of, "baseline": ()})
        if is_given_up(stage, probe, record.baseline) and now - record.baseline[-1].ended_at > _AGAIN:
            record = record.model_copy(update={"baseline": ()})
        record = await self._gone_on(body, stage, probe, record, now, is_baseline=True)
        if record.pod is None and is_complete(stage, probe, record.baseline):
            return None, _with_record(status, stage, record, "measured before it begins")
        last = record.baseline[-1] if record.baseline else None
        why = f"; run {last.number}: {last.error}" if last is not None and last.error else ""
        message = f"stage {stage.name}: {len(record.baseline)} of {probe.runs} runs of its probe before it begins{why}"
        if is_given_up(stage, probe, record.baseline):
            waiting = Waiting("BaselineNotMeasured", message, is_stalled=True)
        else:
            waiting = Waiting("MeasuringBaseline", message)
        return waiting, _with_record(status, stage, record, message)

    async def interrupted(self, body: Object, stage: Stage, waiting: Waiting, status: ProfileStatus) -> ProfileStatus:
        """The status of a stage that waits for something else: it measures nothing meanwhile."""
        known = by_name(status).get(stage.name)
        is_measuring = waiting.reason in {"MeasuringBaseline", "BaselineNotMeasured"}
        if is_measuring or known is None or known.probe is None or known.probe.pod is None:
            return status
        record = await self._without_pod(body, known.probe)
        return status.model_copy(
            update={"stages": with_stage(status.stages, known.model_copy(update={"probe": record}))}
        )

    async def withdrawn(self, body: Object, status: ProfileStatus) -> ProfileStatus:
        """The status without the pods of stages that have not begun, and must not now: another one is on its way."""
        stages = status.stages
        for it in stages:
            if it.phase is not ProfilePhase.PENDING or it.probe is None or it.probe.pod is None:
                continue
            try:
                record = await self._without_pod(body, it.probe)
            except ApiError as error:
                # The other stage may be on its way back, which is never held up: the next pass tries again.
                _logger.warning("%s: the pod %s stays for now: %s", body["metadata"]["name"], it.probe.pod, error)
                continue
            stages = with_stage(stages, it.model_copy(update={"probe": record}))
        return status.model_copy(update={"stages": tuple(stages)})

    async def gone_on(
        self, body: Object, stage: Stage, state: StageStatus, step: StageStep, now: datetime
    ) -> StageStatus:
        """The state with what its probe has done meanwhile, if the stage bakes; nothing of it ends the pass."""
        if stage.probe is None or state.phase is not ProfilePhase.BAKING or step.phase in IN_PROGRESS - {state.phase}:
            return state
        record = current(stage, stage.probe, state.probe)
        since = state.phase_started_at or now
        try:
            record = await self._gone_on(body, stage, stage.probe, record, now, since=since)
        except ApiError as error:
            # It says nothing of the stage, whose pods are to be looked at all the same.
            _logger.warning("%s: stage %s: its probe: %s", body["metadata"]["name"], stage.name, error)
        return state.model_copy(update={"probe": record})

    async def tidied(self, body: Object, stage: Stage, state: StageStatus, step: StageStep) -> StageStep:
        """The step of a stage that does not bake any more, or has no probe any more, without its pod."""
        record = step.probe or state.probe
        if record is None or record.pod is None or (step.phase is ProfilePhase.BAKING and stage.probe is not None):
            return step
        try:
            return replace(step, probe=await self._without_pod(body, record))
        except ApiError as error:
            if step.phase not in IN_PROGRESS:
                raise
            # A way back is never held up: the next pass tries again.
            _logger.warning("%s: the pod %s stays for now: %s", body["metadata"]["name"], record.pod, error)
            return replace(step, probe=record)

    async def _gone_on(
        self,
        body: Object,
        stage: Stage,
        probe: StageProbe,
        record: StageProbeStatus,
        now: datetime,
        *,
        since: datetime | None = None,
        is_baseline: bool = False,
    ) -> StageProbeStatus:
        """One step of a series: begin a run, look at it, or delete its pod; each is written before the next."""
        series = record.baseline if is_baseline else record.runs
        if record.pod is None:
            is_due = is_baseline_run_due if is_baseline else is_run_due
            if not is_due(stage, probe, series, since or now, now):
                return record
            number = record.begun + 1
            pod = _identity(body, stage).pod_name(number)
            return record.model_copy(update={"begun": number, "pod": pod, "pod_since": now})
        if record.pod != _identity(body, stage).pod_name(record.begun) or any(
            it.number == record.begun for it in (*record.baseline, *record.runs)
        ):
            return await self._without_pod(body, record)
        end = await self._ended(body, stage, probe, record, len(series), now)
        if end is None:
            return record
        run = _run(stage, record.begun, end, now)
        return record.model_copy(update={"baseline" if is_baseline else "runs": (*series, run)})

    async def _ended(
        self, body: Object, stage: Stage, probe: StageProbe, record: StageProbeStatus, place: int, now: datetime
    ) -> RunEnd | None:
        try:
            found = await self._services(body, stage, probe)
            if isinstance(found, Refusal):
                return RunEnd(error=f"{found.reason}: {found.message}")
            manifest = stage_probe_pod(_identity(body, stage), probe, found, self.image, record.begun, place)
            end = await self._pods(body).ended(manifest)
        except NotOursError as error:
            return RunEnd(error=str(error))
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return RunEnd(error=error.message)
        seconds = run_deadline_seconds(probe)
        if end is None and now - (record.pod_since or now) > timedelta(seconds=seconds):
            return RunEnd(error=f"no result within {seconds} s")
        return end

    async def _without_pod(self, body: Object, record: StageProbeStatus) -> StageProbeStatus:
        """The record after the pod of its last run was deleted. Where that is refused, it ends by itself."""
        assert record.pod is not None
        try:
            await self._pods(body).delete(record.pod)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
        return record.model_copy(update={"pod": None, "pod_since": None})

    async def _services(self, body: Object, stage: Stage, probe: StageProbe) -> _Services | Refusal:
        """The grants are read anew for every look: an owner who takes one back wants no load any more."""
        try:
            grants = await grants_of(self.objects, stage.namespace)
        except GrantInvalidError as error:
            return Refusal("GrantInvalid", str(error))
        return services(probe, body["metadata"]["namespace"], stage.namespace, grants)

    def _pods(self, body: Object) -> ProbePods:
        return ProbePods(self.objects, body["metadata"]["namespace"], body["metadata"]["uid"])


def _identity(body: Object, stage: Stage) -> StageIdentity:
    metadata = body["metadata"]
    retries = ProfileStatus.model_validate(status_of(body)).retries
    return StageIdentity(metadata["namespace"], metadata["name"], metadata["uid"], stage.name, stage.namespace, retries)


def _with_record(status: ProfileStatus, stage: Stage, record: StageProbeStatus, message: str) -> ProfileStatus:
    state = by_name(status).get(stage.name) or StageStatus(name=stage.name, phase=ProfilePhase.PENDING)
    state = state.model_copy(update={"probe": record, "message": message[:4096]})
    return status.model_copy(update={"stages": with_stage(status.stages, state)})


def _run(stage: Stage, number: int, end: RunEnd, now: datetime) -> ProbeRun:
    """What a run has shown of the figures that the stage's gates name; one that sent too late has shown nothing."""
    error = end.error
    if not error:
        try:
            result = probe_result(end.log)
        except NoResultError as found:
            return ProbeRun(number=number, ended_at=now, error=str(found)[:512])
        measured = {it.metric: float(it.value) for it in result.measurements}
        suffix = ".latency.p95"
        p95 = {name.removesuffix(suffix): value for name, value in measured.items() if name.endswith(suffix)}
        late = sent_late(result.conduct.punctuality, p95) if result.conduct is not None else "it does not say how"
        if late is None:
            return ProbeRun(number=number, ended_at=now, measurements=wanted(stage, result.measurements))
        error = f"ProbeStarved: {late}"
    return ProbeRun(number=number, ended_at=now, error=error[:512])
