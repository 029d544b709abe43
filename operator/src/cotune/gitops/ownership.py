"""Whether Argo CD or Flux keeps a workload, and which of the fields that a stage touches it takes from Git.

What a tool owns is what the API server remembers of its writes, and for tools that apply at their own side also the
annotation with what they applied last. A field that somebody else has changed since is no longer the tool's for the API
server, and is in that annotation still.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast


class Tool(StrEnum):
    """What keeps a workload as Git has it; the reason of a condition."""

    ARGO_CD = "ArgoCD"
    FLUX = "Flux"


_NAMES: Mapping[Tool, str] = {Tool.ARGO_CD: "Argo CD", Tool.FLUX: "Flux"}
_MANAGERS: Mapping[str, Tool] = {
    "argocd-controller": Tool.ARGO_CD,
    "argocd-application-controller": Tool.ARGO_CD,
    "kustomize-controller": Tool.FLUX,
    "helm-controller": Tool.FLUX,
}
"""Field managers. Argo CD goes by its program's name where it creates what it applies at its own side."""

TRACKING_ID = "argocd.argoproj.io/tracking-id"
INSTANCE = "app.kubernetes.io/instance"
KUSTOMIZATION, HELM_RELEASE = "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_LEFT_ALONE = {f"{KUSTOMIZATION}/reconcile": {"disabled"}, f"{KUSTOMIZATION}/ssa": {"Ignore", "IfNotPresent"}}
"""Annotations with which Flux's kustomize-controller does not write an object that exists."""


@dataclass(frozen=True)
class Kept:
    """A workload that a tool keeps as Git has it."""

    tool: Tool
    source: str
    """What of the tool it belongs to, as far as the workload says so: `Application voice`."""
    sign: str
    """By what it was recognised."""
    fields: tuple[str, ...] = ()
    """Of those that a stage touches, the ones that the tool takes from Git, each with where that shows; none: it leaves
    them alone."""

    @property
    def by(self) -> str:
        """Who keeps it, for a person."""
        source = f"{self.source}, " if self.source else ""
        return f"{_NAMES[self.tool]} ({source}{self.sign})"


def kept(deployment: Mapping[str, Any], container: str, variables: Collection[str]) -> Kept | None:
    """Who keeps a workload as Git has it; None: nobody is known to.

    A tool that is recognised, and of whose writes nothing is known, is taken to have all of the fields in Git.

    Args:
        deployment: as the API server has it, `managedFields` included.
        container: in which a stage sets variables.
        variables: their names. `spec.replicas` is always touched: a stage stops what it changes.
    """
    found = _recognised(deployment)
    if found is None or _is_left_alone(found, deployment):
        return found
    shown = [f"{field} ({where})" for field, where in _from_git(deployment, found.tool, container, sorted(variables))]
    return Kept(found.tool, found.source, found.sign, tuple(shown))


def _recognised(deployment: Mapping[str, Any]) -> Kept | None:
    labels, annotations = _strings(deployment, "labels"), _strings(deployment, "annotations")
    managers = [(it, _MANAGERS[it]) for it in map(_manager, _entries(deployment)) if it in _MANAGERS]
    if TRACKING_ID in annotations:
        name = annotations[TRACKING_ID].partition(":")[0]
        return Kept(Tool.ARGO_CD, f"Application {name}", f"annotation {TRACKING_ID}")
    for group, kind in ((KUSTOMIZATION, "Kustomization"), (HELM_RELEASE, "HelmRelease")):
        if name := labels.get(f"{group}/name"):
            namespace = labels.get(f"{group}/namespace")
            source = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
            return Kept(Tool.FLUX, source, f"label {group}/name")
    for manager, tool in managers:
        instance = labels.get(INSTANCE) if tool is Tool.ARGO_CD else None
        source = f"Application {instance}" if instance else ""
        return Kept(tool, source, f"field manager {manager}")
    return None


def _is_left_alone(found: Kept, deployment: Mapping[str, Any]) -> bool:
    annotations = _strings(deployment, "annotations")
    is_kustomization = found.source.startswith("Kustomization")
    return is_kustomization and any(annotations.get(name) in values for name, values in _LEFT_ALONE.items())


def _from_git(
    deployment: Mapping[str, Any], tool: Tool, container: str, variables: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The touched fields that come from Git, and where that shows."""
    owned = [it for it in _entries(deployment) if _MANAGERS.get(_manager(it)) is tool and not it.get("subresource")]
    last = _last_applied(deployment)
    fields = [("spec.replicas", "")] + [(f"env {it} of container {container}", it) for it in variables]
    for said, variable in fields:
        path = _path(container, variable)
        owner = next((_manager(it) for it in owned if _has(it.get("fieldsV1"), path)), None)
        if owner is not None:
            yield said, f"managedFields of {owner}"
        elif last is not None and _applied(last, container, variable):
            yield said, "last-applied-configuration"
        elif not owned and last is None:
            yield said, "nothing tells what is in Git"


def _path(container: str, variable: str) -> Sequence[str]:
    """In `fieldsV1`; without a variable, of the replicas."""
    if not variable:
        return ("f:spec", "f:replicas")
    item = (f'k:{{"name":"{container}"}}', "f:env", f'k:{{"name":"{variable}"}}')
    return ("f:spec", "f:template", "f:spec", "f:containers", *item)


def _has(fields: Any, path: Sequence[str]) -> bool:
    for step in path:
        if not isinstance(fields, Mapping) or step not in fields:
            return False
        fields = cast("Mapping[str, Any]", fields)[step]
    return True


def _last_applied(deployment: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was applied at the client's side; None: it does not say so, or not in words that can be read."""
    try:
        found: Any = json.loads(_strings(deployment, "annotations").get(LAST_APPLIED, ""))
    except ValueError:
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else None


def _applied(last: Mapping[str, Any], container: str, variable: str) -> bool:
    spec = _mapping(last.get("spec"))
    if not variable:
        return spec.get("replicas") is not None
    pod = _mapping(_mapping(spec.get("template")).get("spec"))
    containers = [it for it in _mappings(pod.get("containers")) if it.get("name") == container]
    return any(entry.get("name") == variable for it in containers for entry in _mappings(it.get("env")))


def _entries(deployment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return _mappings(deployment["metadata"].get("managedFields"))


def _manager(entry: Mapping[str, Any]) -> str:
    return str(entry.get("manager", ""))


def _strings(deployment: Mapping[str, Any], which: str) -> Mapping[str, str]:
    return cast("Mapping[str, str]", deployment["metadata"].get(which) or {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, Any]", it) for it in items if isinstance(it, Mapping)]
