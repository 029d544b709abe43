"""`GpuProfile`: immutable values to put into the workloads of a stack, and the stages through which they travel."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ComponentName, DnsLabel, EnvironmentName, Rule, WorkloadKey, map_list, with_rules
from cotune.api.batches import (
    BATCHES_DO_NOT_SURGE,
    BATCHES_GROW,
    GIT_HAS_NO_BATCHES,
    MOST_BATCHES,
    MOST_WORKLOADS,
    THE_WHOLE_IS_LAST,
    Batch,
    BatchesBy,
    StageBatch,
)
from cotune.api.card_memory import StageMemory
from cotune.api.conditions import Condition
from cotune.api.downtime import DowntimeBudget, ExpectedDowntime, StageDowntime
from cotune.api.gate import LEAST_SAMPLES, BeginWindow, Gate, GateStatus
from cotune.api.quantities import Value
from cotune.api.sharing import Sharing
from cotune.api.stage_probe import PROBED_STAGE_RULES, StageProbe, StageProbeStatus
from cotune.api.surge import StageSurge, Surge

RevisionName = Annotated[str, Field(max_length=17, pattern=r"^cotune-[0-9a-f]{10}$")]


class Approval(StrEnum):
    """Who lets a stage begin."""

    AUTO = "Auto"
    MANUAL = "Manual"


class Stage(ApiModel):
    """One step of a rollout."""

    model_config = with_rules(
        Rule(
            "self.gates.all(g, !has(g.promQL) || g.initialDelaySeconds + "
            f"({LEAST_SAMPLES.format('g')} - 1) * g.promQL.stepSeconds <= self.bakeSeconds)",
            "a gate's minimumSamples, stepSeconds apart, do not fit into bakeSeconds",
            ".bakeSeconds",
        ),
        Rule(
            "self.unschedulableGraceSeconds <= 15 || self.unschedulableGraceSeconds <= self.readinessDeadlineSeconds",
            "the stage is taken back after readinessDeadlineSeconds, before this time is over",
            ".unschedulableGraceSeconds",
        ),
        BATCHES_GROW,
        BATCHES_DO_NOT_SURGE,
        THE_WHOLE_IS_LAST,
        *PROBED_STAGE_RULES,
    )

    name: DnsLabel
    namespace: DnsLabel
    """Where the workloads are; a GpuTuningGrant there must allow the rollout."""
    approval: Approval = Approval.AUTO
    readiness_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How long all pods may take to be ready before the stage is rolled back."""
    bake_seconds: Annotated[int, Field(ge=0, le=604_800)] = 0
    """How long the stage must stay ready before the next one begins."""
    guard_seconds: Annotated[int, Field(ge=0, le=604_800)] = 600
    """How long after its promotion the stage is still taken back by itself; 0: it is not.

    A guard holds nothing up. It ends early when anybody changes the workloads, another profile among them.
    """
    unready_tolerance_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """How long at a stretch a workload may be not ready while the stage bakes or is guarded before it is rolled back.

    A pod that ends with an error for which there is no waiting has no such time. While the stage bakes, one that
    somebody else has scaled up has the readiness deadline.
    """
    unschedulable_grace_seconds: Annotated[int, Field(ge=15, le=86_400)] = 15
    """How long a pod may find no node before the stage is rolled back, counted from when no pod of it is leaving.

    In a cluster whose autoscaler adds nodes, as long as a node with a card takes to come. The scheduler itself tries
    again within 10 s. While the stage bakes or is guarded, the workload has no more than `unreadyToleranceSeconds`.
    """
    gates: Annotated[tuple[Gate, ...], Field(max_length=16, json_schema_extra=map_list("name"))] = ()
    """What the stage must show while it bakes, beyond being ready."""
    batches: Annotated[
        tuple[Batch, ...],
        Field(min_length=1, max_length=MOST_BATCHES, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ("100%",)
    """How many of the stacks that its grant selects have the values after each batch, those of earlier ones included.

    A number or a percentage, rounded up. The last batch takes what is left. Each becomes ready and bakes, with its
    gates, before the next begins; what fails takes all of them back.
    """
    batches_by: BatchesBy = BatchesBy.STACK
    """What `batches` counts, and what is never split."""
    probe: StageProbe | None = None
    """The load whose figures its gates name; the grant there must allow it."""
    window: BeginWindow | None = None
    """When the stage may begin; left out: at any time."""
    to_revision: RevisionName | None = None
    """The ControllerRevision of the namespace to which the stage is taken, and with which it ends.

    One that has stood ready there before. As long as this is said, the stage does not start anew.
    """
    downtime_budget: DowntimeBudget | None = None
    """How long its services may be down; left out: as long as it takes."""
    surge: Surge | None = None
    """Whether a copy of the stack serves from another card meanwhile. Left out: `IfRoom` where the grant allows
    `Surge`, else `Never`. Once the copy serves, or could not be had, an edit changes nothing any more."""


class Change(ApiModel):
    """One setting that the profile puts in place."""

    model_config = with_rules(Rule("!has(self.from) || self.from != self.to", "from and to are the same value", ".to"))

    component: ComponentName
    env: EnvironmentName
    from_: Annotated[Value | None, Field(alias="from")] = None
    """The value against which the change was measured."""
    to: Value


class Provenance(ApiModel):
    """Where a profile comes from."""

    experiment: Annotated[str, Field(min_length=3, max_length=127, pattern=r"^[-a-z0-9]+/[-.a-z0-9]+$")]
    """Namespace and name of the experiment."""
    trial: DnsLabel
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
    """What was run: the experiment's spec."""
    artifact: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)] | None = None
    """The record of the trial in the artifact store, which has the same digest of the spec in its lineage."""


class ExpectedStartup(ApiModel):
    """How long one component took to start."""

    component: ComponentName
    seconds: Annotated[int, Field(ge=1, le=86_400)]
    """From the start of its container to readiness, rounded up."""


class Expect(ApiModel):
    """Under what a profile was measured; elsewhere its figures do not hold, and a stage that differs does not begin."""

    sharing: Sharing | None = None
    """How the card was shared. Left out: it does not matter. No node is ever reconfigured for it."""
    startup_seconds: Annotated[
        tuple[ExpectedStartup, ...], Field(max_length=16, json_schema_extra=map_list("component"))
    ] = ()
    """How long the starts took. A stage whose probes would end a container sooner does not begin."""


class Strategy(StrEnum):
    """Who puts the values into the workloads."""

    DIRECT = "Direct"
    """cotune, in the cluster: it stops the stack, sets them and starts it again, and takes them back by itself."""
    GIT = "Git"
    """Whoever commits them. cotune waits until the workloads show them, judges the stage as any other, and says what
    to revert; it writes to no workload."""


class Rollout(ApiModel):
    """How the profile travels; this part may be edited."""

    model_config = with_rules(
        Rule("self.retries >= oldSelf.retries", "retries may only grow: those that were made stay made", ".retries"),
        Rule(
            "!self.abort || self.retries == oldSelf.retries",
            "abort takes a stage back and retries start one anew: not both at once",
            ".abort",
        ),
        GIT_HAS_NO_BATCHES,
        Rule(
            "self.strategy != 'Git' || self.stages.all(s, s.gates.all(g, !has(g.probe) || !has(g.againstBaseline)))",
            "under strategy Git nobody knows when the change comes, and no probe can run before it: hold the figure "
            "against max or min",
            ".stages",
        ),
        Rule(
            "self.strategy != 'Git' || self.stages.all(s, !has(s.surge) || s.surge == 'Never')",
            "with strategy Git it is not cotune that stops the stack: a stage cannot surge",
            ".stages",
        ),
    )

    strategy: Strategy = Strategy.DIRECT
    """A workload that Argo CD or Flux keeps is refused to `Direct`, unless Git lacks the fields that a stage sets."""
    paused: bool = False
    """No further stage and no further batch begins. What has begun goes on to its end."""
    abort: bool = False
    """The stage in progress is taken back, and no further one begins."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many times in all a stage that was taken back starts anew."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]


class ProfileSpec(ApiModel):
    """What is put where."""

    model_config = with_rules(
        Rule("self.changes == oldSelf.changes", "changes are immutable: apply them under a new name", ".changes"),
        Rule("self.startOrder == oldSelf.startOrder", "startOrder is immutable", ".startOrder"),
        Rule(
            "self.startOrder.all(i, a, self.startOrder.all(j, b, i >= j || a != b))",
            "a component stands twice in startOrder",
            ".startOrder",
        ),
        Rule(
            "has(self.provenance) == has(oldSelf.provenance) && "
            "(!has(self.provenance) || self.provenance == oldSelf.provenance)",
            "provenance is immutable",
        ),
        Rule(
            "has(self.expect) == has(oldSelf.expect) && (!has(self.expect) || self.expect == oldSelf.expect)",
            "expect is immutable",
        ),
        Rule(
            "self.changes.all(c, c.component in self.startOrder)",
            "every changed component must stand in startOrder",
            ".changes",
        ),
        Rule(
            "!has(self.expect) || !has(self.expect.startupSeconds) || "
            "self.expect.startupSeconds.all(it, it.component in self.startOrder)",
            "every component whose start is expected must stand in startOrder",
            ".expect.startupSeconds",
        ),
        Rule(
            "self.rollout.stages.all(it, !has(it.probe) || it.probe.streams.all(s, s.component in self.startOrder))",
            "every component that a probe loads must stand in startOrder",
            ".rollout.stages",
        ),
        Rule(
            "self.rollout.stages.all(i, a, "
            "self.rollout.stages.all(j, b, i >= j || a.__namespace__ != b.__namespace__))",
            "two stages name the same namespace",
            ".rollout.stages",
        ),
    )

    changes: Annotated[
        tuple[Change, ...], Field(min_length=1, max_length=64, json_schema_extra=map_list("component", "env"))
    ]
    start_order: Annotated[
        tuple[ComponentName, ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """The stack's components in the order in which they start; they stop in the reverse order.

    A list, not a set: CEL compares sets without their order, and an order that may change is not immutable.
    """
    expect: Expect | None = None
    provenance: Provenance | None = None
    rollout: Rollout


BEGUN_STAGES_STAY = Rule(
    # By name: one that starts anew is missing from the status, where others that follow it stand.
    "!has(oldSelf.status) || !has(oldSelf.status.stages) || oldSelf.spec.rollout.stages.all(i, o, "
    "!oldSelf.status.stages.exists(s, s.name == o.name) || "
    "i < size(self.spec.rollout.stages) && self.spec.rollout.stages[i].name == o.name && "
    "self.spec.rollout.stages[i].__namespace__ == o.__namespace__)",
    "a stage that has begun keeps its name, its namespace and its place: delete the profile to take it back",
    ".spec.rollout.stages",
)


STRATEGY_STAYS = Rule(
    "!has(oldSelf.status) || !has(oldSelf.status.stages) || "
    "self.spec.rollout.strategy == oldSelf.spec.rollout.strategy || "
    "oldSelf.status.stages.all(s, s.phase in ['Pending', 'RolledBack'])",
    "a stage that has begun keeps its strategy",
    ".spec.rollout.strategy",
)


REVISIONS_OF_BEGUN_STAGES = Rule(
    "self.spec.rollout.stages.all(s, !has(s.toRevision) || "
    "has(self.status) && has(self.status.stages) && "
    "self.status.stages.exists(it, it.name == s.name && it.phase != 'Pending'))",
    "toRevision is for a stage that has begun: before, nothing of this profile is there to be taken back",
    ".spec.rollout.stages",
)


class ProfilePhase(StrEnum):
    """The summary of a profile's conditions."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    AWAITING_APPROVAL = "AwaitingApproval"
    BAKING = "Baking"
    PROMOTED = "Promoted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    DEGRADED = "Degraded"


class Mend(StrEnum):
    """What may mend a pod that shows a sign of failure."""

    RESTART = "Restart"
    """The next run of the container."""
    PULL = "Pull"
    """The next attempt to pull the image."""
    ROOM = "Room"
    """Room on a node, which others may be just about to make."""


class Chance(ApiModel):
    """A sign of failure that may have been an accident. Once it is on record, the next of its kind is decisive."""

    component: WorkloadKey
    mend: Mend
    """What is waited for."""
    reason: Annotated[str, Field(max_length=200)]
    """What was seen."""
    since: datetime
    """When it was given."""


class GuardedWorkload(ApiModel):
    """One workload as it was when its stage was promoted."""

    component: WorkloadKey
    generation: Annotated[int, Field(ge=0)]
    """Of its Deployment; with another one, somebody else has changed it."""


class AskedOutcome(StrEnum):
    """What has become of a stage's `toRevision`."""

    REFUSED = "Refused"
    """Nothing was touched; it is looked at again."""
    WAITING = "Waiting"
    """Something else has to end first."""
    ALREADY_THERE = "AlreadyThere"
    """Nothing was touched: the namespace has that revision."""
    TAKEN = "Taken"
    """The stage's phase says whether it goes there, or has gone."""


class AskedRevision(ApiModel):
    """The answer to a stage's `toRevision`."""

    revision: RevisionName
    outcome: AskedOutcome
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=2048)]
    at: datetime


class StageStatus(ApiModel):
    """How far one stage is."""

    name: DnsLabel
    phase: ProfilePhase
    started_at: datetime | None = None
    phase_started_at: datetime | None = None
    """Since when the stage is in its phase: what deadline and bake time count from."""
    unready_since: datetime | None = None
    """Since when a workload is not ready while the stage bakes or is guarded."""
    finished_at: datetime | None = None
    revision: Annotated[str, Field(max_length=253)] | None = None
    """The ControllerRevision of the stage's namespace that holds what the profile applies."""
    last_good_revision: Annotated[str, Field(max_length=253)] | None = None
    """The ControllerRevision to which a rollback returns."""
    gates: Annotated[tuple[GateStatus, ...], Field(max_length=16, json_schema_extra=map_list("name"))] = ()
    chances: Annotated[
        tuple[Chance, ...], Field(max_length=3 * MOST_WORKLOADS, json_schema_extra=map_list("component", "mend"))
    ] = ()
    """Signs of failure that the stage has waited for, or waits for now: of each kind one for each component."""
    guarded: Annotated[
        tuple[GuardedWorkload, ...], Field(max_length=MOST_WORKLOADS, json_schema_extra=map_list("component"))
    ] = ()
    """The workloads of a promoted stage as long as it is guarded; empty: it is not, or no longer."""
    asked: AskedRevision | None = None
    """What has become of `toRevision`."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """The batch that is under way, from 1 on: the last one that has begun or, on the way back, the one that goes back.

    Left out: the namespace has one stack, which its grant names.
    """
    batches: Annotated[
        tuple[StageBatch, ...],
        Field(max_length=MOST_BATCHES + 1, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Which stacks go together, in which order: as it was when the stage began. What has appeared since is left alone.
    """
    downtime: StageDowntime | None = None
    """What it costs; left out: it began before this was measured."""
    probe: StageProbeStatus | None = None
    """What its probe has measured, and its pod."""
    surge: StageSurge | None = None
    """What has become of its bridge on another card; left out: it has none."""
    memory: StageMemory | None = None
    """Which of its pods may hold memory on a card; left out: it is not in work, or there are no node agents."""
    message: Annotated[str, Field(max_length=4096)] = ""


class ProfileStatus(ApiModel):
    """Where the profile is."""

    phase: ProfilePhase = ProfilePhase.PENDING
    observed_generation: Annotated[int, Field(ge=0)] = 0
    stage: Annotated[str, Field(max_length=63)] | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    """How many times a stage has started anew."""
    expected_downtime: ExpectedDowntime | None = None
    """What the next stage will cost; left out: none waits, or nobody has invited it yet."""
    stages: Annotated[tuple[StageStatus, ...], Field(max_length=16, json_schema_extra=map_list("name"))] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=map_list("type"))] = ()
