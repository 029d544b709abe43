"""What the stages of a profile cost: expected while one waits, held against its budget, measured as it happens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from prometheus_client import Counter, Histogram

from cotune.api.downtime import ExpectedDowntime, StageDowntime
from cotune.api.profile import ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.objects import REFUSALS, ApiError, NotFoundError, Object, Objects
from cotune.rollout.batches import Course, part
from cotune.rollout.downtime import Estimate, Outage, balance, corrected, follow, held, told
from cotune.rollout.progress import Waiting
from cotune.rollout.stacks import of_stacks
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision
from cotune.rollout.surge import follow_bridged
from cotune.rollout.targets import Targets

DOWNTIME = Counter("cotune_downtime_seconds_total", "For how long stages have kept services down.", ["namespace"])
DOWNTIME_ERROR = Histogram(
    "cotune_downtime_error_seconds",
    "How much longer than expected services were down for a change.",
    buckets=(-300, -60, -30, -10, -3, 0, 3, 10, 30, 60, 300),
)


@dataclass(frozen=True)
class StageDowntimes:
    """Looks after the downtime of stages; what it knows lies in their namespaces and in the profiles' statuses."""

    objects: Objects

    async def expected(
        self,
        spec: ProfileSpec,
        status: ProfileStatus,
        stage: Stage,
        targets: Targets,
        batches: Sequence[Sequence[str]] = (),
    ) -> Estimate:
        """The downtime of a stage that has not begun; what must not be read is unknown."""
        try:
            return await Downtimes(self.objects, stage.namespace).estimate(spec, status, targets.by_component, batches)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return Estimate(None, f"unknown: {error.message}")

    async def said(self, stage: Stage, targets: Targets, expected: Estimate, now: datetime) -> str:
        """What a stage will cost, and what is left of its budgets, for who shall approve it."""
        said = f"its expected downtime is {expected.said}"
        if stage.downtime_budget is None and not targets.budgets:
            return said
        try:
            outages = await Downtimes(self.objects, stage.namespace).outages()
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return said
        return f"{said}; {balance(stage, targets.budgets, outages, now)}"

    async def hindrance(self, stage: Stage, targets: Targets, expected: Estimate, now: datetime) -> Waiting | None:
        """Why a budget, the stage's or the namespace's, does not let it begin."""
        if stage.downtime_budget is None and not targets.budgets:
            return None
        return held(stage, targets.budgets, expected, await Downtimes(self.objects, stage.namespace).outages(), now)

    async def measured(
        self,
        body: Object,
        stage: Stage,
        state: StageStatus,
        step: StageStep,
        last_good: Revision,
        observed: Mapping[str, ObservedWorkload],
        is_served: bool,
        now: datetime,
    ) -> StageStep:
        """The step with what is known of the stage's downtime after it.

        Args:
            body: the profile.
            stage: as the spec has it now.
            state: before the step.
            step: of this pass.
            last_good: what the stage was before.
            observed: what it was at the beginning of this pass, by component.
            is_served: whether all of its bridge was ready then.
            now: the time.
        """
        before, since = state.downtime or StageDowntime(), state.phase_started_at or now
        course = Course.of(state)
        is_last = course is None or course.is_last
        if course is not None:
            # Stacks of earlier batches serve, or their being down is not this batch's doing; later ones are untouched.
            concerned = course.current if state.phase is ProfilePhase.PROGRESSING else course.begun
            last_good, observed = part(last_good, concerned), of_stacks(observed, concerned)
        if state.surge is not None:
            found = follow_bridged(_key(body), stage.name, before, state, step, last_good, observed, is_served, now)
        else:
            found = follow(_key(body), stage.name, before, state.phase, since, step, last_good, observed, now, is_last)
        if found.outage is None:
            return replace(step, downtime=found.record)
        # A pass that died after this has written down what it goes by now.
        recorded = await self._recorded(body, stage, found.outage, now)
        if state.surge is not None:
            return replace(step, downtime=corrected(found.record, found.outage, recorded, step.phase))
        return replace(step, downtime=told(before, recorded, step.phase, is_last))

    async def given_up(self, body: Object, stage: Stage, state: StageStatus, now: datetime) -> None:
        """Put on record what a stage has cost that is left to a person while its services are down."""
        if state.downtime is not None and (since := state.downtime.since) is not None:
            await self._recorded(body, stage, Outage(_key(body), stage.name, since, now), now)

    async def _recorded(self, body: Object, stage: Stage, outage: Outage, now: datetime) -> Outage:
        """Without the right to record it: a stage is not taken back for that, and no other begins there either."""
        downtimes = Downtimes(self.objects, stage.namespace)
        try:
            recorded = await downtimes.record(outage, str(body["metadata"]["uid"]))
            await downtimes.prune(now)
        except NotFoundError:  # The namespace is gone, and its ledger with it.
            return outage
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return outage
        return recorded


def as_status(stage: Stage, expected: Estimate | None) -> ExpectedDowntime | None:
    """How a profile tells what its next stage will cost."""
    if expected is None:
        return None
    return ExpectedDowntime(stage=stage.name, seconds=expected.seconds, message=expected.said[:2048])


def count(stage: Stage, old: StageStatus | None, new: StageStatus) -> None:
    """Add what has been measured since `old` to the operator's metrics."""
    before = old.downtime if old is not None else None
    after = new.downtime
    if after is None or after.measured_seconds is None:
        return
    if (more := after.measured_seconds - ((before.measured_seconds if before is not None else 0) or 0)) > 0:
        DOWNTIME.labels(stage.namespace).inc(more)
    if after.error_seconds is not None and (before is None or before.error_seconds is None):
        DOWNTIME_ERROR.observe(after.error_seconds)


def _key(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
