"""A copy of what really runs in a namespace, made fit to run as a part of a trial.

A workload's pod template carries rights, places and names of its own namespace. A copy keeps what decides how the
service computes, and of all else nothing: fields that are not known here are lost, so that a field which Kubernetes
will have one day gets nobody into a trial.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec, Memory, MemoryModel
from cotune.api.grant import GrantSpec, GrantTarget, Permission
from cotune.api.quantities import canonical
from cotune.api.workload import Protocol
from cotune.trials.placement import card_shares
from cotune.trials.render import Manifest

MOST_SERVICES = 16
"""Of a stack, the experiment's own among them."""

_POD = frozenset(
    {
        "containers",
        "hostUsers",
        "imagePullSecrets",
        "initContainers",
        "os",
        "resources",
        "runtimeClassName",
        "securityContext",
        "shareProcessNamespace",
        "terminationGracePeriodSeconds",
        "volumes",
    }
)
_POD_ANEW = frozenset({"dnsPolicy", "restartPolicy", "schedulerName", "serviceAccount"})
"""The API server writes them into every template, and a trial sets them anew: their loss is nothing to tell."""
_CONTAINER = frozenset(
    {
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resources",
        "restartPolicy",
        "securityContext",
        "startupProbe",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "volumeMounts",
        "workingDir",
    }
)
_VOLUMES = frozenset({"configMap", "downwardAPI", "emptyDir", "image", "secret"})
"""They hold no claim, and nothing of the node. ConfigMaps and Secrets are those of the trial's namespace."""
_PROJECTED = frozenset({"configMap", "downwardAPI", "secret"})


@dataclass(frozen=True)
class Sanitized:
    """A pod template that may run in a trial, and what it has lost for that."""

    template: Manifest
    lost: tuple[str, ...]
    """Paths below the template, such as `spec.serviceAccountName`."""


@dataclass(frozen=True)
class CopiedService:
    """One workload."""

    component: str
    workload: str
    template: Manifest
    lost: tuple[str, ...] = ()
    memory_mib: int | None = None
    """What it holds on the card, as its owner says."""


@dataclass(frozen=True)
class CopiedStack:
    """The workloads of a namespace that a grant lets be copied, in the order of its targets."""

    namespace: str
    services: tuple[CopiedService, ...]

    def beside(self, components: Collection[str]) -> tuple[str, ...]:
        """What runs there and is none of these components."""
        return tuple(it.component for it in self.services if it.component not in components)

    def data(self) -> Manifest:
        """As a ControllerRevision has it."""
        return {
            "namespace": self.namespace,
            "services": [
                {
                    "component": it.component,
                    "workload": it.workload,
                    "template": it.template,
                    "lost": list(it.lost),
                    **({"memoryMiB": it.memory_mib} if it.memory_mib is not None else {}),
                }
                for it in self.services
            ],
        }

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "CopiedStack":
        """The inverse of `data`."""
        return cls(
            data["namespace"],
            tuple(
                CopiedService(it["component"], it["workload"], it["template"], tuple(it["lost"]), it.get("memoryMiB"))
                for it in data["services"]
            ),
        )

    def name(self, experiment: str) -> str:
        """The copy's name among those of one experiment: equal copies have the same."""
        text = json.dumps(self.data(), sort_keys=True, separators=(",", ":"))
        return f"{experiment}-stack-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class CopyRefusal:
    """Why a namespace's stack cannot be copied, as a condition says it."""

    reason: str
    message: str


def granted(
    grants: Sequence[GrantSpec], source: str, namespace: str, components: Sequence[str]
) -> tuple[GrantTarget, ...] | CopyRefusal:
    """What experiments of namespace `source` may copy, each workload once, in the order of the grants.

    Args:
        grants: of the namespace that is to be copied.
        source: the experiment's namespace.
        namespace: the one that is to be copied.
        components: the experiment's own, all of which must be there.
    """
    inviting = [
        it
        for it in grants
        if Permission.COPY_SPEC in it.allow and any(origin.namespace == source for origin in it.from_)
    ]
    if not inviting:
        return CopyRefusal("NoGrant", f"no GpuTuningGrant in namespace {namespace} allows CopySpec from {source}")
    found: dict[str, GrantTarget] = {}
    for it in (target for grant in inviting for target in grant.targets):
        known = found.setdefault(it.component, it)
        if (known.workload, known.container) != (it.workload, it.container):
            why = f"grants in namespace {namespace} name several workloads for {it.component}"
            return CopyRefusal("AmbiguousGrant", why)
        found[it.component] = known.model_copy(
            update={
                "copy_env": tuple(dict.fromkeys((*known.copy_env, *known.env, *it.copy_env, *it.env))),
                "memory_mib": known.memory_mib if known.memory_mib is not None else it.memory_mib,
            }
        )
    if missing := [it for it in components if it not in found]:
        why = f"no grant in namespace {namespace} lets the workload of {', '.join(missing)} be copied"
        return CopyRefusal("WorkloadNotFound", why)
    if len(found) > MOST_SERVICES:
        why = f"grants in namespace {namespace} name {len(found)} workloads, and a stack has {MOST_SERVICES} at most"
        return CopyRefusal("StackTooLarge", why)
    return tuple(found.values())


def sanitized(template: Mapping[str, Any], container: str, variables: Collection[str]) -> Sanitized:
    """What of a workload's pod template may run in somebody else's trial.

    Args:
        template: the pod template.
        container: the one that serves; it comes first in the copy, as the planner and `kubectl logs` want it.
        variables: whose literal values are kept. References to ConfigMaps and Secrets stay, for they lead to those of
            the trial's namespace.

    Raises:
        LookupError: the template has no such container.
    """
    spec = cast("Mapping[str, Any]", template["spec"])
    lost = [f"metadata.{kind}" for kind in ("labels", "annotations") if template.get("metadata", {}).get(kind)]
    lost += [f"spec.{it}" for it in sorted(spec) if it not in _POD and it not in _POD_ANEW]
    copied: Manifest = {name: spec[name] for name in sorted(_POD) if name in spec}
    for kind in ("initContainers", "containers"):
        if kind in copied:
            copied[kind] = [_container(it, f"spec.{kind}", variables, lost) for it in copied[kind]]
    if all(it["name"] != container for it in copied["containers"]):
        raise LookupError(f"no container {container}")
    copied["containers"] = sorted(copied["containers"], key=lambda it: it["name"] != container)
    if "volumes" in copied:
        copied["volumes"] = [_volume(it, lost) for it in copied["volumes"]]
    return Sanitized({"spec": copied}, tuple(lost))


def with_stack(spec: ExperimentSpec, stack: CopiedStack) -> ExperimentSpec:
    """The experiment with the copy in the place of its stack.

    What runs there and is no component of the experiment starts first, one after the other: it is there already when
    the experiment's services start in production. It is planned where they are: as its owner has said, or as a trial
    shows.

    Raises:
        LookupError: the copy lacks a component.
    """
    copies = {it.component: it for it in stack.services}
    is_planned = any(it.memory is not None for it in spec.stack.components)
    others = stack.beside([it.name for it in spec.stack.components])
    added = [_beside(copies[name], others[:index], is_planned=is_planned) for index, name in enumerate(others)]
    own = [
        it.model_copy(update={"template": copies[it.name].template, "depends_on": (*others, *it.depends_on)})
        for it in spec.stack.components
    ]
    return spec.model_copy(update={"stack": spec.stack.model_copy(update={"components": (*added, *own)})})


def differences(before: CopiedStack, after: CopiedStack) -> tuple[str, ...]:
    """What has changed between two copies of a namespace, by component."""
    was, now = ({it.component: it for it in stack.services} for stack in (before, after))
    words = [f"{it} runs no more" for it in was if it not in now]
    words += [f"{it} is new" for it in now if it not in was]
    return (*words, *(f"{it} is not what it was" for it in now if it in was and was[it] != now[it]))


def other_values(spec: ExperimentSpec, stack: CopiedStack) -> tuple[str, ...]:
    """Variables of parameters that have another value there than the baseline."""
    found: list[str] = []
    templates = {it.component: it.template for it in stack.services}
    for it in spec.parameters:
        if it.bind.variable is None:
            continue
        component, name = it.bind.variable
        server = cast("Manifest", templates[component]["spec"]["containers"][0])
        there = next((entry.get("value") for entry in server.get("env", ()) if entry["name"] == name), None)
        if there is not None and canonical(there) != canonical(it.baseline):
            found.append(f"{component} has {name}={there} there, and the baseline is {it.baseline}")
    return tuple(found)


def _beside(service: CopiedService, before: tuple[str, ...], *, is_planned: bool) -> Component:
    component = Component(
        name=service.component,
        protocol=Protocol.HTTP,
        port=_port(service.template),
        depends_on=before,
        template=service.template,
    )
    if not is_planned or not card_shares(component):
        return component
    memory = Memory(model=MemoryModel.LEARNED)
    if service.memory_mib is not None:
        memory = Memory(model=MemoryModel.DECLARED, memory_mib=service.memory_mib)
    return component.model_copy(update={"memory": memory})


def _port(template: Manifest) -> int:
    """The first that a container names; without a stream nobody asks it."""
    containers = cast("list[Manifest]", template["spec"]["containers"])
    ports = (int(port["containerPort"]) for it in containers for port in it.get("ports", ()))
    return next(ports, 80)


def _container(container: Manifest, where: str, variables: Collection[str], lost: "list[str]") -> Manifest:
    where = f"{where}[{container['name']}]"
    lost += [f"{where}.{it}" for it in sorted(container) if it not in _CONTAINER and it != "resizePolicy"]
    copied: Manifest = {name: container[name] for name in sorted(_CONTAINER) if name in container}
    if "env" in copied:
        copied["env"] = [it for it in copied["env"] if "valueFrom" in it or it["name"] in variables]
        kept = {it["name"] for it in copied["env"]}
        lost += [f"{where}.env[{it['name']}]" for it in container["env"] if it["name"] not in kept]
    if "ports" in copied:
        copied["ports"] = [_without(it, ("hostIP", "hostPort"), f"{where}.ports", lost) for it in copied["ports"]]
    if "resources" in copied:
        copied["resources"] = _without(copied["resources"], ("claims",), f"{where}.resources", lost)
    return copied


def _volume(volume: Manifest, lost: "list[str]") -> Manifest:
    """An empty directory takes the place of what is lost: the mounts stay, and find nothing."""
    name = volume["name"]
    [kind] = [it for it in volume if it != "name"] or ["emptyDir"]
    if kind in _VOLUMES:
        return volume
    if kind == "projected":
        sources = cast("list[Manifest]", volume[kind].get("sources", []))
        kept = [it for it in sources if _PROJECTED.issuperset(it)]
        lost += _lost_sources(name, sources)
        return volume | {kind: volume[kind] | {"sources": kept}} if kept else {"name": name, "emptyDir": {}}
    lost.append(f"spec.volumes[{name}].{kind}")
    return {"name": name, "emptyDir": {}}


def _lost_sources(volume: str, sources: Sequence[Manifest]) -> Iterator[str]:
    for source in sources:
        for kind in source:
            if kind not in _PROJECTED:
                yield f"spec.volumes[{volume}].projected.{kind}"


def _without(value: Manifest, names: Sequence[str], where: str, lost: "list[str]") -> Manifest:
    lost += [f"{where}.{it}" for it in names if it in value]
    return {key: it for key, it in value.items() if key not in names}
