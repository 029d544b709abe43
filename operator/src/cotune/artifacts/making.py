"""From pods, a node and what was measured to the record of a trial. Pure: the same in, the same record out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cotune import __version__
from cotune.api.trial import TrialSpec, TrialStatus
from cotune.artifacts.record import (
    ContainerRun,
    Lineage,
    LogTail,
    NodeFacts,
    Parent,
    PodRun,
    TrialManifest,
    TrialRecord,
    Variable,
)
from cotune.measurement.contract import ProbeResult
from cotune.trials.probe_pod import seed_of
from cotune.trials.render import ANNOTATION_DIGEST, LABEL_COMPONENT

_Json = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, and all that is known of it while its pods are still there."""

    body: _Json
    """The GpuTrial as the API server has it."""
    spec: TrialSpec
    status: TrialStatus
    """With the phase and the measurements in which it ends."""
    pods: Sequence[_Json]
    cards: Mapping[str, Sequence[str]]
    """UUIDs of the cards that the kubelet has given, by component."""
    node: NodeFacts | None
    parents: Sequence[Parent]
    probe_image: str
    result: ProbeResult | None
    logs: Mapping[str, str]
    """The end of the log, by component."""


def make_record(ended: Ended) -> TrialRecord:
    """The record; no time but those that trial, pods and probe have written down, so that a second pass says the same.

    Conditions, fitness and the end of the trial are not in it: they come later, or differ from pass to pass.
    """
    metadata, spec, status = ended.body["metadata"], ended.spec, ended.status
    return TrialRecord(
        namespace=metadata["namespace"],
        trial=metadata["name"],
        uid=metadata["uid"],
        created_at=metadata["creationTimestamp"],
        started_at=status.started_at,
        phase=status.phase,
        reason=status.reason,
        message=status.message,
        lineage=Lineage(
            experiment=spec.experiment,
            experiment_uid=_owner(metadata),
            spec_digest=metadata.get("annotations", {}).get(ANNOTATION_DIGEST, ""),
            candidate=spec.candidate,
            repeat=spec.repeat,
            purpose=spec.purpose,
            series=spec.series,
            generation=spec.generation,
            parents=tuple(ended.parents),
        ),
        manifest=TrialManifest(
            cotune_version=__version__,
            probe_image=ended.probe_image,
            seed=seed_of(spec.experiment),
            node=ended.node,
            card=ended.result.card_identity if ended.result is not None else None,
            pods=tuple(sorted((_pod(it, ended.cards) for it in ended.pods), key=lambda it: it.component)),
        ),
        prediction=spec.prediction,
        prediction_errors=status.prediction_errors,
        servers=status.servers,
        measurements=status.measurements,
        result=ended.result,
        logs=tuple(LogTail(component=name, text=text) for name, text in sorted(ended.logs.items())),
    )


def _owner(metadata: _Json) -> str:
    return next((str(it["uid"]) for it in metadata.get("ownerReferences", ()) if it.get("controller")), "")


def _pod(pod: _Json, cards: Mapping[str, Sequence[str]]) -> PodRun:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    component = str(metadata["labels"].get(LABEL_COMPONENT, ""))
    return PodRun(
        component=component,
        name=metadata["name"],
        digest=metadata.get("annotations", {}).get(ANNOTATION_DIGEST, ""),
        init_containers=_containers(spec.get("initContainers"), status.get("initContainerStatuses")),
        containers=_containers(spec.get("containers"), status.get("containerStatuses")),
        cards=tuple(sorted(cards.get(component, ()))),
    )


def _containers(specs: Sequence[_Json] | None, statuses: Sequence[_Json] | None) -> tuple[ContainerRun, ...]:
    known = {it["name"]: it for it in statuses or ()}
    return tuple(_container(it, known.get(it["name"], {})) for it in specs or ())


def _container(spec: _Json, status: _Json) -> ContainerRun:
    resources = _part(spec, "resources")
    ended = _part(_part(status, "state"), "terminated")
    return ContainerRun(
        name=spec["name"],
        image=spec.get("image", ""),
        image_id=status.get("imageID", ""),
        command=tuple(spec.get("command") or ()),
        args=tuple(spec.get("args") or ()),
        env=tuple(_variable(it) for it in spec.get("env") or ()),
        env_from=tuple(_env_from(it) for it in spec.get("envFrom") or ()),
        requests={name: str(amount) for name, amount in _part(resources, "requests").items()},
        limits={name: str(amount) for name, amount in _part(resources, "limits").items()},
        restarts=status.get("restartCount", 0),
        exit_code=ended.get("exitCode"),
    )


def _variable(env: _Json) -> Variable:
    source = _part(env, "valueFrom")
    if not source:
        return Variable(name=env["name"], value=env.get("value", ""))
    [(kind, where)] = cast("Mapping[str, _Json]", source).items()
    parts = (where.get(it) for it in ("name", "volumeName", "path", "containerName", "fieldPath", "resource", "key"))
    return Variable(name=env["name"], source=" ".join([kind, "/".join(str(it) for it in parts if it)]))


def _env_from(source: _Json) -> str:
    kind = "secretRef" if "secretRef" in source else "configMapRef"
    prefix = f" as {source['prefix']}*" if source.get("prefix") else ""
    return f"{kind} {_part(source, kind).get('name', '')}{prefix}"


def _part(whole: _Json, name: str) -> _Json:
    return cast("_Json", whole.get(name) or {})
