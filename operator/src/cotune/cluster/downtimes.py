"""What rollouts have cost the services of a namespace: kept there, as ControllerRevisions, whatever profiles become.

A record is written once, when an outage is over, under a name that is made of whose outage it was: a pass that died
after writing it finds it. Who may delete ControllerRevisions there, its owner, may forget what was spent.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from pydantic import AwareDatetime, ValidationError

from cotune.api.base import ApiModel
from cotune.api.grant import GrantTarget
from cotune.api.profile import ProfileSpec, ProfileStatus
from cotune.cluster.kinds import CONTROLLER_REVISION
from cotune.cluster.objects import AlreadyExistsError, ForbiddenError, Object, Objects
from cotune.cluster.revisions import controller_revision
from cotune.cluster.workloads import Workloads
from cotune.rollout.downtime import DAY, Estimate, Outage, estimate, estimate_batches
from cotune.rollout.stacks import component_of

LABELS = {"cotune.dev/record": "downtime"}

KEPT = 20
"""Records that stay whatever their age, so that the last starts are known."""


class _Record(ApiModel):
    """An outage as it is written down."""

    profile: str
    stage: str
    since: AwareDatetime
    until: AwareDatetime
    stop_seconds: int | None = None
    start_seconds: dict[str, int]

    def outage(self) -> Outage:
        return Outage(self.profile, self.stage, self.since, self.until, self.stop_seconds, self.start_seconds)


class Downtimes:
    """The outages of one namespace."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def outages(self) -> list[Outage]:
        """All that are on record, in no order; what somebody else has put there and is none is passed over."""
        return [outage for it in await self._records() if (outage := _outage(it)) is not None]

    async def estimate(
        self,
        spec: ProfileSpec,
        status: ProfileStatus,
        targets: Mapping[str, GrantTarget],
        batches: Sequence[Sequence[str]] = (),
    ) -> Estimate:
        """The expected downtime of a profile's stage in this namespace, as it is now.

        Args:
            spec: the profile.
            status: of the profile: what its earlier stages have shown.
            targets: component to workload, as the namespace's grants allow it.
            batches: which stacks go together, if the grants select several.
        """
        wanted = {
            name: {it.env: it.to for it in spec.changes if it.component == component_of(name)} for name in targets
        }
        stops = await Workloads(self._objects, self._namespace).stops(targets, wanted)
        if batches:
            outages = await self.outages()
            return estimate_batches(spec.start_order, batches, stops, spec.expect, outages, status.stages)
        return estimate(spec.start_order, stops, spec.expect, await self.outages(), status.stages)

    async def record(self, outage: Outage, profile_uid: str) -> Outage:
        """Put an outage on record; one that is there already is given back, as it was written first.

        Args:
            outage: which is over.
            profile_uid: of its profile: another one of the same name has outages of its own.
        """
        identity = f"{profile_uid}/{outage.stage}/{outage.since.isoformat()}"
        name = f"cotune-downtime-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
        record = _Record(
            profile=outage.profile,
            stage=outage.stage,
            since=outage.since,
            until=outage.until,
            stop_seconds=outage.stop_seconds,
            start_seconds=dict(outage.start_seconds),
        )
        existing = await self._records()
        data = record.model_dump(mode="json", by_alias=True)
        body = controller_revision(name, self._namespace, LABELS, outage.profile, data, existing)
        if (found := next((it for it in existing if it["metadata"]["name"] == name), None)) is not None:
            return _outage(found) or outage
        try:
            await self._objects.create(CONTROLLER_REVISION, self._namespace, body)
        except AlreadyExistsError:
            return _outage(await self._objects.get(CONTROLLER_REVISION, self._namespace, name)) or outage
        return outage

    async def prune(self, now: datetime) -> None:
        """Delete the records that are beyond the newest few and no budget counts; without the right to, they stay."""
        known = [(outage, it) for it in await self._records() if (outage := _outage(it)) is not None]
        newest_first = sorted(known, key=lambda it: it[0].until, reverse=True)
        for outage, it in newest_first[KEPT:]:
            if outage.until + DAY < now:
                metadata = it["metadata"]
                with suppress(ForbiddenError):
                    await self._objects.delete(
                        CONTROLLER_REVISION, self._namespace, metadata["name"], uid=metadata["uid"]
                    )

    async def _records(self) -> list[Object]:
        return list(await self._objects.list(CONTROLLER_REVISION, self._namespace, LABELS))


def _outage(revision: Object) -> Outage | None:
    """What a ControllerRevision records; None: none of ours has such a content."""
    try:
        return _Record.model_validate(revision.get("data")).outage()
    except ValidationError:
        return None
