"""Writes `crds/` from the models: `python -m cotune.api.crds [--check] FOLDER`."""

import sys
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel

from cotune.api.base import Rule
from cotune.api.experiment import IMMUTABLE_AFTER_FIRST_TRIAL, NAMED_AS_A_LABEL, ExperimentSpec, ExperimentStatus
from cotune.api.generated import write_or_check
from cotune.api.grant import GrantSpec
from cotune.api.profile import (
    BEGUN_STAGES_STAY,
    REVISIONS_OF_BEGUN_STAGES,
    STRATEGY_STAYS,
    ProfileSpec,
    ProfileStatus,
)
from cotune.api.structural import structural_schema
from cotune.api.trial import TrialSpec, TrialStatus

GROUP = "cotune.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Resource:
    """One kind of the API."""

    kind: str
    plural: str
    short_name: str
    spec: type[BaseModel]
    status: type[BaseModel] | None
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = field(default=())

    def crd(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        properties: dict[str, Any] = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # A rule's path may only name a field that the schema describes; of metadata, it may describe the name.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": structural_schema(self.spec),
        }
        if self.status is not None:
            properties["status"] = structural_schema(self.status)
        schema: dict[str, Any] = {
            "type": "object",
            "description": (self.spec.__doc__ or "").strip(),
            "required": ["spec"],
            "properties": properties,
        }
        if self.rules:
            schema["x-kubernetes-validations"] = [rule.as_schema() for rule in self.rules]
        columns = [
            {"name": it.name, "type": it.type, "jsonPath": it.json_path}
            | ({"priority": it.priority} if it.priority else {})
            for it in (*self.columns, Column("Age", ".metadata.creationTimestamp", "date"))
        ]
        version: dict[str, Any] = {
            "name": VERSION,
            "served": True,
            "storage": True,
            "additionalPrinterColumns": columns,
            "schema": {"openAPIV3Schema": schema},
        }
        if self.status is not None:
            version["subresources"] = {"status": {}}
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.kind.lower(),
                    "shortNames": [self.short_name],
                    "categories": ["cotune"],
                },
                "versions": [version],
            },
        }


RESOURCES = (
    Resource(
        "GpuAllocationExperiment",
        "gpuallocationexperiments",
        "gae",
        ExperimentSpec,
        ExperimentStatus,
        (
            Column("Phase", ".status.phase"),
            Column("Trials", ".status.trials.total", "integer"),
            Column("Finished", ".status.trials.finished", "integer"),
            Column("Failed", ".status.trials.failed", "integer", priority=1),
            Column("Skipped", ".status.trials.skipped", "integer", priority=1),
            Column("Winner", ".status.winner.trial"),
            Column("Fitness", ".status.winner.fitness"),
            Column("Profile", ".status.profile"),
            Column("Reason", '.status.conditions[?(@.type=="Progressing")].reason'),
            Column("Production", ".status.quiesce.phase", priority=1),
            Column("Back by", ".status.quiesce.until", priority=1),
        ),
        (NAMED_AS_A_LABEL, IMMUTABLE_AFTER_FIRST_TRIAL),
    ),
    Resource(
        "GpuTrial",
        "gputrials",
        "gt",
        TrialSpec,
        TrialStatus,
        (
            Column("Experiment", ".spec.experiment"),
            Column("Phase", ".status.phase"),
            Column("Reason", ".status.reason"),
            Column("Fitness", ".status.fitness"),
            Column("Doubtful", ".spec.prediction.doubtful", "boolean", priority=1),
            Column("Planner", ".status.predictionErrors[0].message", priority=1),
            Column("Node", ".status.node", priority=1),
        ),
    ),
    Resource(
        "GpuProfile",
        "gpuprofiles",
        "gpp",
        ProfileSpec,
        ProfileStatus,
        (
            Column("Phase", ".status.phase"),
            Column("Stage", ".status.stage"),
            Column("Reason", '.status.conditions[?(@.type=="Progressing")].reason'),
            Column("Experiment", ".spec.provenance.experiment", priority=1),
        ),
        (BEGUN_STAGES_STAY, STRATEGY_STAYS, REVISIONS_OF_BEGUN_STAGES),
    ),
    Resource(
        "GpuTuningGrant",
        "gputuninggrants",
        "gtg",
        GrantSpec,
        None,
        (Column("From", ".spec.from[*].namespace"), Column("Allow", ".spec.allow")),
    ),
)


class _WithoutAliases(yaml.SafeDumper):
    """Writes shared values out: an anchor in a CRD only puzzles its reader."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def rendered() -> dict[str, str]:
    """File name and text of every CRD."""
    head = "# Generated from the models in cotune.api by `make crds`; edit those.\n"
    return {
        f"{GROUP}_{it.plural}.yaml": head + yaml.dump(it.crd(), Dumper=_WithoutAliases, sort_keys=False, width=120)
        for it in RESOURCES
    }


if __name__ == "__main__":
    sys.exit(write_or_check(rendered(), "*.yaml", "crds"))
