"""From an experiment and a candidate to the pods and services of a trial. Same input, same output, to the byte."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.experiment import Component, Parameter
from cotune.search.space import Candidate
from cotune.trials.placement import DEDICATED_TAINT, DEDICATED_VALUE

Manifest = dict[str, Any]
"""A Kubernetes object as JSON has it."""

LABEL_TRIAL = "cotune.dev/trial"
LABEL_COMPONENT = "cotune.dev/component"
ANNOTATION_DIGEST = "cotune.dev/spec-digest"

_SETTINGS_OF_COTUNE = {
    "nodeName": "cotune chooses the node",
    "restartPolicy": "a component that ends has failed its trial",
    "serviceAccount": "trial pods have no service account",
    "serviceAccountName": "trial pods have no service account",
    "automountServiceAccountToken": "trial pods have no service-account token",
    "priorityClassName": "a trial must not push other pods off a node",
    "hostNetwork": "trial pods keep to their own namespaces",
    "hostPID": "trial pods keep to their own namespaces",
    "hostIPC": "trial pods keep to their own namespaces",
}


_DEDICATED: Manifest = {
    "key": DEDICATED_TAINT,
    "operator": "Equal",
    "value": DEDICATED_VALUE,
    "effect": "NoSchedule",
}


class TemplateError(ValueError):
    """A pod template that cannot be run as a part of a trial; the message names the field."""


@dataclass(frozen=True)
class TrialIdentity:
    """The trial that owns what is rendered."""

    namespace: str
    name: str
    uid: str
    experiment: str

    def owner_reference(self) -> Manifest:
        """Makes the garbage collector remove the pods with the trial."""
        return {
            "apiVersion": "cotune.dev/v1alpha1",
            "kind": "GpuTrial",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def environment(component: str, parameters: Sequence[Parameter], candidate: Candidate) -> Mapping[str, str]:
    """The variables that a candidate sets in one component, with the values as the user spelt them."""
    values = candidate.values
    bound = ((it.name, it.bind.variable) for it in parameters)
    return {at[1]: values[name] for name, at in bound if at is not None and at[0] == component}


def component_pod(trial: TrialIdentity, component: Component, variables: Mapping[str, str], node: str) -> Manifest:
    """The pod of one component on the trial's node.

    The node is asked for by affinity, not by `nodeName`: the scheduler still counts the card's replicas.

    Raises:
        TemplateError: the template has no containers, or sets what cotune sets.
    """
    template = copy.deepcopy(component.template)
    spec = _mapping(template, "spec", component.name)
    for name, why in _SETTINGS_OF_COTUNE.items():
        if name in spec:
            raise TemplateError(f"{component.name}: template.spec.{name} must not be set: {why}")
    if not spec.get("containers"):
        raise TemplateError(f"{component.name}: template.spec.containers must name at least one container")
    for kind in ("initContainers", "containers"):
        for container in cast("list[Manifest]", spec.get(kind, [])):
            container["env"] = _with_variables(cast("list[Manifest]", container.get("env", [])), variables)
    metadata = cast("Manifest", template.get("metadata", {}))
    return with_digest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": child_metadata(trial, component.name)
            | {"annotations": dict(cast("Mapping[str, str]", metadata.get("annotations", {})))},
            "spec": on_node(spec, node),
        }
    )


def on_node(spec: Manifest, node: str) -> Manifest:
    """The pod's specification as a part of a trial on this node: run once, without rights, and tolerated there."""
    return spec | {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "affinity": _with_node(cast("Manifest", spec.get("affinity", {})), node),
        "tolerations": [*cast("list[Manifest]", spec.get("tolerations", [])), _DEDICATED],
    }


def with_digest(pod: Manifest) -> Manifest:
    """The pod with its own digest as an annotation."""
    annotations = cast("Manifest", pod["metadata"]["annotations"]) | {ANNOTATION_DIGEST: manifest_digest(pod)}
    return pod | {"metadata": pod["metadata"] | {"annotations": annotations}}


def component_service(trial: TrialIdentity, component: Component) -> Manifest:
    """The address of one component: it answers once the pod is ready, and only then."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(trial, component.name),
        "spec": {
            "selector": _labels(trial, component.name),
            "ports": [{"name": "main", "port": component.port, "targetPort": component.port}],
        },
    }


def manifest_digest(manifest: Manifest) -> str:
    """The SHA-256 of a manifest, by which a restarted operator knows its own."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _labels(trial: TrialIdentity, component: str) -> Manifest:
    return {LABEL_TRIAL: trial.name, LABEL_COMPONENT: component}


def child_metadata(trial: TrialIdentity, component: str) -> Manifest:
    """Name, namespace, labels and owner of what a trial has for one component; the name is its host name too."""
    digest = hashlib.sha256(f"{trial.name}/{component}".encode()).hexdigest()[:8]
    return {
        # A service's name may have 63 characters, and a long trial's name is cut: the digest keeps names apart.
        "name": f"{trial.name[: 63 - len(component) - 10]}-{component}-{digest}",
        "namespace": trial.namespace,
        "labels": _labels(trial, component),
        "ownerReferences": [trial.owner_reference()],
    }


def _mapping(parent: Manifest, key: str, component: str) -> Manifest:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise TemplateError(f"{component}: template.{key} must be an object")
    return cast("Manifest", value)


def _with_variables(env: Sequence[Manifest], variables: Mapping[str, str]) -> list[Manifest]:
    """Variables come first: `$(NAME)` in a later variable only sees the ones before it."""
    rest = [it for it in env if it.get("name") not in variables]
    return [*({"name": name, "value": value} for name, value in variables.items()), *rest]


def _with_node(affinity: Manifest, node: str) -> Manifest:
    """The node added to every required term: terms are alternatives, so each of them must ask for it."""
    chosen = {"key": "metadata.name", "operator": "In", "values": [node]}
    result = copy.deepcopy(affinity)
    required = result.setdefault("nodeAffinity", {}).setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = cast("list[Manifest]", required.get("nodeSelectorTerms") or [{}])
    for term in terms:
        term["matchFields"] = [*term.get("matchFields", []), chosen]
    required["nodeSelectorTerms"] = terms
    return result
