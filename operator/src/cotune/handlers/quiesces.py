"""What an experiment's passes do for the production that its trials need out of the way."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from prometheus_client import Counter
from pydantic import ValidationError

from cotune.api.conditions import with_condition
from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus
from cotune.api.grant import GrantTarget, WorkloadRef
from cotune.api.quiesce import Quiesce, QuiescedWorkload, QuiescePhase, QuiesceStatus
from cotune.api.trial import TrialPhase, TrialStatus
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.events import Events
from cotune.cluster.grants import GrantInvalidError, grants_of
from cotune.cluster.kinds import EXPERIMENT, POD, PROFILE, TRIAL
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, NotFoundError, Object, Objects
from cotune.cluster.quiesces import NAME, QuiesceRecords
from cotune.cluster.workloads import Workload, Workloads
from cotune.experiments.observed import ObservedTrial
from cotune.handlers.downtimes import DOWNTIME
from cotune.handlers.finalizers import with_finalizer
from cotune.handlers.from_git import keepers_of
from cotune.handlers.profile import namespaces_in_work
from cotune.handlers.quiesce_holders import FINALIZER, is_left_behind
from cotune.handlers.statuses import condition, status_of, write_status
from cotune.handlers.turns import Turns
from cotune.rollout.beginning import unfit
from cotune.rollout.downtime import Outage, ended
from cotune.rollout.progress import Waiting
from cotune.rollout.quiesce import (
    IN_PROGRESS,
    ON_THE_WAY_BACK,
    STAGE,
    Allowed,
    Ending,
    Needs,
    Plan,
    QuiesceStep,
    allowed,
    decide,
    expected_trial,
    is_asked_for,
    is_untouched,
    no_longer,
    plan,
    refused,
    reserved,
)
from cotune.rollout.state import ObservedWorkload
from cotune.rollout.targets import Refusal
from cotune.trials.interference import longest
from cotune.trials.lifecycle import measuring_deadline
from cotune.trials.placement import NO_SUITABLE_NODE
from cotune.trials.render import LABEL_TRIAL

LABEL_EXPERIMENT = "cotune.dev/experiment"
QUIESCED, DEGRADED = "Quiesced", "Degraded"

_POLL, _LATER = timedelta(seconds=0.5), timedelta(seconds=5)
_GRACE_SECONDS = 2
"""That the processes of a trial get to end: nothing of theirs is worth production's time."""
_PATIENCE_SECONDS, _PATIENCE_TO_BEGIN_SECONDS = 30, 2
_CANNOT_RUN = frozenset({NO_SUITABLE_NODE, "NodeQuarantined", "CorpusNotFound"})
"""Of a trial that waits for something else than its turn."""
_OVER = frozenset({ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED})
_RUN = frozenset({TrialPhase.DRAINING, TrialPhase.STARTING, TrialPhase.MEASURING})

QUIESCES = Counter(
    "cotune_quiesces_total", "Times that production was stopped for trials, by what became of it.", ["phase"]
)


@dataclass(frozen=True)
class Gate:
    """Whether an experiment may start trials, and what its status says of production."""

    body: Object
    """The experiment, as it is after this."""
    is_open: bool
    quiesce: QuiesceStatus | None
    waiting: Waiting | None = None
    """Why production is not stopped for trials that are left to run."""

    def told(self, status: ExperimentStatus, now: datetime) -> ExperimentStatus:
        """The experiment's status with it."""
        generation, conditions = int(self.body["metadata"]["generation"]), status.conditions
        if self.waiting is not None:
            reason, message = self.waiting.reason, self.waiting.message
            for kind in (QUIESCED, "Progressing"):
                conditions = with_condition(conditions, condition(kind, False, generation, now, reason, message))
            if self.waiting.is_stalled:
                conditions = with_condition(conditions, condition("Stalled", True, generation, now, reason, message))
        return status.model_copy(update={"quiesce": self.quiesce, "conditions": conditions})


def cut_short(status: QuiesceStatus | None, reason: str, message: str, now: datetime) -> QuiesceStatus | None:
    """The time for trials is over, for nothing can be done with it: the next pass begins the way back."""
    if status is None or status.phase is not QuiescePhase.QUIESCED:
        return status
    times = {"restore_at": now, "until": now + _deadline(status)}
    return status.model_copy(update={**times, "reason": reason, "message": message[:2048]})


def keeps_waiting(experiment: Object, phase: TrialPhase, now: datetime) -> Waiting | None:
    """Why a trial must not run now; None: production is out of its way, and there is time.

    Args:
        experiment: the trial's, which quiesces.
        phase: the trial's.
        now: the time.
    """
    status = ExperimentStatus.model_validate(status_of(experiment)).quiesce
    if status is None or status.phase is not QuiescePhase.QUIESCED or status.restore_at is None:
        return Waiting("AwaitingQuiesce", "production is not stopped: see the condition Quiesced of the experiment")
    if "deletionTimestamp" in experiment["metadata"] or now >= status.restore_at:
        return Waiting("AwaitingQuiesce", "production is coming back")
    is_begun = phase is not TrialPhase.PENDING
    if not is_begun and now + timedelta(seconds=status.trial_seconds or 0) > status.restore_at:
        return Waiting("AwaitingQuiesce", "it could not end before production comes back")
    return None


@dataclass(frozen=True)
class Quiesces:
    """Stops production for the trials of experiments that ask for it, and brings it back."""

    objects: Objects
    events: Events
    before_measuring: timedelta
    """How long a trial may take until it measures."""
    turns: Turns
    """That of production's namespace is held while it is stopped and while its way back begins, by every pass of a
    trial of such an experiment, and by every pass of a rollout there."""

    async def gate(
        self,
        body: Object,
        spec: ExperimentSpec,
        status: ExperimentStatus,
        quiesce: Quiesce,
        is_wanted: bool,
        trials: Sequence[ObservedTrial],
        now: datetime,
    ) -> Gate:
        """Whether the next trial may be started; if not, production is begun to be stopped for it where that is let.

        Args:
            body: the experiment, of which nothing is in progress but a quiesce with all of production stopped.
            spec: its spec.
            status: its status.
            quiesce: of the spec.
            is_wanted: whether trials are left to run.
            trials: all there are.
            now: the time.
        """
        old = status.quiesce
        interrupted = old.interrupted_seconds if old is not None else None
        rounds = longest(spec) if spec.workload.interference is not None else timedelta()
        at_most = self.before_measuring + measuring_deadline(spec.workload, rounds)
        measured = [it.seconds for it in trials if it.seconds is not None and not it.is_skipped]
        seconds = expected_trial(quiesce.trial_seconds, at_most, measured, interrupted)
        if old is not None and old.phase is QuiescePhase.QUIESCED and old.restore_at is not None:
            new = old.model_copy(update={"trial_seconds": seconds})
            has_time = now + timedelta(seconds=seconds) <= old.restore_at
            if is_wanted and not any(it.phase in _RUN for it in trials):
                if not has_time:
                    message = f"the next trial takes {seconds} s, and could not end in time"
                    return Gate(body, False, cut_short(new, "NoTimeForATrial", message, now))
                if why := _none_can_run(trials):
                    return Gate(body, False, cut_short(new, "TrialsCannotRun", why, now))
            return Gate(body, has_time, new)
        if not is_wanted:
            return Gate(body, False, old)
        try:
            async with self.turns.of([quiesce.namespace], _PATIENCE_TO_BEGIN_SECONDS) as is_mine:
                if not is_mine:
                    # Nothing hurries, and others' production must not wait for it.
                    return Gate(body, False, old, Waiting("WaitingForTurn", _others_turn(quiesce.namespace)))
                return await self._begin(body, quiesce, old, seconds, now)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            why = _obstacle(error)
            return Gate(body, False, old, Waiting(why.reason, why.message, is_stalled=True))

    async def go_on(self, body: Object, status: ExperimentStatus, now: datetime) -> timedelta | None:
        """The next step of a quiesce that is in progress; None: trials may run.

        Whatever has become of the experiment, down to its deletion.
        """
        if status.quiesce is None or status.quiesce.phase not in {QuiescePhase.STOPPING, QuiescePhase.QUIESCED}:
            return await self._go_on(body, status, now)
        # Somebody else's pass that hangs does not keep production down.
        async with self.turns.of([status.quiesce.namespace], _PATIENCE_SECONDS) as is_mine:
            return await self._go_on(body, status, now, is_mine)

    async def _begin(
        self, body: Object, quiesce: Quiesce, old: QuiesceStatus | None, trial_seconds: int, now: datetime
    ) -> Gate:
        """Everything is asked before anything is touched; what is there goes on record first."""
        namespace, waits = quiesce.namespace, Gate(body, False, old)
        try:
            grants = await grants_of(self.objects, namespace)
        except GrantInvalidError as error:
            return replace(waits, waiting=Waiting("GrantInvalid", str(error), is_stalled=True))
        may = allowed(quiesce, body["metadata"]["namespace"], grants)
        if isinstance(may, Refusal):
            return replace(waits, waiting=Waiting(may.reason, may.message, is_stalled=True))
        needs = Needs(0, trial_seconds, reserved(quiesce, old))
        last = old.since if old is not None else None
        if isinstance(planned := plan(may, needs, (), last, now), Waiting):
            return replace(waits, waiting=planned)
        workloads = Workloads(self.objects, namespace)
        found = await workloads.observe(may.targets, {})
        observed = {name: it.observed for name, it in found.items()}
        waiting = await self._claimed(body, namespace, observed) or self._unfit(
            namespace, may, found, await workloads.autoscalers(may.targets)
        )
        if waiting is not None:
            return replace(waits, waiting=waiting)
        needs = replace(needs, stop=sum(it.grace_seconds for it in found.values()))
        planned = plan(may, needs, await Downtimes(self.objects, namespace).outages(), last, now)
        if isinstance(planned, Waiting):
            return replace(waits, waiting=planned)
        for it in found.values():
            await workloads.rehearse(it, {}, None)
        body = await self._set_finalizer(body, wanted=True)
        return Gate(body, False, _begun(namespace, found, old, planned, trial_seconds, now))

    async def _claimed(self, body: Object, namespace: str, observed: Mapping[str, ObservedWorkload]) -> Waiting | None:
        """Who else has a hand on production there."""
        records = QuiesceRecords(self.objects, namespace)
        holder = await records.holder()
        if holder is not None and holder.uid != body["metadata"]["uid"]:
            if not await is_left_behind(self.objects, holder):
                message = f"{holder.experiment} keeps production in {namespace} stopped"
                return Waiting("QuiescedByOther", message)
            if not all(it.replicas and it.is_ready for it in observed.values()):
                message = (
                    f"{holder.experiment} had production in {namespace} stopped, and is gone. Bring it back, as "
                    f"annotation cotune.dev/restore of ControllerRevision {NAME} there says, and delete that"
                )
                return Waiting("QuiescedByOther", message, is_stalled=True)
            await records.give_back(holder.uid)
        for it in await self.objects.list(PROFILE):
            if namespace in namespaces_in_work(it):
                metadata = it["metadata"]
                message = f"profile {metadata['namespace']}/{metadata['name']} has a stage in namespace {namespace}"
                return Waiting("WaitingForProfile", message)
        return None

    @staticmethod
    def _unfit(
        namespace: str, may: Allowed, found: Mapping[str, Workload], autoscalers: Mapping[str, str]
    ) -> Waiting | None:
        names = {name: it.workload.name for name, it in may.targets.items()}
        observed = {name: it.observed for name, it in found.items()}
        ignored = {name for name, it in may.targets.items() if it.ignored_by_git_ops}
        kept_by = keepers_of(found, dict.fromkeys(found, ()), ignored)
        told = [
            f"{it.by} keeps Deployment {names[name]} and has in Git: {', '.join(it.fields)}"
            for name, it in kept_by.items()
            if it.fields
        ]
        if told:
            message = f"namespace {namespace}: {'; '.join(told)}. Take them out of Git"
            return Waiting("ManagedByGitOps", message, is_stalled=True)
        return unfit(list(may.targets), namespace, names, observed, autoscalers)

    async def _go_on(
        self, body: Object, status: ExperimentStatus, now: datetime, is_mine: bool = True
    ) -> timedelta | None:
        old = status.quiesce
        if old is None or old.phase not in IN_PROGRESS:
            await self._let_go(body, old)
            return timedelta()
        is_refused = False
        try:
            step, new = await self._step(body, status, old, now, is_mine)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            is_refused = True
            step = refused(old, _obstacle(error), _deadline(old), now)
            new = _entered(old, step, now)
        if step.phase is QuiescePhase.QUIESCED and old.phase is QuiescePhase.QUIESCED:
            return None
        await self._write(body, status, old, new, step, now)
        if is_refused:
            return _LATER
        return timedelta() if new.phase is not old.phase else _POLL

    async def _step(
        self, body: Object, status: ExperimentStatus, old: QuiesceStatus, now: datetime, is_mine: bool
    ) -> tuple[QuiesceStep, QuiesceStatus]:
        """Decide and act on the workloads that were on record when production was stopped.

        Raises:
            ApiError: the API server has refused a call; the others were made.
        """
        found = await Workloads(self.objects, old.namespace).observe(_targets(old), {})
        observed = {name: it.observed for name, it in found.items()}
        is_forward = old.phase not in ON_THE_WAY_BACK
        ending = await self._ending(body, status, old, now) if is_forward else None
        is_stopping = old.phase is QuiescePhase.STOPPING
        if is_stopping and not is_mine and ending is None and is_untouched(old.workloads, observed):
            # A rollout may be beginning there: only what leads back goes on out of turn.
            return QuiesceStep(old.phase, "WaitingForTurn", _others_turn(old.namespace)), old
        why = await self._withdrawal(body, old, observed, ending, now) if is_stopping else None
        if why is not None:
            return QuiesceStep(QuiescePhase.WAITING, why.reason, why.message), _withdrawn(old, why)
        if is_forward and ending is None:
            holder = await QuiesceRecords(self.objects, old.namespace).holder()
            if holder is None or holder.uid != body["metadata"]["uid"]:
                ending = Ending("RecordGone", f"somebody has deleted ControllerRevision {NAME} in {old.namespace}")
        pods = await self._end_trials(body) if not is_forward else 0
        step = decide(old, observed, pods, ending, _deadline(old), now)
        await self._apply(old.namespace, step, found)
        new = _entered(old, step, now)
        if step.reason == "TimeIsOver":
            new = new.model_copy(update={"interrupted_seconds": await self._interrupted(body, old, now)})
        is_given_up = "deletionTimestamp" in body["metadata"] and is_asked_for(old, observed)
        if step.phase is QuiescePhase.DEGRADED and old.phase is QuiescePhase.DEGRADED and is_given_up:
            # All that was taken is given back; that it does not become ready is left to a person.
            step = replace(step, phase=QuiescePhase.RESTORED, reason="LeftToAPerson")
            return step, await self._recorded(body, new, Outage(_key(body), STAGE, old.since or now, now), now)
        if step.phase is QuiescePhase.RESTORED and is_untouched(old.workloads, observed):
            why = Ending(old.reason or "Restored", old.message)
            return QuiesceStep(QuiescePhase.WAITING, why.reason, why.message), _withdrawn(old, why)
        if step.phase is QuiescePhase.RESTORED:
            since = old.phase_started_at or now
            outage = ended(_key(body), STAGE, old.since or since, since, observed, now)
            return step, await self._recorded(body, new, outage, now)
        return step, new

    async def _ending(self, body: Object, status: ExperimentStatus, old: QuiesceStatus, now: datetime) -> Ending | None:
        """Why production is to come back whatever time is left."""
        if "deletionTimestamp" in body["metadata"]:
            return Ending("ExperimentDeleted", "the experiment was deleted")
        if status.phase in _OVER:
            return Ending("ExperimentEnded", f"the experiment has ended: {status.phase}")
        try:
            spec = ExperimentSpec.model_validate(body["spec"])
        except ValidationError:
            return Ending("SpecInvalid", "the experiment's spec is not one that could be run")
        if spec.quiesce is None or spec.quiesce.namespace != old.namespace or spec.digest() != status.spec_digest:
            return Ending("SpecChanged", "the experiment's spec was changed")
        try:
            grants = await grants_of(self.objects, old.namespace)
        except GrantInvalidError as error:
            return Ending("GrantInvalid", str(error))
        may = allowed(spec.quiesce, body["metadata"]["namespace"], grants)
        if isinstance(may, Refusal):
            return Ending(may.reason, may.message)
        if {name: it.workload.name for name, it in may.targets.items()} != {
            it.component: it.deployment for it in old.workloads
        }:
            return Ending("GrantChanged", f"the grant of namespace {old.namespace} names other workloads now")
        return no_longer(may, old.since or now, _deadline(old), now)

    async def _withdrawal(
        self,
        body: Object,
        old: QuiesceStatus,
        observed: Mapping[str, ObservedWorkload],
        ending: Ending | None,
        now: datetime,
    ) -> Ending | None:
        """Why production is left alone after all, of which nothing was stopped yet; None: something was, or may be now.

        Only who has the record stops anything: whoever sees another's has stopped nothing.
        """
        records, uid = QuiesceRecords(self.objects, old.namespace), str(body["metadata"]["uid"])
        if not is_untouched(old.workloads, observed):
            holder = await records.holder()
            if holder is not None and holder.uid != uid:
                return Ending("QuiescedByOther", f"{holder.experiment} keeps production in {old.namespace} stopped")
            if holder is None and is_asked_for(old, observed):
                return Ending("ScaledByOthers", "somebody has changed a workload before any was stopped")
            return None
        if ending is not None:
            return ending
        if old.restore_at is None or now >= old.restore_at:
            return Ending("TimeIsOver", "the time for trials is over, before production was stopped")
        if (waiting := await self._claimed(body, old.namespace, observed)) is not None:
            return Ending(waiting.reason, waiting.message)
        holder = await records.take(_key(body), uid, old)
        if holder.uid == uid and holder.since != old.since:
            await records.give_back(uid)  # Of a time before.
            holder = await records.take(_key(body), uid, old)
        if holder.uid != uid:
            return Ending("QuiescedByOther", f"{holder.experiment} keeps production in {old.namespace} stopped")
        return None

    async def _apply(self, namespace: str, step: QuiesceStep, found: Mapping[str, Workload]) -> None:
        workloads = Workloads(self.objects, namespace)
        first: ApiError | None = None
        for it in step.actions:
            try:
                await workloads.scale(found[it.component], it.replicas)
            except ApiError as error:
                if error.status not in REFUSALS:
                    raise
                first = first or error  # One that is refused does not keep the others where they are.
        if first is not None:
            raise first

    async def _end_trials(self, body: Object) -> int:
        """Delete the pods of the experiment's trials; how many still run.

        Without the right to, production is not waited with: it has the precedence.
        """
        namespace = body["metadata"]["namespace"]
        try:
            uids = {it["metadata"]["uid"] for it in await self._trials(body)}
            pods = [
                it
                for it in await self.objects.list(POD, namespace)
                if LABEL_TRIAL in it["metadata"].get("labels", {})
                and any(owner["uid"] in uids for owner in it["metadata"].get("ownerReferences", ()))
                and it.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
            ]
            for it in pods:
                metadata = it["metadata"]
                is_ending = "deletionTimestamp" in metadata
                if not is_ending or metadata.get("deletionGracePeriodSeconds", 0) > _GRACE_SECONDS:
                    await self.objects.delete(
                        POD, namespace, metadata["name"], uid=metadata["uid"], grace=_GRACE_SECONDS
                    )
        except ForbiddenError:
            return 0
        return len(pods)

    async def _interrupted(self, body: Object, old: QuiesceStatus, now: datetime) -> int | None:
        """For how long a trial has run that is ended now, or an earlier one, whichever was longer."""
        statuses = [TrialStatus.model_validate(status_of(it)) for it in await self._trials(body)]
        # An operator that was away until now has let none run on: its time was over then.
        until = min(now, old.restore_at or now)
        ran = [int((until - it.started_at).total_seconds()) for it in statuses if it.phase in _RUN and it.started_at]
        known = [old.interrupted_seconds] if old.interrupted_seconds is not None else []
        return max([*ran, *known], default=None)

    async def _trials(self, body: Object) -> Sequence[Object]:
        metadata = body["metadata"]
        found = await self.objects.list(TRIAL, metadata["namespace"], {LABEL_EXPERIMENT: metadata["name"]})
        return [it for it in found if any(o["uid"] == metadata["uid"] for o in it["metadata"]["ownerReferences"])]

    async def _recorded(self, body: Object, new: QuiesceStatus, outage: Outage, now: datetime) -> QuiesceStatus:
        """Put on record what it has cost; without the right to, production is back all the same."""
        # When its first pod was made says nothing of how long the stack takes to stop: trials have run in between.
        outage = replace(outage, stop_seconds=None)
        downtimes = Downtimes(self.objects, new.namespace)
        try:
            outage = await downtimes.record(outage, str(body["metadata"]["uid"]))
            await downtimes.prune(now)
        except NotFoundError:
            pass  # The namespace is gone, and its ledger with it.
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
        way_back = outage.until - (new.phase_started_at or outage.until)
        return new.model_copy(
            update={
                "phase": QuiescePhase.RESTORED,
                "restored_at": outage.until,
                "down_seconds": outage.seconds,
                "restoration_seconds": max(-(-way_back // timedelta(seconds=1)), 0),
            }
        )

    async def _let_go(self, body: Object, old: QuiesceStatus | None) -> None:
        """Production is its owner's again: the record of the namespace goes, then what holds the experiment."""
        if old is not None:
            # Without the right to delete it, it is left behind: whoever comes next sees that nobody works at it.
            with suppress(ForbiddenError):
                await QuiesceRecords(self.objects, old.namespace).give_back(str(body["metadata"]["uid"]))
        await self._set_finalizer(body, wanted=False)

    async def _set_finalizer(self, body: Object, wanted: bool) -> Object:
        """The experiment stays as long as production is not what it was."""
        return await with_finalizer(self.objects, EXPERIMENT, body, FINALIZER, wanted)

    async def _write(
        self,
        body: Object,
        status: ExperimentStatus,
        old: QuiesceStatus,
        new: QuiesceStatus,
        step: QuiesceStep,
        now: datetime,
    ) -> None:
        generation = int(body["metadata"]["generation"])
        message = _said(new, step)
        is_quiesced = step.phase is QuiescePhase.QUIESCED
        told = [condition(QUIESCED, is_quiesced, generation, now, _reason(step), message)]
        known = {it.type: it for it in status.conditions}
        is_degraded = step.phase is QuiescePhase.DEGRADED
        if is_degraded or DEGRADED in known:
            told.append(condition(DEGRADED, is_degraded, generation, now, _reason(step), message))
        # What an ended experiment is stalled for stays said.
        is_stalled_before = "Stalled" in known
        if status.phase not in _OVER and (step.is_stalled or is_stalled_before):
            told.append(condition("Stalled", step.is_stalled, generation, now, _reason(step), message))
        conditions = status.conditions
        for it in told:
            conditions = with_condition(conditions, it)
        after = status.model_copy(update={"quiesce": new, "conditions": conditions})
        if not await write_status(self.objects, EXPERIMENT, body, status, after):
            return
        if new.phase is not old.phase:
            is_bad = is_degraded or step.is_stalled
            await self.events.tell(body, _reason(step), message, "Quiesce", now, warning=is_bad)
            if new.phase in {QuiescePhase.RESTORED, QuiescePhase.DEGRADED}:
                QUIESCES.labels(str(new.phase)).inc()
            if new.phase is QuiescePhase.RESTORED and new.down_seconds:
                DOWNTIME.labels(new.namespace).inc(new.down_seconds)


def _others_turn(namespace: str) -> str:
    return f"trials or rollouts that must not be cut in two are at work in namespace {namespace}: it is tried again"


def _none_can_run(trials: Sequence[ObservedTrial]) -> str:
    """What the trials that are left wait for, where none of them can do anything with the time; else empty."""
    left = [it for it in trials if not it.phase.is_finished() and not it.is_skipped]
    if not left or any(it.reason not in _CANNOT_RUN for it in left):
        return ""
    return "; ".join(f"{it.name}: {it.reason}: {it.message}" for it in left)


def _begun(
    namespace: str,
    found: Mapping[str, Workload],
    old: QuiesceStatus | None,
    planned: Plan,
    trial_seconds: int,
    now: datetime,
) -> QuiesceStatus:
    return QuiesceStatus(
        phase=QuiescePhase.STOPPING,
        namespace=namespace,
        workloads=tuple(
            QuiescedWorkload(
                component=name,
                deployment=it.name,
                container=it.target.container,
                replicas=it.observed.replicas,
                generation=it.observed.generation,
                uid=it.observed.uid,
            )
            for name, it in found.items()
        ),
        since=now,
        until=planned.until,
        restore_at=planned.restore_at,
        phase_started_at=now,
        trial_seconds=trial_seconds,
        interrupted_seconds=old.interrupted_seconds if old is not None else None,
        restoration_seconds=old.restoration_seconds if old is not None else None,
    )


def _withdrawn(old: QuiesceStatus, why: Ending) -> QuiesceStatus:
    """Nothing was stopped: this was none of the times that production was down."""
    return QuiesceStatus(
        namespace=old.namespace,
        interrupted_seconds=old.interrupted_seconds,
        restoration_seconds=old.restoration_seconds,
        reason=why.reason,
        message=why.message[:2048],
    )


def _entered(old: QuiesceStatus, step: QuiesceStep, now: datetime) -> QuiesceStatus:
    update: dict[str, object] = {"phase": step.phase}
    if step.phase is QuiescePhase.RESTORING and old.phase is not QuiescePhase.RESTORING:
        # How the way back goes does not replace why it was taken: that is what a person looks for.
        update |= {"reason": step.reason, "message": step.message[:2048]}
    if step.phase is not old.phase and old.phase not in ON_THE_WAY_BACK:
        update["phase_started_at"] = now  # The way back is one, in time or late.
    return old.model_copy(update=update)


def _reason(step: QuiesceStep) -> str:
    return "Restoring" if step.phase is QuiescePhase.RESTORING and not step.is_stalled else step.reason


def _said(new: QuiesceStatus, step: QuiesceStep) -> str:
    """For a person."""
    match step.phase:
        case QuiescePhase.STOPPING | QuiescePhase.QUIESCED if new.until is not None:
            return f"{step.message}; it is back by {new.until.isoformat(timespec='seconds')}"
        case QuiescePhase.RESTORING if step.reason == "Restoring":
            return f"{new.reason}: {new.message}; {step.message}"
        case QuiescePhase.RESTORED if step.reason == "LeftToAPerson":
            return f"{step.message}; left to a person, for the experiment was deleted"
        case QuiescePhase.RESTORED:
            return (
                f"{step.message}, {new.restoration_seconds} s after its way back began, and was down for "
                f"{new.down_seconds} s in all; {new.reason}: {new.message}"
            )
        case _:
            return step.message


def _targets(status: QuiesceStatus) -> dict[str, GrantTarget]:
    return {
        it.component: GrantTarget(
            component=it.component,
            workload_ref=WorkloadRef(api_version="apps/v1", kind="Deployment", name=it.deployment),
            container=it.container,
        )
        for it in status.workloads
    }


def _deadline(status: QuiesceStatus) -> timedelta:
    """How long the way back may take."""
    if status.until is None or status.restore_at is None:
        return timedelta()
    return status.until - status.restore_at


def _obstacle(error: ApiError) -> Ending:
    return Ending("Forbidden" if isinstance(error, ForbiddenError) else "ChangeRefused", error.message)


def _key(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
