"""What becomes of a stage's `toRevision`: a look, a rehearsal, the revisions that are needed; then it is a way back."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from cotune.api.profile import AskedOutcome, ProfilePhase, ProfileSpec, Stage, StageStatus, Strategy
from cotune.cluster.grants import invitations
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import REFUSALS, ApiError, ForbiddenError, Object, Objects
from cotune.cluster.revisions import Revisions
from cotune.cluster.workloads import Workload, Workloads
from cotune.handlers.from_git import MANAGED, keepers_of, undone
from cotune.handlers.quiesce_holders import holding
from cotune.handlers.rivals import rival_of
from cotune.rollout.batches import all_batches
from cotune.rollout.beginning import unfit
from cotune.rollout.progress import in_the_middle
from cotune.rollout.stacks import spread, stacks_of_stage
from cotune.rollout.state import Revision, StoredRevision, WorkloadRevision
from cotune.rollout.targets import Refusal, ignored_by_git_ops, not_granted
from cotune.rollout.to_revision import answered, choose, completed, is_present, taken_back


@dataclass(frozen=True)
class AskedRevisions:
    """Answers what profiles ask for. It writes revisions only: what follows is the stage's own way back."""

    objects: Objects

    async def answer(
        self, body: Object, spec: ProfileSpec, stage: Stage, state: StageStatus, now: datetime
    ) -> StageStatus:
        """The stage's state with the answer to its `toRevision`; where it is taken there, at the beginning of that way.

        Repeated after a death at any call, it does the same: a revision that is stored already is found.
        """
        wanted = stage.to_revision
        if wanted is None:
            return state.model_copy(update={"asked": None})
        try:
            found = await self._answer(body, spec, stage, state, wanted, now)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            reason = "Forbidden" if isinstance(error, ForbiddenError) else "ChangeRefused"
            found = Refusal(reason, error.message)
        if isinstance(found, Refusal):
            return answered(state, wanted, AskedOutcome.REFUSED, found.reason, found.message, now)
        return found

    async def _answer(
        self, body: Object, spec: ProfileSpec, stage: Stage, state: StageStatus, wanted: str, now: datetime
    ) -> StageStatus | Refusal:
        namespace = stage.namespace
        if spec.rollout.strategy is Strategy.GIT:
            message = f"namespace {namespace} takes its values from Git: commit those of revision {wanted} there"
            return Refusal(MANAGED, message)
        if state.phase is ProfilePhase.ROLLING_BACK:
            message = f"stage {stage.name} is on its way back to revision {state.last_good_revision}: that ends first"
            return answered(state, wanted, AskedOutcome.WAITING, "WaitingForWayBack", message, now)
        revisions = Revisions(self.objects, namespace)
        stored = await revisions.stored()
        components = spread(spec, stacks_of_stage(state)).start_order
        chosen = choose(wanted, stored, components, state, namespace)
        if isinstance(chosen, Refusal):
            return chosen
        source = body["metadata"]["namespace"]
        granted = await invitations(self.objects, namespace, source)
        if (refusal := not_granted(chosen, source, namespace, granted.grants, granted.workloads)) is not None:
            return refusal
        if state.phase in {ProfilePhase.PROGRESSING, ProfilePhase.BAKING}:
            message = f"revision {wanted} was asked for: first back to {state.last_good_revision}"
            waiting = answered(state, wanted, AskedOutcome.WAITING, "WaitingForWayBack", message, now)
            return taken_back(waiting, message, now)
        rivals = [rival_of(it) for it in await self.objects.list(PROFILE)]
        if (rival := in_the_middle(rival_of(body), rivals, namespace)) is not None:
            message = (
                f"profile {rival.namespace}/{rival.name} is in the middle of its change in namespace {namespace}: "
                "abort it, or wait"
            )
            return answered(state, wanted, AskedOutcome.WAITING, "WaitingForProfile", message, now)
        if (holder := await holding(self.objects, namespace)) is not None:
            message = f"experiment {holder.experiment} keeps production in {namespace} stopped for its trials"
            return answered(state, wanted, AskedOutcome.WAITING, "NamespaceQuiesced", message, now)
        ignored = ignored_by_git_ops(chosen, source, granted.grants, granted.workloads)
        return await self._take(body, stage, state, chosen, stored, ignored, now)

    async def _take(
        self,
        body: Object,
        stage: Stage,
        state: StageStatus,
        chosen: StoredRevision,
        stored: "list[StoredRevision]",
        ignored: Collection[str],
        now: datetime,
    ) -> StageStatus | Refusal:
        """Rehearse it, and store what is there if it is well: somebody may want to come back to it."""
        names = list(chosen.targets)
        workloads = Workloads(self.objects, stage.namespace)
        variables = {it.component: frozenset(it.values) for it in chosen.revision.workloads}
        found = await workloads.observe(chosen.targets, variables)
        observed = {name: it.observed for name, it in found.items()}
        hindrance = unfit(
            names,
            stage.namespace,
            {name: it.workload.name for name, it in chosen.targets.items()},
            observed,
            await workloads.autoscalers(chosen.targets),
            needs_health=False,
        )
        if hindrance is not None:
            return Refusal(hindrance.reason, hindrance.message)
        goal = completed(chosen, stored, observed)
        if isinstance(goal, Refusal):
            return goal
        if is_present(goal, observed):
            message = f"namespace {stage.namespace} has revision {chosen.name} already"
            return answered(state, chosen.name, AskedOutcome.ALREADY_THERE, "AlreadyThere", message, now)
        touched = {it.component: it.values.keys() for it in goal.workloads}
        if (git := undone(stage, found, keepers_of(found, touched, ignored))) is not None:
            return Refusal(git.reason, git.message)
        for it in goal.workloads:
            await workloads.rehearse(found[it.component], it.values, chosen.markers[it.component])
        last_good = await self._stored(body, stage, chosen, goal, found)
        message = f"to revision {last_good}, because {chosen.name} was asked for"
        taken = answered(state, chosen.name, AskedOutcome.TAKEN, "RevisionTaken", message, now)
        back = taken_back(all_batches(taken, now), message, now)
        return back.model_copy(update={"last_good_revision": last_good, "chances": ()})

    async def _stored(
        self, body: Object, stage: Stage, chosen: StoredRevision, goal: Revision, found: Mapping[str, Workload]
    ) -> str:
        """The name of the revision that the way back leads to."""
        profile = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        revisions = Revisions(self.objects, stage.namespace)
        if all(it.observed.is_ready and it.observed.replicas for it in found.values()):
            present = Revision(
                tuple(
                    WorkloadRevision(
                        it.component, found[it.component].observed.values, found[it.component].observed.replicas
                    )
                    for it in goal.workloads
                )
            )
            markers = {name: it.marker for name, it in found.items()}
            await revisions.ensure(present, chosen.targets, markers, profile)
        if goal == chosen.revision:
            return chosen.name
        return (await revisions.ensure(goal, chosen.targets, chosen.markers, profile)).name
