"""One pass over a GpuTrial: hold the card, start the stack in order, keep the result, clean up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from prometheus_client import Counter
from pydantic import ValidationError

from cotune.api.conditions import with_condition
from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus
from cotune.api.sharing import Sharing
from cotune.api.trial import (
    InterferenceFigure,
    Measurement,
    ObservedDevice,
    ObservedServer,
    Purpose,
    TrialPhase,
    TrialSpec,
    TrialStatus,
)
from cotune.cluster.cards import Cards, Holder, QuarantinedError
from cotune.cluster.copied_stacks import CopiedStacks
from cotune.cluster.events import Events
from cotune.cluster.kinds import CONFIG_MAP, EXPERIMENT, TRIAL
from cotune.cluster.nodes import nodes, why_lost
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, Object, Objects
from cotune.cluster.stacks import NameTakenError, ObservedStack, Stacks
from cotune.fitness.judgement import Judgement, judge
from cotune.handlers.experiment import spec_digest
from cotune.handlers.quiesces import LABEL_EXPERIMENT, keeps_waiting
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.statuses import condition, status_of, write_status
from cotune.handlers.turns import PATIENCE_SECONDS, Turns
from cotune.measurement.contract import ProbeResult
from cotune.planning.calibration import prediction_errors
from cotune.search.space import Candidate, Space
from cotune.trials.copied_stack import with_stack
from cotune.trials.holdings import observed_devices
from cotune.trials.interference import figures, is_measured, longest, rounds
from cotune.trials.lifecycle import Deadlines, Observed, Step, decide, log_unreadable, measuring_deadline
from cotune.trials.outcome import NoResultError, measurements, observed_server, probe_result
from cotune.trials.placement import NO_SUITABLE_NODE, place_stack
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
from cotune.trials.tenancy import Tenancy, tenancy
from cotune.trials.truth import Breach, ComponentEvidence, Evidence, breach

_POLL, _LATER = timedelta(seconds=0.5), timedelta(seconds=5)
_QUARANTINE = timedelta(minutes=10)
"""For which a card that was not drained in time, or has failed, is left alone."""

TRIALS = Counter("cotune_trials_total", "Trials that have finished.", ["phase", "reason"])


@dataclass(frozen=True)
class TrialReconciler:
    """Reconciles trials."""

    objects: Objects
    cards: Cards
    stacks: Stacks
    events: Events
    settings: Settings
    records: Records
    turns: Turns = field(default_factory=Turns)
    """Of the experiments that stop production for their trials: what one sees of it holds until it has acted."""

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
        if ExperimentStatus.model_validate(status_of(experiment)).phase is ExperimentPhase.FAILED:
            step = Step(
                TrialPhase.INVALID, "ExperimentFailed", "the experiment has failed meanwhile: see its conditions"
            )
            return await self._write(body, status, step, now)
        if _digest_or_none(experiment) != body["metadata"].get("annotations", {}).get(ANNOTATION_DIGEST):
            step = Step(TrialPhase.INVALID, "SpecChanged", "the experiment's spec is not what this trial was made for")
            return await self._write(body, status, step, now)
        run = ExperimentSpec.model_validate(experiment["spec"])
        if spec.stack_ref is not None:
            copied = await CopiedStacks(self.objects).find(identity.namespace, spec.stack_ref)
            if copied is None:
                step = Step(TrialPhase.INVALID, "StackGone", f"there is no ControllerRevision {spec.stack_ref}")
                return await self._write(body, status, step, now)
            run = with_stack(run, copied)
        if run.quiesce is None:
            return await self._advance(body, identity, spec, status, run, now)
        async with self.turns.of([run.quiesce.namespace], PATIENCE_SECONDS) as is_mine:
            return await self._while_quiesced(body, identity, spec, status, run, now) if is_mine else _POLL

    async def _while_quiesced(
        self,
        body: Object,
        identity: TrialIdentity,
        spec: TrialSpec,
        status: TrialStatus,
        run: ExperimentSpec,
        now: datetime,
    ) -> timedelta | None:
        """The next step, if production is out of the way; if not, nothing of the trial is left, and it waits.

        What it has shown so far says nothing of the candidate: it is run again from its beginning.
        """
        experiment = await self.objects.find(EXPERIMENT, identity.namespace, spec.experiment)
        if experiment is None:
            return _POLL  # As the next pass finds, too.
        why = keeps_waiting(experiment, status.phase, now)
        if why is None:
            return await self._advance(body, identity, spec, status, run, now)
        if not await self.stacks.clean_up(identity):
            return _POLL
        if status.node is not None:
            await self.cards.release(status.node, identity)
        again = status.model_copy(update={"node": None, "started_at": None, "phase_started_at": None})
        await self._write(body, status, Step(TrialPhase.PENDING, why.reason, why.message), now, again)
        return _LATER

    async def _advance(
        self,
        body: Object,
        identity: TrialIdentity,
        spec: TrialSpec,
        status: TrialStatus,
        experiment: ExperimentSpec,
        now: datetime,
    ) -> timedelta | None:
        node = status.node or await self._acquire_any(identity, spec, experiment, now)
        if isinstance(node, Step):
            await self._write(body, status, node, now)
            return _LATER if node.reason in {"NodeQuarantined", NO_SUITABLE_NODE} else _POLL
        stack = await self.stacks.observe(identity)
        holder = await self.cards.holder(node)
        lost = await why_lost(self.objects, node)
        step = decide(
            experiment.stack.components,
            status.phase,
            status.phase_started_at or now,
            Observed(holder == Holder.of(identity), stack.probe, stack.components, _refused(status), lost),
            self._deadlines(spec, experiment),
            now,
        )
        kept = _Kept(step)
        try:
            begins = status.phase is TrialPhase.PENDING
            if begins and (missing := await self._missing_corpus(identity, experiment)):
                why = Step(TrialPhase.PENDING, "CorpusNotFound", f"no ConfigMap {missing} in {identity.namespace}")
                return await self._put_off(body, identity, status, node, why, now)
            await self.stacks.ensure(identity, self._manifests(identity, spec, experiment, node, step))
            kept = await self._measured(spec, status, step, experiment, stack, now)
        except TemplateError as error:
            kept = _Kept(Step(TrialPhase.INVALID, "TemplateRefused", str(error)))
        except NameTakenError as error:
            kept = _Kept(Step(TrialPhase.INVALID, "NameTaken", str(error)))
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            if _may_pass(error):
                kept = _Kept(Step(status.phase, "QuotaExceeded", error.message))
                if status.phase is TrialPhase.PENDING:
                    return await self._put_off(body, identity, status, node, kept.step, now)
            else:
                # Pod Security, a missing right or a field that no pod has: the same again would be refused again.
                kept = _Kept(Step(TrialPhase.INVALID, "PodRefused", error.message))
        step = kept.step
        errors = prediction_errors(spec.prediction, kept.measurements) if spec.prediction is not None else ()
        updated = status.model_copy(
            update={
                "node": node,
                "measurements": kept.measurements,
                "servers": kept.servers,
                "interference": kept.interference,
                "devices": kept.devices,
                "prediction_errors": errors,
                "phase": step.phase,
                "reason": step.reason,
                "message": step.message[:4096],
            }
        )
        if step.phase.is_finished():
            updated = await self.records.with_record(body, spec, updated, stack, now)
        if step.blames_the_card:
            step = await self._quarantined(identity, step, stack, node, now)
        return await self._write(body, status, step, now, updated)

    async def _put_off(
        self, body: Object, identity: TrialIdentity, status: TrialStatus, node: str, why: Step, now: datetime
    ) -> timedelta:
        """What a trial needs is not there yet: it waits, and others may have the card meanwhile."""
        await self.cards.release(node, identity)
        await self._write(body, status, why, now, status.model_copy(update={"node": None}))
        return _LATER

    async def _acquire_any(
        self, identity: TrialIdentity, spec: TrialSpec, experiment: ExperimentSpec, now: datetime
    ) -> str | Step:
        """A node whose card the trial holds now, or the step of a trial that has none."""
        sharing = experiment.sharing(_candidate(spec).values)
        placement = place_stack(await nodes(self.objects), experiment, sharing)
        if not placement.nodes:
            # Others of the search can do without it; on the baseline and a confirming run the experiment waits.
            is_dispensable = spec.purpose is Purpose.SEARCH and sharing is not experiment.baseline_sharing
            is_skipped = is_dispensable and not placement.may_come
            phase = TrialPhase.SKIPPED if is_skipped else TrialPhase.PENDING
            return Step(phase, NO_SUITABLE_NODE, placement.why_none())
        quarantined: list[str] = []
        for node in placement.nodes:
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
        """Keep the next trial from a card that somebody else uses, or that fails, and say what the probe saw there."""
        # A probe that has ended well has said its result last.
        seen = await self.stacks.last_line(stack, PROBE) if step.reason == "NotDrained" else ""
        why = f"{step.message}: {seen}" if seen else step.message
        until = now + _QUARANTINE
        await self.cards.quarantine(node, identity, until, why)
        return replace(step, message=f"{why}; {node} is in quarantine until {until.isoformat(timespec='seconds')}")

    def _manifests(
        self, identity: TrialIdentity, spec: TrialSpec, experiment: ExperimentSpec, node: str, step: Step
    ) -> list[Manifest]:
        made: list[Manifest] = []
        if step.start_probe:
            candidate = _candidate(spec)
            made.append(
                probe_pod(
                    identity,
                    experiment,
                    node,
                    self.settings.probe,
                    self.settings.node_agent,
                    is_exclusive=experiment.sharing(candidate.values) is Sharing.EXCLUSIVE,
                    interference=is_measured(experiment, candidate, spec.purpose),
                )
            )
        for component in experiment.stack.components:
            if component.name in step.start:
                variables = environment(component.name, experiment.parameters, _candidate(spec))
                if component.name in experiment.loaded_components:
                    made.append(component_service(identity, component))
                made.append(component_pod(identity, component, variables, node))
        return made

    async def _missing_corpus(self, identity: TrialIdentity, experiment: ExperimentSpec) -> str | None:
        """A pod whose volume is missing would wait for it without a word."""
        for name in experiment.workload.config_maps:
            if await self.objects.find(CONFIG_MAP, identity.namespace, name) is None:
                return name
        return None

    async def _measured(
        self,
        spec: TrialSpec,
        status: TrialStatus,
        step: Step,
        experiment: ExperimentSpec,
        stack: ObservedStack,
        now: datetime,
    ) -> "_Kept":
        """The measurements of a trial that has succeeded, and what servers have logged: stored before the pods go."""
        if step.phase is TrialPhase.FAILED:
            logs = {name: pod.log or "" for name, pod in stack.components.items()}
            return _Kept(step, servers=_servers(experiment, logs))
        if step.phase is not TrialPhase.SUCCEEDED or stack.probe is None:
            return _Kept(step)
        try:
            result, runs = probe_result(stack.probe.log or ""), await self.stacks.runs(stack)
        except NoResultError as error:
            return _Kept(Step(TrialPhase.INVALID, "NoResult", str(error)))
        except ApiError as error:
            if error.status in REFUSALS:
                raise
            elapsed = now - (status.phase_started_at or now)
            deadlines = self._deadlines(spec, experiment)
            return _Kept(log_unreadable(status.phase, elapsed, deadlines, "a component"))
        components = {PROBE: stack.probe_evidence(), **{name: it.evidence for name, it in runs.items()}}
        seen = _tenancy(result, components)
        measured = measurements(experiment, result, runs, seen)
        if (found := _breach(experiment, result, components, measured, spec, seen)) is not None:
            # Nothing of it is kept: neither a judgement nor a later plan may rest on it.
            phase = TrialPhase.FAILED if found.blames_the_candidate else TrialPhase.INVALID
            return _Kept(Step(phase, found.reason, found.message, blames_the_card=found.blames_the_card))
        return _Kept(
            step,
            measured,
            _servers(experiment, {name: run.log for name, run in runs.items()}),
            figures(result.interference),
            observed_devices(experiment, spec.prediction, seen),
        )

    async def _finish(
        self, body: Object, identity: TrialIdentity, spec: TrialSpec, status: TrialStatus, now: datetime
    ) -> timedelta | None:
        if self.records.is_to_be_tried_again(status, now) and (stack := await self.stacks.observe(identity)).pods:
            new = await self.records.with_record(body, spec, status, stack, now)
            if await write_status(self.objects, TRIAL, body, status, new):
                return timedelta()
            await self._judge(body, spec, status, now)
            return _LATER
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
        conditions = (updated or old).conditions
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
                "started_at": (updated or old).started_at or (now if step.phase is not TrialPhase.PENDING else None),
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

    def _deadlines(self, spec: TrialSpec, experiment: ExperimentSpec) -> Deadlines:
        rounds = longest(experiment) if is_measured(experiment, _candidate(spec), spec.purpose) else timedelta()
        return Deadlines(self.settings.drain, self.settings.start, measuring_deadline(experiment.workload, rounds))

    async def _tell_judgement(self, body: Object, judgement: Judgement, now: datetime) -> None:
        note = f"fitness {judgement.fitness}" if judgement.feasible else judgement.message
        await self.events.tell(body, judgement.reason, note, "Judge", now, warning=not judgement.feasible)


@dataclass(frozen=True)
class _Kept:
    """What a pass found of a trial's result, and the step that it makes of it."""

    step: Step
    measurements: tuple[Measurement, ...] = ()
    servers: tuple[ObservedServer, ...] = ()
    interference: tuple[InterferenceFigure, ...] = ()
    devices: tuple[ObservedDevice, ...] = ()


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


def _tenancy(result: ProbeResult, components: Mapping[str, ComponentEvidence]) -> Tenancy | None:
    if result.conduct is None or result.conduct.card is None:
        return None
    pods = {name: it.identity for name, it in components.items()}
    return tenancy(result.node, result.conduct.card.uuid, pods)


def _breach(
    experiment: ExperimentSpec,
    result: ProbeResult,
    components: Mapping[str, ComponentEvidence],
    measured: Sequence[Measurement],
    spec: TrialSpec,
    seen: Tenancy | None,
) -> Breach | None:
    if result.conduct is None or (result.conduct.card is None) != (experiment.gpu is None):
        return Breach("NoResult", "the probe does not say how it has measured")
    candidate = _candidate(spec)
    wanted = rounds(experiment) if is_measured(experiment, candidate, spec.purpose) else ()
    if tuple(it.loaded for it in result.conduct.rounds) != wanted:
        return Breach("NoResult", "the probe has not measured the interference that was asked for")
    return breach(
        Evidence(
            spec=experiment,
            conduct=result.conduct,
            components=components,
            measurements={it.metric: it for it in measured},
            prediction=spec.prediction,
            interference=result.interference,
            tenancy=seen,
            sharing=experiment.sharing(candidate.values),
        )
    )


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
