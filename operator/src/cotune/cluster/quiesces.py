"""Who keeps a namespace's production stopped, and how it was before: one ControllerRevision of a fixed name.

It is there from before the first workload is stopped until all are ready again. As there can be only one of its name,
two experiments never stop the same production at once, and no stage of a rollout begins there meanwhile; and whoever
finds production stopped finds what brings it back, should the operator be gone.
"""

from dataclasses import dataclass
from datetime import datetime

from pydantic import AwareDatetime, ValidationError

from cotune.api.base import ApiModel
from cotune.api.quiesce import QuiescedWorkload, QuiesceStatus
from cotune.cluster.kinds import CONTROLLER_REVISION
from cotune.cluster.objects import AlreadyExistsError, Object, Objects

NAME = "cotune-quiesced"
LABELS = {"cotune.dev/record": "quiesce"}
ANNOTATION_EXPERIMENT = "cotune.dev/experiment"
ANNOTATION_RESTORE = "cotune.dev/restore"
"""Commands that bring production back, for a person without an operator."""


@dataclass(frozen=True)
class Holder:
    """The experiment that keeps production stopped."""

    experiment: str
    """Namespace and name."""
    uid: str
    since: datetime | None
    """When it began; None: the record is not one of ours."""


class _Record(ApiModel):
    experiment: str
    uid: str
    since: AwareDatetime
    until: AwareDatetime
    workloads: tuple[QuiescedWorkload, ...]


class QuiesceRecords:
    """The record of one namespace."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def holder(self) -> Holder | None:
        """Whose record is there; None: production is nobody's."""
        found = await self._objects.find(CONTROLLER_REVISION, self._namespace, NAME)
        return _holder(found) if found is not None else None

    async def take(self, experiment: str, uid: str, status: QuiesceStatus) -> Holder:
        """Put the record there; another's, or an own one that is there already, is given back."""
        assert status.since is not None  # Both are set before production is touched.
        assert status.until is not None
        record = _Record(
            experiment=experiment, uid=uid, since=status.since, until=status.until, workloads=status.workloads
        )
        body: Object = {
            "apiVersion": CONTROLLER_REVISION.api_version,
            "kind": CONTROLLER_REVISION.name,
            "metadata": {
                "name": NAME,
                "namespace": self._namespace,
                "labels": dict(LABELS),
                "annotations": {
                    ANNOTATION_EXPERIMENT: experiment,
                    ANNOTATION_RESTORE: restoring(self._namespace, status),
                },
            },
            "data": record.model_dump(mode="json", by_alias=True),
            "revision": 0,
        }
        try:
            return _holder(await self._objects.create(CONTROLLER_REVISION, self._namespace, body))
        except AlreadyExistsError:
            return _holder(await self._objects.get(CONTROLLER_REVISION, self._namespace, NAME))

    async def give_back(self, uid: str) -> None:
        """Delete the record of the experiment with this identity; another's is left alone."""
        found = await self._objects.find(CONTROLLER_REVISION, self._namespace, NAME)
        if found is not None and _holder(found).uid == uid:
            await self._objects.delete(CONTROLLER_REVISION, self._namespace, NAME, uid=str(found["metadata"]["uid"]))


def restoring(namespace: str, status: QuiesceStatus) -> str:
    """Shell commands that bring production back in order, each workload ready before the next."""
    return "\n".join(
        f"kubectl scale deployment/{it.deployment} -n {namespace} --replicas={it.replicas}\n"
        f"kubectl rollout status deployment/{it.deployment} -n {namespace}"
        for it in status.workloads
    )


def _holder(revision: Object) -> Holder:
    try:
        record = _Record.model_validate(revision.get("data"))
    except ValidationError:
        # Somebody's object of our name: nothing is stopped as long as it is there.
        return Holder(f"ControllerRevision {NAME}", "", None)
    return Holder(record.experiment, record.uid, record.since)
