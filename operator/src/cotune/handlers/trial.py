"""One pass over a GpuTrial: hold the card, start the stack in order, keep the result, clean up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from prometheus_client import Counter
from pydantic import ValidationError

from cotune.api.conditions import with_condition
from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus
from cotune.api.trial import Measurement, ObservedServer, Prediction, Purpose, TrialPhase, TrialSpec, TrialStatus
from cotune.cluster.cards import Cards, Holder, QuarantinedError
from cotune.cluster.events import Events
from cotune.cluster.kinds import CONFIG_MAP, EXPERIMENT, TRIAL
from cotune.cluster.nodes import nodes, why_lost
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, Object, Objects
from cotune.cluster.stacks import NameTakenError, ObservedStack, Stacks
from cotune.fitness.judgement import Judgement, judge
from cotune.handlers.experiment import LABEL_EXPERIMENT, spec_digest
from cotune.handlers.settings import Settings
from cotune.handlers.statuses import condition, status_of, write_status
from cotune.measurement.contract import ProbeResult
from cotune.planning.calibration import prediction_errors
from cotune.search.space import Candidate, Space
from cotune.trials.lifecycle import Deadlines, Observed, Step, decide, log_unreadable, measuring_deadline
from cotune.trials.outcome import ComponentRun, NoResultError, measurements, observed_server, probe_result
from cotune.trials.placement import place
from cotune.trials.pod_failure import PodFailure
from cotune.trials.probe_pod import PROBE, probe_pod
from cotune.trials.render import (
    ANNOTATION_DIGEST,
    Manifest,
    TemplateError,
    TrialIdentity,
    component_pod,
    component_service,
    environment,
)
from cotune.trials.truth import Breach, Evidence, breach

_POLL, _LATER = timedelta(seconds=0.5), timedelta(seconds=5)
_QUARANTINE = timedelta(minutes=10)
"""For which a card that was not drained in time is left alone."""

TRIALS = Counter("cotune_trials_total", "Trials that have finished.", ["phase", "reason"])


@dataclass(frozen=True)
class TrialReconciler:
    """Reconciles trials."""

    objects: Objects
    cards: Cards
    stacks: Stacks
    events: Events
    settings: Settings

    async def reconcile(self, body: Object, now: datetime) -> timedelta | None:
        """One pass over the trial as it was just read."""
        spec = TrialSpec.model_validate(body["spec"])
        status = TrialStatus.model_validate(status_of(body))
        identity = _identity(body, spec)
        if "deletionTimestamp" in body["metadata"]:
            return None  # The garbage collector takes its pods, and the next trial its card.
        if spec.skipped and not status.phase.is_finished():
            reason, message = (spec.prediction.reason, spec.prediction.message) if spec.prediction else ("", "")
            return await self._write(body, status, Step(TrialPhase.SKIPPED, reason, message), now)
        if status.phase.is_finished():
            return await self._finish(body, identity, spec, status, now)
        experiment = await self.objects.find(EXPERIMENT, identity.namespace, spec.experiment)
        if experiment is None or not _owns(experiment, body):
            # As a rule the garbage collector takes the trial with it; an orphan must not keep its card.
            step = Step(TrialPhase.INVALID, "ExperimentGone", "the experiment that owned this trial does not exist")
            return await self._write(body, status, step, now)
        if _digest_or_none(experiment) != body["metadata"].get("annotations", {}).get(ANNOTATION_DIGEST):
            step = Step(TrialPhase.INVALID, "SpecChanged", "the experiment's spec is not what this trial was made for")
            return await self._write(body, status, step, now)
        return await self._advance(body, identity, spec, status, ExperimentSpec.model_validate(experiment["spec"]), now)

    async def _advance(
        self,
        body: Object,
        identity: TrialIdentity,
        spec: TrialSpec,
        status: TrialStatus,
        experiment: ExperimentSpec,
        now: datetime,
    ) -> timedelta | None:
        node = status.node or await self._acquire_any(identity, experiment, now)
        if isinstance(node, Step):
            await self._write(body, status, node, now)
            return _LATER if node.reason == "NodeQuarantined" else _POLL
        stack = await self.stacks.observe(identity)
        holder = await self.cards.holder(node)
        lost = await why_lost(self.objects, node)
        step = decide(
            experiment.stack.components,
            status.phase,
            status.phase_started_at or now,
            Observed(holder == Holder.of(identity), stack.probe, stack.components, _refused(status), lost),
            self._deadlines(experiment),
            now,
        )
        measured, servers = (), ()
        try:
            begins = status.phase is TrialPhase.PENDING
            if begins and (missing := await self._missing_corpus(identity, experiment)):
                why = Step(TrialPhase.PENDING, "CorpusNotFound", f"no ConfigMap {missing} in {identity.namespace}")
                return await self._put_off(body, identity, status, node, why, now)
            await self.stacks.ensure(identity, self._manifests(identity, spec, experiment, node, step))
            step, measured, servers = await self._measured(status, step, experiment, stack, spec.prediction, now)
            if step.reason == "NotDrained":
                step = await self._quarantined(identity, step, stack, node, now)
        except TemplateError as error:
            step = Step(TrialPhase.INVALID, "TemplateRefused", str(error))
        except NameTakenError as error:
            step = Step(TrialPhase.INVALID, "NameTaken", str(error))
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            if _may_pass(error):
                step = Step(status.phase, "QuotaExceeded", error.message)
                if status.phase is TrialPhase.PENDING:
                    return await self._put_off(body, identity, status, node, step, now)
            else:
                # Pod Security, a missing right or a field that no pod has: the same again would be refused again.
                step = Step(TrialPhase.INVALID, "PodRefused", error.message)
        errors = prediction_errors(spec.prediction, measured) if spec.prediction is not None else ()
        updated = status.model_copy(
            update={"node": node, "measurements": measured, "servers": servers, "prediction_errors": errors}
        )
        return await self._write(body, status, step, now, updated)

    async def _put_off(
        self, body: Object, identity: TrialIdentity, status: TrialStatus, node: str, why: Step, now: datetime
    ) -> timedelta:
        """What a trial needs is not there yet: it waits, and others may have the card meanwhile."""
        await self.cards.release(node, identity)
        await self._write(body, status, why, now, status.model_copy(update={"node": None}))
        return _LATER

    async def _acquire_any(self, identity: TrialIdentity, experiment: ExperimentSpec, now: datetime) -> str | Step:
        """A node whose card the trial holds now, or the step of a trial that has none."""
        containers = len(experiment.stack.components) + 1
        quarantined: list[str] = []
        for node in place(await nodes(self.objects), experiment.gpu, containers).nodes:
            try:
                if await self.cards.acquire(node, identity, now):
                    return node
            except QuarantinedError as error:
                quarantined.append(str(error))
        if quarantined:
            return Step(TrialPhase.PENDING, "NodeQuarantined", "; ".join(quarantined))
        return Step(TrialPhase.PENDING, "WaitingForCard", "another trial runs on every suitable card")

    async def _quarantined(
        self, identity: TrialIdentity, step: Step, stack: ObservedStack, node: str, now: datetime
    ) -> Step:
        """Keep the next trial from waiting for a card that somebody else uses, and say what the probe saw there."""
        seen = await self.stacks.last_line(stack, PROBE)
        why = f"{step.message}: {seen}" if seen else step.message
        until = now + _QUARANTINE
        await self.cards.quarantine(node, identity, until, why)
        return replace(step, message=f"{why}; {node} is in quarantine until {until.isoformat(timespec='seconds')}")

    def _manifests(
        self, identity: TrialIdentity, spec: TrialSpec, experiment: ExperimentSpec, node: str, step: Step
    ) -> list[Manifest]:
        made: list[Manifest] = []
        if step.start_probe:
            made.append(probe_pod(identity, experiment, node, self.settings.probe))
        for component in experiment.stack.components:
            if component.name in step.start:
                variables = environment(component.name, experiment.parameters, _candidate(spec))
                made += [component_service(identity, component), component_pod(identity, component, variables, node)]
        return made

    async def _missing_corpus(self, identity: TrialIdentity, experiment: ExperimentSpec) -> str | None:
        """A pod whose volume is missing would wait for it without a word."""
        for name in experiment.workload.config_maps:
            if await self.objects.find(CONFIG_MAP, identity.namespace, name) is None:
                return name
        return None

    async def _measured(
        self,
        status: TrialStatus,
        step: Step,
        experiment: ExperimentSpec,
        stack: ObservedStack,
        prediction: Prediction | None,
        now: datetime,
    ) -> tuple[Step, tuple[Measurement, ...], tuple[ObservedServer, ...]]:
        """The measurements of a trial that has succeeded, and what servers have logged: stored before the pods go."""
        if step.phase is TrialPhase.FAILED:
            return step, (), _servers(experiment, {name: pod.log or "" for name, pod in stack.components.items()})
        if step.phase is not TrialPhase.SUCCEEDED or stack.probe is None:
            return step, (), ()
        try:
            result, runs = probe_result(stack.probe.log or ""), await self.stacks.runs(stack)
        except NoResultError as error:
            return Step(TrialPhase.INVALID, "NoResult", str(error)), (), ()
        except ApiError as error:
            if error.status in REFUSALS:
                raise
            elapsed = now - (status.phase_started_at or now)
            return log_unreadable(status.phase, elapsed, self._deadlines(experiment), "a component"), (), ()
        measured = measurements(experiment, result, runs)
        if (found := _breach(experiment, result, stack, runs, measured, prediction)) is not None:
            # Nothing of it is kept: neither a judgement nor a later plan may rest on it.
            phase = TrialPhase.FAILED if found.blames_the_candidate else TrialPhase.INVALID
            return Step(phase, found.reason, found.message), (), ()
        return step, measured, _servers(experiment, {name: run.log for name, run in runs.items()})

    async def _finish(
        self, body: Object, identity: TrialIdentity, spec: TrialSpec, status: TrialStatus, now: datetime
    ) -> timedelta | None:
        is_gone = await self.stacks.clean_up(identity)
        if is_gone and status.node is not None:
            await self.cards.release(status.node, identity)
        is_judged = await self._judge(body, spec, status, now)
        if is_gone and is_judged:
            return None
        # The pods of a lost node go when it comes back, or is taken out of the cluster: until then its card is held.
        return _LATER if status.reason == "NodeLost" else _POLL

    async def _judge(self, body: Object, spec: TrialSpec, status: TrialStatus, now: datetime) -> bool:
        """Fitness and feasibility, once the baseline's repeats have all ended; False: not yet."""
        if status.phase is not TrialPhase.SUCCEEDED or any(it.type == "Feasible" for it in status.conditions):
            return True
        namespace = body["metadata"]["namespace"]
        found = await self.objects.find(EXPERIMENT, namespace, spec.experiment)
        if found is None:
            return True
        experiment = ExperimentSpec.model_validate(found["spec"])
        baseline = await self._baseline(namespace, spec.experiment, Space(experiment.parameters).baseline)
        if not all(it.phase.is_finished() for it in baseline):
            return False
        measured = sum(it.phase is TrialPhase.SUCCEEDED for it in baseline)
        if measured < experiment.search.repeats and not await self._is_over(namespace, spec.experiment):
            return False
        judgement = judge(experiment, _values(status), [_values(it) for it in baseline if it.measurements])
        generation = body["metadata"]["generation"]
        feasible = condition("Feasible", judgement.feasible, generation, now, judgement.reason, judgement.message)
        new = status.model_copy(
            update={"fitness": judgement.fitness, "conditions": with_condition(status.conditions, feasible)}
        )
        if await write_status(self.objects, TRIAL, body, status, new):
            await self._tell_judgement(body, judgement, now)
        return True

    async def _baseline(self, namespace: str, experiment: str, baseline: Candidate) -> list[TrialStatus]:
        """The search's own runs of it: a fitness must not depend on when it was judged."""
        trials = await self.objects.list(TRIAL, namespace, {LABEL_EXPERIMENT: experiment})
        specs = [(TrialSpec.model_validate(it["spec"]), it) for it in trials]
        return [
            TrialStatus.model_validate(status_of(it))
            for spec, it in specs
            if spec.purpose is Purpose.SEARCH and _candidate(spec) == baseline
        ]

    async def _is_over(self, namespace: str, experiment: str) -> bool:
        """Whether the experiment has ended: with a baseline that failed, nothing else will come of it."""
        found = await self.objects.find(EXPERIMENT, namespace, experiment)
        phase = ExperimentStatus.model_validate(status_of(found)).phase if found is not None else None
        return phase in {None, ExperimentPhase.FAILED, ExperimentPhase.SUCCEEDED}

    async def _write(
        self, body: Object, old: TrialStatus, step: Step, now: datetime, updated: TrialStatus | None = None
    ) -> timedelta:
        """The status of this pass; what is said as an Event and counted follows the write."""
        entered = step.phase is not old.phase or old.phase_started_at is None
        generation = body["metadata"]["generation"]
        finished, succeeded = step.phase.is_finished(), step.phase is TrialPhase.SUCCEEDED
        reason = step.reason or str(step.phase)
        conditions = old.conditions
        told = [
            condition("Progressing", not finished, generation, now, reason, step.message),
            condition("Ready", succeeded, generation, now, reason, step.message),
        ]
        prediction = TrialSpec.model_validate(body["spec"]).prediction
        if prediction is not None and prediction.doubtful:
            words = "so near to a bound that the planner's own error could tip it"
            told.append(condition("Doubtful", True, generation, now, "NearABound", words))
        for it in told:
            conditions = with_condition(conditions, it)
        new = (updated or old).model_copy(
            update={
                "phase": step.phase,
                "reason": step.reason,
                "message": step.message[:4096],
                "started_at": old.started_at or (now if step.phase is not TrialPhase.PENDING else None),
                "phase_started_at": now if entered else old.phase_started_at,
                "finished_at": now if finished else None,
                "conditions": conditions,
            }
        )
        if await write_status(self.objects, TRIAL, body, old, new) and step.phase is not old.phase:
            note = step.message or f"{old.phase} -> {step.phase}"
            note = "; ".join([note, *(f"{it.metric}: {it.message}" for it in new.prediction_errors)])
            await self.events.tell(body, step.reason or str(step.phase), note, "Run", now, finished and not succeeded)
            if finished:
                TRIALS.labels(str(step.phase), step.reason).inc()
        return timedelta() if step.phase is not old.phase else _POLL

    def _deadlines(self, experiment: ExperimentSpec) -> Deadlines:
        return Deadlines(self.settings.drain, self.settings.start, measuring_deadline(experiment.workload))

    async def _tell_judgement(self, body: Object, judgement: Judgement, now: datetime) -> None:
        note = f"fitness {judgement.fitness}" if judgement.feasible else judgement.message
        await self.events.tell(body, judgement.reason, note, "Judge", now, warning=not judgement.feasible)


def _identity(body: Object, spec: TrialSpec) -> TrialIdentity:
    metadata = body["metadata"]
    return TrialIdentity(metadata["namespace"], metadata["name"], metadata["uid"], spec.experiment)


def _digest_or_none(experiment: Object) -> str:
    """Empty: the spec is not one that anything could run."""
    try:
        return spec_digest(experiment)
    except ValidationError:
        return ""


def _owns(experiment: Object, trial: Object) -> bool:
    uid = experiment["metadata"]["uid"]
    return any(it["uid"] == uid for it in trial["metadata"].get("ownerReferences", ()))


def _servers(experiment: ExperimentSpec, logs: Mapping[str, str]) -> tuple[ObservedServer, ...]:
    names = [it.name for it in experiment.stack.components if it.protocol.is_language_model]
    return tuple(found for it in names if (found := observed_server(it, logs.get(it, ""))) is not None)


def _breach(
    experiment: ExperimentSpec,
    result: ProbeResult,
    stack: ObservedStack,
    runs: Mapping[str, ComponentRun],
    measured: Sequence[Measurement],
    prediction: Prediction | None,
) -> Breach | None:
    if result.conduct is None or (result.conduct.card is None) != (experiment.gpu is None):
        return Breach("NoResult", "the probe does not say how it has measured")
    components = {PROBE: stack.probe_evidence(), **{name: it.evidence for name, it in runs.items()}}
    by_metric = {it.metric: it for it in measured}
    return breach(Evidence(experiment, result.conduct, components, by_metric, prediction))


def _may_pass(error: ApiError) -> bool:
    """Whether a pod that is refused now may be let in later, when others have ended."""
    return isinstance(error, ForbiddenError) and "exceeded quota" in error.message


def _refused(status: TrialStatus) -> PodFailure | None:
    """Why the last pass could not create a pod, as it has written down."""
    return PodFailure(status.reason, status.message) if status.reason == "QuotaExceeded" else None


def _candidate(spec: TrialSpec) -> Candidate:
    return Candidate(tuple((it.name, it.value) for it in spec.candidate))


def _values(status: TrialStatus) -> Mapping[str, float]:
    return {it.metric: float(it.value) for it in status.measurements}
