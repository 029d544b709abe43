"""What a pass does about the bridge of a stage: it is planned before the stage begins, made, kept, and removed."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from cotune.api.profile import ProfilePhase, Stage, StageStatus
from cotune.api.surge import StageSurge, Surge, SurgePhase
from cotune.cluster.bridges import Bridges
from cotune.cluster.events import Events
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, Object, Objects
from cotune.cluster.workloads import Workload
from cotune.rollout.bridge import CreateBridge, RemoveBridge, bridge_id, not_surgeable
from cotune.rollout.convergence import lack_values
from cotune.rollout.progress import Waiting
from cotune.rollout.stage import Obstacle, StageStep
from cotune.rollout.state import ObservedWorkload, Revision, StoredRevision
from cotune.rollout.surge import IN_WORK, NoBridge, keep, serves, start, wanted
from cotune.rollout.targets import Refusal, Targets

_TOLD = frozenset({SurgePhase.SERVING, SurgePhase.NO_ROOM, SurgePhase.FAILED})


@dataclass(frozen=True)
class StageBridge:
    """The bridge of one stage, as a pass finds it."""

    bridges: Bridges
    stage: Stage
    state: StageStatus
    surge: StageSurge
    """Of the state."""
    last_good: StoredRevision
    target: StoredRevision
    originals: Mapping[str, Workload]
    copies: Mapping[str, Workload]
    """What there is of the bridge, by component."""

    @property
    def comes_first(self) -> bool:
        """Whether nothing of the stack is to be touched yet."""
        return self.surge.phase is SurgePhase.STARTING and self.state.phase is ProfilePhase.PROGRESSING

    @property
    def is_served(self) -> bool:
        """Whether all of it is ready."""
        return serves(self.target.revision, _observed(self.copies))

    def start(self, targets: Targets | Refusal, mismatch: str | None, now: datetime) -> StageStep:
        """The next step of a stage whose bridge starts.

        Args:
            targets: what grants say today.
            mismatch: why the bridge's cards are not shared as the profile expects it.
            now: the time.
        """
        if isinstance(targets, Targets) and not targets.may_surge:
            why = _not_granted(self.stage)
            if self.stage.surge is Surge.REQUIRE:
                return StageStep(ProfilePhase.ROLLING_BACK, f"{why.reason}: {why.message}")
            return self._start(now, why)
        if self.stage.surge is Surge.NEVER:
            return self._start(now, NoBridge("NotWanted", "the stage says surge: Never"))
        return self._start(now, NoBridge("SharingMismatch", mismatch) if mismatch is not None else None)

    async def go_on(self, step: StageStep, now: datetime) -> StageStep:
        """Do what is due about the bridge; the step with it. What is refused hinders the bridge, not the stage."""
        step = self._keep(step, now)
        try:
            for action in step.bridging:
                match action:
                    case CreateBridge(component):
                        await self._create(component)
                    case RemoveBridge(component):
                        await self.bridges.remove(self.copies[component])
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            why = _refused(error)
            if step.surge is not None and step.surge.phase is SurgePhase.REMOVING:
                return replace(step, obstacle=Obstacle(why.reason, why.message))
            return self._keep(self._start(now, why), now)
        return step

    async def _create(self, component: str) -> None:
        [values] = [it.values for it in self.target.revision.workloads if it.component == component]
        original = self.originals.get(component)
        if original is not None:  # Somebody may just have deleted it; it is waited for as without a bridge.
            await self.bridges.create(original, values, self.target.name)

    def _start(self, now: datetime, why_not: NoBridge | None) -> StageStep:
        originals, copies = _observed(self.originals), _observed(self.copies)
        return start(self.stage, self.state, self.surge, self.target.revision, originals, copies, now, why_not)

    def _keep(self, step: StageStep, now: datetime) -> StageStep:
        originals, copies = _observed(self.originals), _observed(self.copies)
        target, last_good = self.target.revision, self.last_good.revision
        return keep(self.state.phase, self.surge, step, target, last_good, originals, copies, now)


@dataclass(frozen=True)
class StageBridges:
    """Looks after the bridges of stages; what it knows lies in their namespaces and in the profiles' statuses."""

    objects: Objects

    async def planned(
        self,
        body: Object,
        stage: Stage,
        targets: Targets,
        found: Mapping[str, Workload],
        after: Revision,
        marker: str,
        now: datetime,
    ) -> StageSurge | Waiting | None:
        """With what a stage begins: a bridge, or why not one; None: it is not meant to have any.

        Nothing is made: what the API server would refuse is found out by a rehearsal.

        Args:
            body: the profile.
            stage: which is to begin.
            targets: what grants of its namespace allow.
            found: its workloads.
            after: what they shall be.
            marker: the name of that revision.
            now: the time.
        """
        mode = wanted(stage, targets)
        if mode is Surge.NEVER or not lack_values(after, _observed(found)):
            return None
        why = await self._why_not(body, stage, targets, found, after, marker)
        if why is None:
            return StageSurge(phase=SurgePhase.STARTING, since=now, is_required=mode is Surge.REQUIRE)
        if mode is Surge.REQUIRE:
            return Waiting(why.reason, f"stage {stage.name}: {why.message}", is_stalled=True)
        return StageSurge(phase=SurgePhase.NO_ROOM, since=now, reason=why.reason, message=why.message[:2048])

    async def look(
        self,
        body: Object,
        stage: Stage,
        state: StageStatus,
        last_good: StoredRevision,
        target: StoredRevision | None,
        originals: Mapping[str, Workload],
    ) -> StageBridge | None:
        """The bridge of a stage; None: it has none, or none any more."""
        if state.surge is None or state.surge.phase not in IN_WORK:
            return None
        bridges = self._bridges(body, stage)
        copies = await bridges.observe(last_good.targets)
        return StageBridge(bridges, stage, state, state.surge, last_good, target or last_good, originals, copies)

    async def given_up(self, body: Object, stage: Stage, state: StageStatus) -> None:
        """Remove what there is of the bridge of a stage that is left to a person.

        Without the right to, it stays: a deletion must not hang for ever because an owner has taken a right away.
        """
        if state.surge is not None and state.surge.phase in IN_WORK:
            with suppress(ForbiddenError):
                await self._bridges(body, stage).remove_all()

    async def _why_not(
        self,
        body: Object,
        stage: Stage,
        targets: Targets,
        found: Mapping[str, Workload],
        after: Revision,
        marker: str,
    ) -> NoBridge | None:
        if targets.stacks:
            return NoBridge("NotSurgeable", f"a grant in namespace {stage.namespace} selects several stacks")
        if not targets.may_surge:
            return _not_granted(stage)
        bridges = self._bridges(body, stage)
        deployments = {name: it.deployment for name, it in found.items()}
        nodes = {name: it.card_nodes for name, it in found.items()}
        if why := not_surgeable(deployments, await bridges.access_modes(found.values()), nodes):
            return NoBridge("NotSurgeable", why)
        try:
            for it in after.workloads:
                await bridges.create(found[it.component], it.values, marker, dry_run=True)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            if "does not support dry run" not in error.message:
                return _refused(error)
        return None

    def _bridges(self, body: Object, stage: Stage) -> Bridges:
        metadata = body["metadata"]
        bridge = bridge_id(metadata["uid"], stage.name)
        return Bridges(self.objects, stage.namespace, bridge, f"{metadata['namespace']}/{metadata['name']}")


async def tell_bridge(events: Events, body: Object, old: StageStatus | None, new: StageStatus, now: datetime) -> None:
    """An event when a bridge has come to serve, or cannot."""
    before, after = old.surge if old is not None else None, new.surge
    if after is None or (before is not None and (before.phase, before.reason) == (after.phase, after.reason)):
        return
    if after.phase in _TOLD:
        what = f"stage {new.name}: {after.message or 'the bridge serves'}"
        warning = after.phase is SurgePhase.FAILED
        await events.tell(body, after.reason or "BridgeServes", what, "Rollout", now, warning=warning)


def _not_granted(stage: Stage) -> NoBridge:
    return NoBridge("SurgeNotGranted", f"no grant in namespace {stage.namespace} allows Surge for the whole stack")


def _refused(error: ApiError) -> NoBridge:
    if isinstance(error, ForbiddenError):
        return NoBridge("Forbidden", error.message)
    return NoBridge("ChangeRefused", error.message)


def _observed(workloads: Mapping[str, Workload]) -> dict[str, ObservedWorkload]:
    return {name: it.observed for name, it in workloads.items()}
