"""What all models of the resources share: camelCase on the wire, frozen in memory, bounded everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of a resource; unknown fields are refused, as `kubectl apply` refuses them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,  # They are what `kubectl explain` prints.
    )


@dataclass(frozen=True)
class Rule:
    """A CEL rule of a CRD: what must hold, and what the user reads when it does not.

    `path` (such as `.baseline`) puts the refusal at a field below the object that carries the rule.
    """

    holds: str
    otherwise: str
    path: str | None = None

    def as_schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.holds, "message": self.otherwise}
        return entry if self.path is None else entry | {"fieldPath": self.path}


def rules(*several: Rule) -> dict[str, Any]:
    """The schema keyword that carries CEL rules."""
    return {"x-kubernetes-validations": [rule.as_schema() for rule in several]}


def with_rules(*several: Rule) -> ConfigDict:
    """The model configuration that carries CEL rules for the whole object."""
    return ConfigDict(json_schema_extra=rules(*several))


def map_list(key: str, *more: str) -> dict[str, Any]:
    """The schema keywords of a list that merges by key and in which a key stands once."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key, *more]}


SET_LIST: Mapping[str, Any] = {"x-kubernetes-list-type": "set"}

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A name that may be part of an object's name."""

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
"""The name of an object of which Kubernetes wants a DNS subdomain."""

ComponentName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=30,
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra=rules(
            Rule(
                "!(self in ['gpu', 'stability', 'probe'])",
                "gpu, stability and probe are reserved: metrics of the card and of the stack, and cotune's own pod",
            )
        ),
    ),
]
"""A component's name; it opens the names of the component's metrics."""

WorkloadKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=94,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?/)?[a-z]([-a-z0-9]*[a-z0-9])?$",
    ),
]
"""A component of the only stack of a namespace, or `STACK/COMPONENT` where it has several."""

LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    ),
]
"""The key of a label, such as `example.com/stack`."""

LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]

EnvironmentName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""

MetricName = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?(\.[A-Za-z][A-Za-z0-9]*)*$")
]
"""A metric, such as `stt.latency.p95`, `gpu.freeMiB` or `stability`."""
