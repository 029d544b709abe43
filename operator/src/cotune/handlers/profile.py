"""One pass over a GpuProfile: the next step of its current stage, or of its way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from prometheus_client import Counter

from cotune.api.conditions import looked_at, with_condition
from cotune.api.downtime import StageDowntime
from cotune.api.grant import GrantTarget
from cotune.api.profile import (
    AskedOutcome,
    GuardedWorkload,
    ProfilePhase,
    ProfileSpec,
    ProfileStatus,
    Stage,
    StageStatus,
    Strategy,
)
from cotune.cluster.batches import planned
from cotune.cluster.events import Events
from cotune.cluster.grants import GrantInvalidError, and_begun, invitations
from cotune.cluster.kinds import PROFILE
from cotune.cluster.nodes import nodes
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, Object, Objects
from cotune.cluster.revisions import Revisions, as_stored
from cotune.cluster.workloads import Workload, Workloads
from cotune.handlers.asked_revisions import AskedRevisions
from cotune.handlers.bridges import StageBridges, tell_bridge
from cotune.handlers.card_memory import CardMemory, tell_memory
from cotune.handlers.downtimes import StageDowntimes, as_status, count
from cotune.handlers.finalizers import with_finalizer
from cotune.handlers.from_git import (
    awaiting,
    begun_from_git,
    keepers,
    places,
    recorded,
    undone,
    with_managed,
)
from cotune.handlers.gates import Gates, tell_outcomes
from cotune.handlers.quiesce_holders import holding
from cotune.handlers.retries import start_anew
from cotune.handlers.rivals import rival_of
from cotune.handlers.stage_probes import StageProbes
from cotune.handlers.statuses import condition, status_of, write_status
from cotune.rollout.batches import Course, decide_in_batches, first_batch, next_batch, with_appeared, with_begun
from cotune.rollout.beginning import unfit
from cotune.rollout.convergence import Scale, SetValues
from cotune.rollout.downtime import Estimate
from cotune.rollout.expectation import sharing_mismatch
from cotune.rollout.foreign import edited, scaled_by_others, with_their_replicas
from cotune.rollout.git import decide_from_git, is_shown, to_revert
from cotune.rollout.guard import GuardOver, is_over, watch
from cotune.rollout.progress import (
    IN_PROGRESS,
    ON_THE_WAY_BACK,
    Waiting,
    begun,
    by_name,
    current_stage,
    goes_before,
    hindrance,
    in_the_middle,
    overall,
    retried,
    with_stage,
)
from cotune.rollout.stacks import of_stacks, spread, stacks_in
from cotune.rollout.stage import Obstacle, StageStep, blocked, decide
from cotune.rollout.startup_budget import too_small
from cotune.rollout.state import ObservedWorkload, Revision, StoredRevision, WorkloadRevision
from cotune.rollout.surge import restarts_clock, with_surge
from cotune.rollout.targets import Refusal, Targets, resolve, still_granted
from cotune.rollout.to_revision import refused, unanswered
from cotune.trials.probe_pod import ProbeImage

FINALIZER = "cotune.dev/rollout"
_SERVER_ERROR = 500

_POLL, _GUARD_POLL, _LATER = timedelta(seconds=0.5), timedelta(seconds=2), timedelta(seconds=5)

STAGES = Counter("cotune_stages_total", "Stages of rollouts that have ended.", ["phase"])


def namespaces_in_work(body: Object) -> list[str]:
    """Where the profile has a stage in the middle of its change, or guards one."""
    spec, status = ProfileSpec.model_validate(body["spec"]), ProfileStatus.model_validate(status_of(body))
    return [stage.namespace for stage, it in begun(spec, status) if it.phase in IN_PROGRESS or it.guarded]


@dataclass(frozen=True)
class ProfileReconciler:
    """Reconciles profiles, one at a time in each namespace: their order there is decided by who looks first."""

    objects: Objects
    events: Events
    gates: Gates = field(default_factory=Gates)
    probe_image: ProbeImage = field(default_factory=lambda: ProbeImage("localhost/cotune/probe:dev", "IfNotPresent"))
    """Of the probes of stages."""
    memory: CardMemory = field(default_factory=CardMemory)

    @property
    def bridges(self) -> StageBridges:
        """What serves while a stack is stopped."""
        return StageBridges(self.objects)

    @property
    def downtimes(self) -> StageDowntimes:
        """What stages cost."""
        return StageDowntimes(self.objects)

    @property
    def probes(self) -> StageProbes:
        """What stages measure themselves."""
        return StageProbes(self.objects, self.probe_image)

    async def reconcile(self, body: Object, now: datetime) -> timedelta | None:
        """One pass over the profile as it was just read."""
        spec = ProfileSpec.model_validate(body["spec"])
        status = ProfileStatus.model_validate(status_of(body))
        is_deleted = "deletionTimestamp" in body["metadata"]
        if not is_deleted and (anew := retried(spec, status)) is not None:
            return await start_anew(self.objects, self.events, body, status, anew, now)
        asked = unanswered(spec, status) if not is_deleted else []
        answers = AskedRevisions(self.objects)
        told: list[StageStatus] = []
        failure: ApiError | None = None
        for stage, old in asked:
            try:
                answer = await answers.answer(body, spec, stage, old, now)
            except ApiError as error:
                if error.status < _SERVER_ERROR:
                    raise
                failure = error  # One stage's question must not keep another one where it is.
                continue
            if answer != old:
                told.append(answer)
        if told:
            return await self._write_answers(body, spec, status, told, now)
        again = await self._go_through(body, spec, status, is_deleted, now)
        if failure is not None:
            raise failure
        # What was refused may be let by a grant, what waits by the end of something else.
        return again if not asked else min(again, _LATER) if again is not None else _LATER

    async def _go_through(
        self, body: Object, spec: ProfileSpec, status: ProfileStatus, is_deleted: bool, now: datetime
    ) -> timedelta | None:
        """Look at the stages that are guarded, and go on with the others."""
        guarded = [(stage, it) for stage, it in begun(spec, status) if it.guarded] if not is_deleted else []
        if changed := [it for stage, old in guarded if (it := await self._guard(body, spec, stage, old, now)) != old]:
            return await self._write_guarded(body, spec, status, changed, now)
        again = await self._advance(body, spec, status, is_deleted, now)
        if not guarded:
            return again
        return min(again, _GUARD_POLL) if again is not None else _GUARD_POLL

    async def _advance(
        self, body: Object, spec: ProfileSpec, status: ProfileStatus, is_deleted: bool, now: datetime
    ) -> timedelta | None:
        """The next step of the stages that are in progress, or of the stage that is to begin."""
        stage = current_stage(spec, status)
        # A person who deletes a profile that is Degraded has taken over: the way back did not lead there in time.
        # What came through Git is not cotune's to take back.
        given_up = IN_PROGRESS if spec.rollout.strategy is Strategy.GIT else {ProfilePhase.DEGRADED}
        over = given_up if is_deleted else set[ProfilePhase]()
        in_progress = [(it, state) for it, state in begun(spec, status) if state.phase in IN_PROGRESS - over]
        if in_progress or stage is None:
            tidy = await self.probes.withdrawn(body, status)
            if await write_status(self.objects, PROFILE, body, status, tidy):
                return timedelta()
        if in_progress:
            return await self._go_on(body, spec, status, in_progress, now)
        if stage is None or is_deleted:
            for it, state in begun(spec, status):
                if state.phase in over:
                    await self.bridges.given_up(body, it, state)
                    await self.downtimes.given_up(body, it, state, now)
            body = await self._set_finalizer(body, wanted=False)
            if not is_deleted:
                await self._look_again(body, status)
            return None
        expected: Estimate | None = None
        try:
            targets = await self._targets(body, spec, stage)
            if isinstance(targets, Refusal):
                waiting = Waiting(targets.reason, targets.message, is_stalled=True)
            else:
                # What comes through Git is taken up by whoever runs the namespace, at a time and in a way of theirs.
                if spec.rollout.strategy is not Strategy.GIT:
                    batches = await planned(self.objects, stage, targets)
                    found_out = await self.downtimes.expected(spec, status, stage, targets, batches)
                    expected = with_surge(stage, targets, found_out)
                waiting = self._hindrance(spec, stage, now) or await self._rival(body, stage, now)
                if waiting is None:
                    return await self._begin(body, spec, status, stage, targets, expected, now)
                if waiting.phase is ProfilePhase.AWAITING_APPROVAL and expected is not None:
                    said = await self.downtimes.said(stage, targets, expected, now)
                    waiting = replace(waiting, message=f"{waiting.message}; {said}")
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            obstacle = _obstacle(error)
            waiting = Waiting(obstacle.reason, obstacle.message, is_stalled=True)
        return await self._wait(body, spec, status, stage, waiting, expected, now)

    async def _guard(
        self, body: Object, spec: ProfileSpec, stage: Stage, state: StageStatus, now: datetime
    ) -> StageStatus:
        """The state of a promoted stage after a look at it; what the API server refuses is looked at again."""
        if is_over(stage, state.finished_at or now, now):
            return _unguarded(state, f"its {stage.guard_seconds} s are over")
        try:
            found = await self._watch(body, spec, stage, state, now)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return state
        if isinstance(found, GuardOver):
            return _unguarded(state, found.reason)
        if found.phase is not ProfilePhase.PROMOTED:
            return _stepped(state, found, now).model_copy(update={"guarded": ()})
        return state.model_copy(update={"unready_since": found.unready_since, "chances": found.chances or ()})

    async def _write_guarded(
        self, body: Object, spec: ProfileSpec, status: ProfileStatus, changed: Sequence[StageStatus], now: datetime
    ) -> timedelta:
        """Only a stage that goes back changes what the profile is."""
        if any(it.phase in IN_PROGRESS for it in changed):
            body = await self._set_finalizer(body, wanted=spec.rollout.strategy is Strategy.DIRECT)
            return await self._write(body, spec, status, changed, now)
        stages = status.stages
        for it in changed:
            stages = with_stage(stages, it)
        await write_status(self.objects, PROFILE, body, status, status.model_copy(update={"stages": stages}))
        return timedelta()

    async def _write_answers(
        self, body: Object, spec: ProfileSpec, status: ProfileStatus, states: Sequence[StageStatus], now: datetime
    ) -> timedelta:
        """What was answered goes on record; a stage that is taken somewhere is in progress from then on."""
        old = by_name(status)
        if any(it.phase is not old[it.name].phase for it in states):
            body = await self._set_finalizer(body, wanted=True)
            await self._write(body, spec, status, states, now)
            return timedelta()
        stages = status.stages
        for it in states:
            stages = with_stage(stages, it)
        generation, conditions = body["metadata"]["generation"], status.conditions
        if (why := refused(stages)) is not None:
            stalled = condition("Stalled", True, generation, now, why.reason, why.message)
            conditions = with_condition(conditions, stalled)
        elif (before := refused(status.stages)) is not None:
            message = f"no longer: {before.reason}"
            conditions = with_condition(conditions, condition("Stalled", False, generation, now, "Answered", message))
        update = {"stages": stages, "conditions": looked_at(conditions, generation), "observed_generation": generation}
        if await write_status(self.objects, PROFILE, body, status, status.model_copy(update=update)):
            for it in states:
                if it.asked is not None:
                    warning = it.asked.outcome is AskedOutcome.REFUSED
                    note = f"stage {it.name}: {it.asked.message}"
                    await self.events.tell(body, it.asked.reason, note, "Rollout", now, warning=warning)
        return timedelta()

    async def _watch(
        self, body: Object, spec: ProfileSpec, stage: Stage, state: StageStatus, now: datetime
    ) -> StageStep | GuardOver:
        last_good, target = await self._revisions(stage, state)
        if last_good is None or target is None:
            return GuardOver("its ControllerRevisions are gone")
        if why := _no_longer(body, spec, state, await self._targets(body, spec, stage, last_good), last_good, target):
            return GuardOver(why)
        spec = spread(spec, stacks_in(last_good.targets))
        found = await self._observe(spec, stage, last_good.targets, last_good.revision)
        observed = {name: it.observed for name, it in found.items()}
        generations = {it.component: it.generation for it in state.guarded}
        step = watch(stage, generations, target.revision, observed, now, state.unready_since, state.chances)
        if isinstance(step, GuardOver) or step.phase is not ProfilePhase.PROMOTED:
            rivals = [rival_of(it) for it in await self.objects.list(PROFILE)]
            if (rival := in_the_middle(rival_of(body), rivals, stage.namespace)) is not None:
                return GuardOver(f"profile {rival.namespace}/{rival.name} has taken over")
        return step

    async def _look_again(self, body: Object, status: ProfileStatus) -> None:
        """An ended profile was edited: that has been seen, and changes nothing."""
        generation = body["metadata"]["generation"]
        conditions = looked_at(status.conditions, generation)
        new = status.model_copy(update={"observed_generation": generation, "conditions": conditions})
        await write_status(self.objects, PROFILE, body, status, new)

    async def _targets(
        self, body: Object, spec: ProfileSpec, stage: Stage, begun: StoredRevision | None = None
    ) -> Targets | Refusal:
        """What the grants mean now; once a stage of several stacks has `begun`, whether they still mean its own."""
        source, namespace = body["metadata"]["namespace"], stage.namespace
        try:
            found = await invitations(self.objects, namespace, source)
        except GrantInvalidError as error:
            return Refusal("GrantInvalid", str(error))
        if begun is not None and stacks_in(begun.targets):
            workloads = await and_begun(self.objects, namespace, found.workloads, begun.targets)
            return still_granted(spec, source, namespace, found.grants, workloads, begun.targets)
        return resolve(spec, source, namespace, found.grants, found.workloads)

    def _hindrance(self, spec: ProfileSpec, stage: Stage, now: datetime) -> Waiting | None:
        return hindrance(spec, stage, now) or self.gates.hindrance(stage)

    async def _rival(self, body: Object, stage: Stage, now: datetime) -> Waiting | None:
        rivals = [rival_of(it) for it in await self.objects.list(PROFILE)]
        first = goes_before(rival_of(body), rivals, stage.namespace, now)
        if first is None:
            holder = await holding(self.objects, stage.namespace)
            if holder is None:
                return None
            message = f"experiment {holder.experiment} keeps production in {stage.namespace} stopped for its trials"
            return Waiting("NamespaceQuiesced", message)
        message = f"profile {first.namespace}/{first.name} goes first in namespace {stage.namespace}"
        return Waiting("WaitingForProfile", message)

    async def _begin(
        self,
        body: Object,
        spec: ProfileSpec,
        status: ProfileStatus,
        stage: Stage,
        targets: Targets,
        expected: Estimate | None,
        now: datetime,
    ) -> timedelta:
        """Rehearse the change, then store what is there and what shall be there: only then anything is touched.

        Raises:
            ApiError: the change would be refused.
        """
        by_component, spec = targets.by_component, spread(spec, targets.stacks)
        found = await self._observe(spec, stage, by_component)
        metadata = body["metadata"]
        kept_by = keepers(spec, found)
        seen = with_managed(status, stage, found, kept_by, metadata["generation"], now)
        if (refused_probe := await self.probes.hindrance(body, stage)) is not None:
            return await self._wait(body, spec, status, stage, refused_probe, expected, now, seen)
        if spec.rollout.strategy is Strategy.GIT:
            return await self._begin_from_git(body, spec, status, seen, stage, targets, found, now)
        workloads = Workloads(self.objects, stage.namespace)
        waiting = undone(stage, found, kept_by) or await self._unfit(
            spec, stage, targets, found, await workloads.autoscalers(by_component)
        )
        if waiting is None:
            assert expected is not None  # Only Git's stages have none.
            waiting = await self.downtimes.hindrance(stage, targets, expected, now)
        if waiting is None:
            waiting, seen = await self.probes.baseline(body, stage, found, seen, now)
        if waiting is not None:
            return await self._wait(body, spec, status, stage, waiting, expected, now, seen)
        profile = f"{metadata['namespace']}/{metadata['name']}"
        before = Revision(
            tuple(
                WorkloadRevision(it, found[it].observed.values, found[it].observed.replicas) for it in spec.start_order
            )
        )
        after = before.with_values({(it.component, it.env): it.to for it in spec.changes})
        marker = as_stored(after, by_component, None).name
        for it in after.workloads:
            await workloads.rehearse(found[it.component], it.values, marker)
        surge = await self.bridges.planned(body, stage, targets, found, after, marker, now)
        if isinstance(surge, Waiting):
            return await self._wait(body, spec, status, stage, surge, expected, now, seen)
        revisions = Revisions(self.objects, stage.namespace)
        markers = {it: found[it].marker for it in spec.start_order}
        last_good = await revisions.ensure(before, by_component, markers, profile)
        target = await revisions.ensure(after, by_component, None, profile)
        # Nobody else is in the middle of a stage here: no other way back leads to one of them.
        marked = {it for it in markers.values() if it is not None}
        await revisions.prune(by_component, {last_good.name, target.name, *marked})
        batches = first_batch(await planned(self.objects, stage, targets), now)
        body = await self._set_finalizer(body, wanted=True)
        state = StageStatus(
            name=stage.name,
            phase=ProfilePhase.PROGRESSING,
            started_at=now,
            phase_started_at=now,
            revision=target.name,
            last_good_revision=last_good.name,
            downtime=StageDowntime(expected_seconds=expected.seconds if expected is not None else None),
            batch=1 if batches else None,
            batches=batches,
            probe=measured.probe if (measured := by_name(seen).get(stage.name)) is not None else None,
            surge=surge,
            message=f"from revision {last_good.name} to {target.name}",
        )
        return await self._write(body, spec, seen, [state], now)

    async def _unfit(
        self,
        spec: ProfileSpec,
        stage: Stage,
        targets: Targets,
        found: Mapping[str, Workload],
        autoscalers: Mapping[str, str],
    ) -> Waiting | None:
        """Why a stage must not begin on the workloads as they are."""
        waiting = unfit(
            spec.start_order,
            stage.namespace,
            {name: it.workload.name for name, it in targets.by_component.items()},
            {name: it.observed for name, it in found.items()},
            autoscalers,
        )
        if waiting is None and (why := await self._sharing_mismatch(spec, found)) is not None:
            waiting = Waiting("SharingMismatch", f"namespace {stage.namespace}: {why}", is_stalled=True)
        if waiting is None and (why := too_small(spec.expect, {name: it.container for name, it in found.items()})):
            waiting = Waiting("StartupBudget", f"namespace {stage.namespace}: {why}", is_stalled=True)
        return waiting

    async def _begin_from_git(
        self,
        body: Object,
        spec: ProfileSpec,
        status: ProfileStatus,
        seen: ProfileStatus,
        stage: Stage,
        targets: Targets,
        found: Mapping[str, Workload],
        now: datetime,
    ) -> timedelta:
        """Record what is there, and begin when the workloads have the values: no workload is written to."""
        # Replicas are not cotune's here, and an autoscaler is in nobody's way.
        waiting = await self._unfit(spec, stage, targets, found, autoscalers={})
        after = Revision(tuple(WorkloadRevision(it, {}, 1) for it in spec.start_order)).with_values(
            {(it.component, it.env): it.to for it in spec.changes}
        )
        has_come = is_shown(after, {name: it.observed for name, it in found.items()})
        # What came with the commit may not be ready yet: the stage's deadline is for that.
        if waiting is not None and not (waiting.reason == "StageNotReady" and has_come):
            return await self._wait(body, spec, status, stage, waiting, None, now, seen)
        state = await recorded(self.objects, body, spec, status, stage, found, now)
        if has_come:
            return await self._write(body, spec, seen, [begun_from_git(state, now)], now)
        waiting = awaiting(body, spec, stage, found)
        state = state.model_copy(update={"message": waiting.message[:4096]})
        seen = seen.model_copy(update={"stages": with_stage(status.stages, state)})
        await self._wait(body, spec, status, stage, waiting, None, now, seen)
        return _LATER

    async def _go_on(
        self,
        body: Object,
        spec: ProfileSpec,
        status: ProfileStatus,
        stages: Sequence[tuple[Stage, StageStatus]],
        now: datetime,
    ) -> timedelta:
        """The next step of the stages that are in progress; what the API server refuses turns a stage back."""
        states: list[StageStatus] = []
        obstacle: Obstacle | None = None
        is_refused = False
        for stage, state in stages:
            try:
                step = await self._step(body, spec, stage, state, now)
            except ApiError as error:
                if error.status not in REFUSALS:
                    raise
                is_refused = True
                step = blocked(stage, state.phase, state.phase_started_at or now, _obstacle(error), now)
            step = await self.probes.tidied(body, stage, state, step)
            states.append(_stepped(state, step, now))
            obstacle = obstacle or step.obstacle
        again = await self._write(body, spec, status, states, now, obstacle)
        return _LATER if is_refused else again

    async def _step(
        self, body: Object, spec: ProfileSpec, stage: Stage, state: StageStatus, now: datetime
    ) -> StageStep:
        """Decide and act on the workloads that were on record when the stage began.

        A grant that is withdrawn or means other workloads now ends the rollout: the namespace gets back what it had,
        and that is the last thing that happens there.

        Raises:
            ApiError: the API server has refused a call; the others were made.
        """
        last_good, target = await self._revisions(stage, state)
        if last_good is None:
            message = f"ControllerRevision {state.last_good_revision}, the way back, is gone"
            return StageStep(ProfilePhase.DEGRADED, message, obstacle=Obstacle("RevisionGone", message))
        targets = await self._targets(body, spec, stage, last_good)
        spec, course = spread(spec, stacks_in(last_good.targets)), Course.of(state)
        # Stacks whose batch has not begun are none of this stage's yet.
        own = last_good.targets if course is None else of_stacks(last_good.targets, course.begun)
        found = await self._observe(spec, stage, own, last_good.revision)
        observed = {name: it.observed for name, it in found.items()}
        bridge = await self.bridges.look(body, stage, state, last_good, target, found)
        why = _no_longer(body, spec, state, targets, last_good, target)
        if not why and state.phase not in ON_THE_WAY_BACK:
            # The pods that have started since may run elsewhere.
            mismatch = await self._sharing_mismatch(spec, found)
            why = f"SharingMismatch: {mismatch}" if mismatch is not None else ""
            why = why or _edited(state, last_good, target, found)
        if why and state.phase not in ON_THE_WAY_BACK:
            step = StageStep(ProfilePhase.ROLLING_BACK, why)
            if spec.rollout.strategy is Strategy.GIT:
                return step  # Nothing is stopped here, and nothing costs downtime that cotune could count.
        elif spec.rollout.strategy is Strategy.GIT:
            step = self._step_from_git(
                spec, stage, state, last_good.revision, (target or last_good).revision, found, now
            )
            return await self._judged(body, stage, state, step, now)
        elif bridge is not None and bridge.comes_first:
            step = bridge.start(targets, await self._sharing_mismatch(spec, bridge.copies), now)
        else:
            goal, way_back = (target or last_good).revision, last_good.revision
            if state.phase is not ProfilePhase.BAKING:
                goal, way_back = await self._with_their_replicas(stage, (goal, way_back), last_good.targets, observed)
            since = state.phase_started_at or now
            unready, chances = state.unready_since, state.chances
            if course is None:
                step = decide(stage, state.phase, since, goal, way_back, observed, now, unready, chances)
            else:
                step = decide_in_batches(
                    stage, course, state.phase, since, goal, way_back, observed, now, unready, chances
                )
            step = await self._judged(body, stage, state, step, now)
            if course is not None:
                step = next_batch(course, step, spec.rollout.paused)
        if isinstance(targets, Targets):
            step = with_appeared(step, targets)
        step = await self.memory.looked_at(stage, state, step, found, now)
        if bridge is not None:
            step = await bridge.go_on(step, now)
        wanted = last_good if step.phase in ON_THE_WAY_BACK or target is None else target
        await self._apply(stage, step, found, wanted)
        is_served = bridge is not None and bridge.is_served
        return await self.downtimes.measured(body, stage, state, step, last_good.revision, observed, is_served, now)

    async def _judged(
        self, body: Object, stage: Stage, state: StageStatus, step: StageStep, now: datetime
    ) -> StageStep:
        """The step with what its probe and its gates have to say about it."""
        probed = await self.probes.gone_on(body, stage, state, step, now)
        return replace(self.gates.judged(body, stage, probed, step, now), probe=probed.probe)

    def _step_from_git(
        self,
        spec: ProfileSpec,
        stage: Stage,
        state: StageStatus,
        last_good: Revision,
        target: Revision,
        found: Mapping[str, Workload],
        now: datetime,
    ) -> StageStep:
        observed = {name: it.observed for name, it in found.items()}
        revert = to_revert(spec.changes, last_good, observed, places(found))
        since = state.phase_started_at or now
        return decide_from_git(
            stage, state.phase, since, target, revert, observed, now, state.unready_since, state.chances
        )

    async def _with_their_replicas(
        self,
        stage: Stage,
        revisions: tuple[Revision, Revision],
        targets: Mapping[str, GrantTarget],
        observed: Mapping[str, ObservedWorkload],
    ) -> tuple[Revision, Revision]:
        """What a stage shall be, with what an autoscaler that has appeared meanwhile makes of the replicas."""
        if not any(scaled_by_others(it, observed) for it in revisions):
            return revisions
        autoscaled = await Workloads(self.objects, stage.namespace).autoscalers(targets)
        goal, way_back = (with_their_replicas(it, observed, autoscaled.keys()) for it in revisions)
        return goal, way_back

    async def _revisions(self, stage: Stage, state: StageStatus) -> tuple[StoredRevision | None, StoredRevision | None]:
        """The stage's way back, and its way forward; None: it is gone."""
        assert state.revision is not None  # Both were written when the stage began.
        assert state.last_good_revision is not None
        revisions = Revisions(self.objects, stage.namespace)
        return await revisions.find(state.last_good_revision), await revisions.find(state.revision)

    async def _sharing_mismatch(self, spec: ProfileSpec, found: Mapping[str, Workload]) -> str | None:
        """Why the stage's cards are not shared as the profile expects it; the nodes are only read where it matters."""
        on_cards = {name: it.card_nodes for name, it in found.items() if it.card_nodes}
        if spec.expect is None or spec.expect.sharing is None or not on_cards:
            return None
        return sharing_mismatch(spec.expect, on_cards, {it.name: it.sharing for it in await nodes(self.objects)})

    async def _observe(
        self, spec: ProfileSpec, stage: Stage, targets: Mapping[str, GrantTarget], way_back: Revision | None = None
    ) -> dict[str, Workload]:
        """The workloads with the variables that the profile sets, and with those that the way back would."""
        recorded = {it.component: frozenset(it.values) for it in way_back.workloads} if way_back is not None else {}
        variables = {
            name: frozenset(it.env for it in spec.changes if it.component == name) | recorded.get(name, frozenset())
            for name in spec.start_order
        }
        return await Workloads(self.objects, stage.namespace).observe(targets, variables)

    async def _apply(self, stage: Stage, step: StageStep, found: dict[str, Workload], wanted: StoredRevision) -> None:
        workloads = Workloads(self.objects, stage.namespace)
        refused: ApiError | None = None
        for action in step.actions:
            try:
                match action:
                    case Scale(component, replicas):
                        await workloads.scale(found[component], replicas)
                    case SetValues(component, values):
                        await workloads.set_values(found[component], values, wanted.markers[component])
            except ApiError as error:
                if error.status not in REFUSALS:
                    raise
                refused = refused or error  # One workload that is refused does not keep the others where they are.
        if refused is not None:
            raise refused

    async def _set_finalizer(self, body: Object, wanted: bool) -> Object:
        """The profile stays as long as its rollout is in progress: a deletion in the middle takes it back first."""
        return await with_finalizer(self.objects, PROFILE, body, FINALIZER, wanted)

    async def _wait(
        self,
        body: Object,
        spec: ProfileSpec,
        status: ProfileStatus,
        stage: Stage,
        waiting: Waiting,
        expected: Estimate | None,
        now: datetime,
        seen: ProfileStatus | None = None,
    ) -> timedelta:
        """Write why the next stage has not begun, on top of what was seen of it beside."""
        generation = body["metadata"]["generation"]
        seen = await self.probes.interrupted(body, stage, waiting, seen or status)
        conditions = seen.conditions
        stalled = condition("Stalled", waiting.is_stalled, generation, now, waiting.reason, waiting.message)
        if not waiting.is_stalled and (asked := refused(seen.stages)) is not None:
            stalled = condition("Stalled", True, generation, now, asked.reason, asked.message)
        for it in (condition("Progressing", False, generation, now, waiting.reason, waiting.message), stalled):
            conditions = with_condition(conditions, it)
        phase = waiting.phase or overall(spec, seen.stages)
        conditions = looked_at(conditions, generation)
        update = {"phase": phase, "conditions": conditions, "observed_generation": generation}
        new = seen.model_copy(update=update | {"expected_downtime": as_status(stage, expected)})
        if await write_status(self.objects, PROFILE, body, status, new):
            await self.events.tell(body, waiting.reason, waiting.message, "Rollout", now, warning=waiting.is_stalled)
        return _LATER if waiting.is_stalled else timedelta(seconds=1)

    async def _write(
        self,
        body: Object,
        spec: ProfileSpec,
        status: ProfileStatus,
        states: Sequence[StageStatus],
        now: datetime,
        obstacle: Obstacle | None = None,
    ) -> timedelta:
        """Write what has become of some of the stages, and what the whole amounts to."""
        stages = status.stages
        for it in states:
            stages = with_stage(stages, it)
        phase = overall(spec, stages)
        generation = body["metadata"]["generation"]
        message = "; ".join(_said(it) for it in states)
        ended = phase in {ProfilePhase.ROLLED_BACK, ProfilePhase.PROMOTED}
        degraded = phase is ProfilePhase.ROLLED_BACK or phase in ON_THE_WAY_BACK
        conditions = status.conditions
        stalled = condition("Stalled", phase is ProfilePhase.DEGRADED, generation, now, str(phase), message)
        if obstacle is None and (asked := refused(stages)) is not None:
            obstacle = Obstacle(asked.reason, asked.message)
        if obstacle is not None:
            stalled = condition("Stalled", True, generation, now, obstacle.reason, obstacle.message)
        for it in (
            condition("Progressing", not ended, generation, now, str(phase), message),
            condition("Ready", phase is ProfilePhase.PROMOTED, generation, now, str(phase), message),
            condition("Degraded", degraded, generation, now, str(phase), message),
            stalled,
        ):
            conditions = with_condition(conditions, it)
        new = ProfileStatus(
            phase=phase,
            observed_generation=generation,
            stage=states[-1].name,
            retries=status.retries,
            stages=stages,
            conditions=conditions,
        )
        entered = [it for it in states if _phase(status.stages, it.name) is not it.phase]
        if await write_status(self.objects, PROFILE, body, status, new):
            before = by_name(status)
            for it in states:
                await tell_outcomes(self.events, body, before.get(it.name), it, now)
                await tell_bridge(self.events, body, before.get(it.name), it, now)
                await tell_memory(self.events, body, before.get(it.name), it, now)
                count(_stage(spec, it.name), before.get(it.name), it)
            for it in entered:
                bad = it.phase is ProfilePhase.ROLLED_BACK or it.phase in ON_THE_WAY_BACK
                await self.events.tell(body, str(it.phase), _said(it), "Rollout", now, warning=bad)
                if it.phase not in IN_PROGRESS:
                    STAGES.labels(str(it.phase)).inc()
        return timedelta() if entered else _POLL


def _stage(spec: ProfileSpec, name: str) -> Stage:
    return next(it for it in spec.rollout.stages if it.name == name)


def _said(state: StageStatus) -> str:
    return f"stage {state.name}: {state.message or state.phase}"


def _unguarded(state: StageStatus, why: str) -> StageStatus:
    return state.model_copy(
        update={"guarded": (), "unready_since": None, "message": f"no longer guarded: {why}"[:4096]}
    )


def _no_longer(
    body: Object,
    spec: ProfileSpec,
    state: StageStatus,
    targets: Targets | Refusal,
    last_good: StoredRevision,
    target: StoredRevision | None,
) -> str:
    """Why a stage that has begun must not go on to its target; empty when it may."""
    if "deletionTimestamp" in body["metadata"]:
        return "the profile was deleted in the middle of its rollout"
    if spec.rollout.abort:
        return "Aborted: spec.rollout.abort is true"
    if isinstance(targets, Refusal):
        return f"{targets.reason}: {targets.message}"
    if target is None:
        return f"ControllerRevision {state.revision}, the way forward, is gone"
    granted = {name: (it.workload, it.container) for name, it in targets.by_component.items()}
    begun = {name: (it.workload, it.container) for name, it in last_good.targets.items()}
    return "the grant names other workloads than when the stage began" if granted != begun else ""


def _edited(
    state: StageStatus, last_good: StoredRevision, target: StoredRevision | None, found: Mapping[str, Workload]
) -> str:
    """Who has had the values of a stage that is not ready yet, and has others now; empty when nobody has."""
    if state.phase is not ProfilePhase.PROGRESSING or target is None:
        return ""
    observed = {name: it.observed for name, it in found.items()}
    markers = {name: it.marker for name, it in found.items() if last_good.markers.get(name) != target.name}
    names = edited(target.revision, observed, markers, target.name)
    return f"{', '.join(names)}: somebody else has changed its variables" if names else ""


def _obstacle(error: ApiError) -> Obstacle:
    if isinstance(error, ForbiddenError):
        return Obstacle("Forbidden", error.message)
    return Obstacle("ChangeRefused", error.message)


def _stepped(state: StageStatus, step: StageStep, now: datetime) -> StageStatus:
    entered = step.phase is not state.phase
    batch = step.batch or state.batch
    message = step.message
    if state.phase in ON_THE_WAY_BACK:
        # How the way back goes does not replace why it was taken: that is what a person looks for.
        message = (
            f"{state.message}; {step.message}" if entered and step.phase is ProfilePhase.DEGRADED else state.message
        )
    begins_anew = batch != state.batch or restarts_clock(state.surge, step.surge)
    return state.model_copy(
        update={
            "phase": step.phase,
            "phase_started_at": now if entered or begins_anew else state.phase_started_at,
            "batch": batch,
            "batches": with_begun(state.batches, batch or 0, now),
            "unready_since": step.unready_since,
            "gates": state.gates if step.gates is None else step.gates,
            "chances": step.chances if step.chances is not None else state.chances,
            "downtime": step.downtime or state.downtime,
            "probe": step.probe or state.probe,
            "surge": step.surge or state.surge,
            "memory": (step.memory or state.memory) if step.phase in IN_PROGRESS else None,
            "guarded": tuple(
                GuardedWorkload(component=name, generation=it) for name, it in (step.guarded or {}).items()
            ),
            "finished_at": now if step.phase not in IN_PROGRESS else None,
            "message": message[:4096],
        }
    )


def _phase(stages: Sequence[StageStatus], name: str) -> ProfilePhase | None:
    return next((it.phase for it in stages if it.name == name), None)
