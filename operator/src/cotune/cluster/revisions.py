"""What a stage was and what it shall be, as ControllerRevisions in the stage's namespace.

The name is the hash of the content: the same state is the same revision, however often it is written.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from cotune.api.grant import GrantTarget, WorkloadRef
from cotune.cluster.kinds import CONTROLLER_REVISION
from cotune.cluster.objects import AlreadyExistsError, ApiError, ForbiddenError, NotFoundError, Object, Objects
from cotune.rollout.stacks import component_of, key_of, stack_of
from cotune.rollout.state import Revision, StoredRevision, WorkloadRevision

LABELS = {"app.kubernetes.io/managed-by": "cotune"}
ANNOTATION_PROFILE = "cotune.dev/profile"


def controller_revision(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    profile: str,
    data: Mapping[str, Any],
    existing: Collection[Object],
) -> Object:
    """A ControllerRevision with the next number after those that are there.

    Args:
        name: its name.
        namespace: where it shall be.
        labels: by which those of its kind are found.
        profile: namespace and name of the profile because of which it is stored.
        data: its content.
        existing: all of its kind in the namespace.
    """
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "annotations": {ANNOTATION_PROFILE: profile},
        },
        "data": dict(data),
        "revision": max((int(it["revision"]) + 1 for it in existing), default=0),
    }


KEPT = 10
"""Revisions of a stack that stay when a new one is stored, as with a Deployment's `revisionHistoryLimit`."""


class Revisions:
    """The ControllerRevisions of one namespace."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def find(self, name: str) -> StoredRevision | None:
        """A revision that was stored before; None when somebody has deleted it."""
        try:
            return await self.get(name)
        except NotFoundError:
            return None

    async def get(self, name: str) -> StoredRevision:
        """A revision that was stored before.

        Raises:
            NotFoundError: there is none of this name, or it holds something else than what it is named after.
        """
        found = await self._objects.get(CONTROLLER_REVISION, self._namespace, name)
        if not is_genuine(found):
            raise NotFoundError(404, "NotFound", f"ControllerRevision {name} is not named after its content")
        return stored_revision(found)

    async def stored(self) -> list[StoredRevision]:
        """All revisions of the namespace, the oldest first."""
        return sorted(map(stored_revision, await self._genuine()), key=lambda it: (it.number, it.name))

    async def _genuine(self) -> list[Object]:
        return [it for it in await self._objects.list(CONTROLLER_REVISION, self._namespace, LABELS) if is_genuine(it)]

    async def ensure(
        self,
        revision: Revision,
        targets: Mapping[str, GrantTarget],
        markers: Mapping[str, str | None] | None,
        profile: str,
    ) -> StoredRevision:
        """Store a revision; one that is stored already is left as it is.

        Args:
            revision: the stack.
            targets: component to workload.
            markers: as the templates carry them; None: they will carry this revision's name.
            profile: namespace and name of the profile because of which it is stored.

        Raises:
            ApiError: somebody else has one of this name.
        """
        data = _data(revision, targets, markers)
        name = _name(data)
        existing = await self._objects.list(CONTROLLER_REVISION, self._namespace, LABELS)
        body = controller_revision(name, self._namespace, LABELS, profile, data, existing)
        known = next((it for it in existing if it["metadata"]["name"] == name), None)
        if known is None:
            try:
                known = await self._objects.create(CONTROLLER_REVISION, self._namespace, body)
            except AlreadyExistsError:
                known = await self._objects.get(CONTROLLER_REVISION, self._namespace, name)
        if not is_genuine(known):
            raise ApiError(422, "NameTaken", f"ControllerRevision {name} is there, and is not named after its content")
        return stored_revision(known)

    async def prune(self, targets: Mapping[str, GrantTarget], in_use: Collection[str]) -> None:
        """Delete the oldest revisions of a stack beyond the newest few; what others are bound to is left alone.

        Without the right to delete they stay, and do no harm.

        Args:
            targets: component to workload: what is the same stack.
            in_use: names that stay whatever their age: the way back, the way forward, what templates are marked with.
        """
        workloads = {(name, it.workload.name) for name, it in targets.items()}
        found = [
            it
            for it in await self._genuine()
            if {(key(each), each["workload"]) for each in it["data"]["workloads"]} == workloads
        ]
        newest_first = sorted(found, key=lambda it: -int(it["revision"]))
        for it in newest_first[KEPT:]:
            name = it["metadata"]["name"]
            if name not in in_use:
                with suppress(ForbiddenError):
                    await self._objects.delete(CONTROLLER_REVISION, self._namespace, name, uid=it["metadata"]["uid"])


def as_stored(
    revision: Revision, targets: Mapping[str, GrantTarget], markers: Mapping[str, str | None] | None
) -> StoredRevision:
    """The revision as `Revisions.ensure` would store it."""
    data = _data(revision, targets, markers)
    return _parse(_name(data), data, 0)


def _name(data: Object) -> str:
    return f"cotune-{hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]}"


def _data(revision: Revision, targets: Mapping[str, GrantTarget], markers: Mapping[str, str | None] | None) -> Object:
    return {
        "workloads": [
            {
                **_named(it.component),
                "workload": targets[it.component].workload.name,
                "container": targets[it.component].container,
                "values": dict(it.values),
                "replicas": it.replicas,
                **({} if markers is None else {"marker": markers.get(it.component)}),
            }
            for it in revision.workloads
        ]
    }


def key(workload: Object) -> str:
    """The key of a stored workload (`cotune.rollout.stacks`)."""
    return key_of(str(workload.get("stack", "")), str(workload["component"]))


def _named(workload: str) -> dict[str, str]:
    stack = {"stack": stack_of(workload)} if stack_of(workload) else {}
    return {"component": component_of(workload), **stack}


def _target(workload: Object) -> GrantTarget:
    return GrantTarget(
        component=workload["component"],
        workload_ref=WorkloadRef(api_version="apps/v1", kind="Deployment", name=workload["workload"]),
        container=workload["container"],
    )


def is_genuine(body: Object) -> bool:
    """Whether it is named after its content: with cotune's labels, anybody may have put anything there."""
    return body["metadata"]["name"] == _name(body["data"])


def stored_revision(body: Object) -> StoredRevision:
    """A genuine ControllerRevision of cotune's, as it was read."""
    return _parse(body["metadata"]["name"], body["data"], int(body["revision"]))


def _parse(name: str, data: Object, number: int) -> StoredRevision:
    workloads: list[Object] = data["workloads"]
    return StoredRevision(
        name,
        number,
        Revision(tuple(WorkloadRevision(key(it), it["values"], int(it["replicas"])) for it in workloads)),
        {key(it): it.get("marker", name) for it in workloads},
        {key(it): _target(it) for it in workloads},
        was_found=all("marker" in it for it in workloads),
    )
