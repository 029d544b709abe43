"""`GpuTuningGrant`: the owner of a namespace says who may do what to which workloads in it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cotune.api.base import (
    SET_LIST,
    ApiModel,
    ComponentName,
    DnsLabel,
    EnvironmentName,
    LabelKey,
    LabelValue,
    Rule,
    map_list,
    rules,
    with_rules,
)
from cotune.api.downtime import DowntimeBudget
from cotune.api.quantities import DecimalString, ValueSet
from cotune.api.quiesce import QuiesceLimits


class Permission(StrEnum):
    """What the grant allows."""

    COPY_SPEC = "CopySpec"
    """To run copies of the targets in trials, without what `copyEnv` and `env` do not name."""
    ROLLOUT = "Rollout"
    QUIESCE = "Quiesce"
    """To stop the targets while trials run on their card, within the limits of `quiesce`."""
    PROBE = "Probe"
    """To load the `service` of the targets while a stage bakes, and before it begins."""
    SURGE = "Surge"
    """To run copies of the targets beside them, on another card, while a rollout changes these."""


class GrantSource(ApiModel):
    """Where the experiment or profile that makes use of the grant lives."""

    namespace: DnsLabel


class WorkloadRef(ApiModel):
    """A workload in the grant's own namespace."""

    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]


class WorkloadSelector(ApiModel):
    """Workloads in the grant's own namespace: one in each stack, where the same stack runs several times."""

    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    match_labels: Annotated[
        dict[str, LabelValue],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra=rules(
                Rule(
                    "self.all(key, size(key) <= 317 && "
                    "key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                    "a key is no key of a label",
                )
            ),
        ),
    ]
    """Labels of the Deployments, not of their pods; all of them must be there."""


class GrantService(ApiModel):
    """Where a workload answers: a Service in the grant's own namespace."""

    name: DnsLabel
    port: Annotated[int, Field(ge=1, le=65535)]
    """Of the Service."""


class GrantProbe(ApiModel):
    """How much load a probe may send into the namespace."""

    model_config = with_rules(
        Rule("double(self.maxRatePerSecond) > 0.0", "must be greater than 0", ".maxRatePerSecond"),
    )

    max_rate_per_second: DecimalString
    """Requests to all services together, as the mean over time."""


class GrantTarget(ApiModel):
    """Which variables of which container may be set, and to what."""

    model_config = with_rules(
        Rule(
            "has(self.workloadRef) != has(self.workloadSelector)",
            "give either workloadRef, one workload, or workloadSelector, one in each stack",
            ".workloadRef",
        ),
        Rule("!has(self.values) || size(self.env) == 1", "values bound one variable: name one in env", ".values"),
    )

    component: ComponentName
    """The component of the stack that this workload is."""
    workload_ref: WorkloadRef | None = None
    workload_selector: WorkloadSelector | None = None
    container: DnsLabel
    env: Annotated[tuple[EnvironmentName, ...], Field(max_length=32, json_schema_extra=dict(SET_LIST))] = ()
    """Variables that may be set; none: the workload is only stopped and started."""
    values: ValueSet | None = None
    """Values that may be set; left out: any."""
    ignored_by_git_ops: bool = False
    """The owner's word that a tool which keeps the workload as Git has it ignores `spec.replicas` and what `env` names,
    as with Argo CD's `ignoreDifferences`: the workload does not show it."""
    copy_env: Annotated[tuple[EnvironmentName, ...], Field(max_length=64, json_schema_extra=dict(SET_LIST))] = ()
    """Variables whose literal values a copy keeps, beside those of `env`; all others are lost."""
    memory_mib: Annotated[int | None, Field(ge=0, le=10_000_000, alias="memoryMiB")] = None
    """What the workload holds on the card, its CUDA context included, for the planner of whoever copies it. Left out:
    it is learned from the first trial."""
    service: GrantService | None = None
    """What a probe of a stage may send requests to; left out: it sends none to this workload."""

    @property
    def workload(self) -> WorkloadRef:
        """The one workload that it names.

        Raises:
            LookupError: it selects workloads, and nobody has looked which.
        """
        if self.workload_ref is None:
            raise LookupError(f"the target of {self.component} has a workloadSelector")
        return self.workload_ref


class GrantSpec(ApiModel):
    """Who may do what to what."""

    model_config = with_rules(
        Rule(
            "self.targets.all(t, has(t.workloadSelector)) || self.targets.all(t, has(t.workloadRef))",
            "either every target has a workloadSelector or none: what several stacks share cannot be stopped for one",
            ".targets",
        ),
        Rule(
            "has(self.stackLabel) == self.targets.exists(t, has(t.workloadSelector))",
            "stackLabel tells the stacks apart that a workloadSelector matches: give both or neither",
            ".stackLabel",
        ),
        Rule(
            "!('CopySpec' in self.allow || 'Quiesce' in self.allow) || self.targets.all(t, has(t.workloadRef))",
            "CopySpec and Quiesce are for one stack: name its workloads by workloadRef, in a grant of its own",
            ".allow",
        ),
        Rule(
            "has(self.quiesce) == ('Quiesce' in self.allow)",
            "quiesce says how long Quiesce may keep the targets down: give both or neither",
            ".quiesce",
        ),
        Rule(
            "('Probe' in self.allow) == has(self.probe)",
            "Probe in allow and the field probe belong together: say how much load may come",
            ".probe",
        ),
        Rule("!('Surge' in self.allow) || 'Rollout' in self.allow", "Surge is a part of Rollout: allow both", ".allow"),
    )

    from_: Annotated[
        tuple[GrantSource, ...],
        Field(alias="from", min_length=1, max_length=32, json_schema_extra=map_list("namespace")),
    ]
    allow: Annotated[
        tuple[Permission, ...], Field(min_length=1, max_length=len(Permission), json_schema_extra=dict(SET_LIST))
    ]
    targets: Annotated[
        tuple[GrantTarget, ...], Field(min_length=1, max_length=32, json_schema_extra=map_list("component"))
    ]
    stack_label: LabelKey | None = None
    """The label of the selected Deployments whose value is the name of their stack: each has one of each component."""
    downtime_budget: DowntimeBudget | None = None
    """How long rollouts and trials may keep the services of this namespace down, whatever budget stages have
    themselves."""
    quiesce: QuiesceLimits | None = None
    """What `Quiesce` in `allow` is limited to."""
    probe: GrantProbe | None = None
    """With `Probe` in `allow`, and only with it."""
