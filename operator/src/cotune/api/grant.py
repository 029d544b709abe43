"""`GpuTuningGrant`: the owner of a namespace says who may do what to which workloads in it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cotune.api.base import SET_LIST, ApiModel, ComponentName, DnsLabel, EnvironmentName, Rule, map_list, with_rules
from cotune.api.downtime import DowntimeBudget
from cotune.api.quantities import ValueSet


class Permission(StrEnum):
    """What the grant allows."""

    COPY_SPEC = "CopySpec"
    """To run copies of the targets in trials, without what `copyEnv` and `env` do not name."""
    ROLLOUT = "Rollout"
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


class GrantTarget(ApiModel):
    """Which variables of which container may be set, and to what."""

    model_config = with_rules(
        Rule("!has(self.values) || size(self.env) == 1", "values bound one variable: name one in env", ".values"),
    )

    component: ComponentName
    """The component of the stack that this workload is."""
    workload_ref: WorkloadRef
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


class GrantSpec(ApiModel):
    """Who may do what to what."""

    model_config = with_rules(
        Rule("!('Surge' in self.allow) || 'Rollout' in self.allow", "Surge is a part of Rollout: allow both", ".allow"),
    )

    from_: Annotated[
        tuple[GrantSource, ...],
        Field(alias="from", min_length=1, max_length=32, json_schema_extra=map_list("namespace")),
    ]
    allow: Annotated[tuple[Permission, ...], Field(min_length=1, max_length=3, json_schema_extra=dict(SET_LIST))]
    targets: Annotated[
        tuple[GrantTarget, ...], Field(min_length=1, max_length=32, json_schema_extra=map_list("component"))
    ]
    downtime_budget: DowntimeBudget | None = None
    """How long rollouts may keep the services of this namespace down, whatever budget their stages have themselves."""
