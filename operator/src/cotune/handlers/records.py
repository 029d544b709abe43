"""Keeps the record of a trial that ends, while its pods are still there to tell of it."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client import Counter

from cotune.api.conditions import ConditionStatus, with_condition
from cotune.api.trial import Artifact, TrialPhase, TrialSpec, TrialStatus
from cotune.artifacts.making import Ended, make_record
from cotune.artifacts.record import Parent, canonical_bytes
from cotune.artifacts.store import StoreError
from cotune.cluster.kinds import TRIAL
from cotune.cluster.nodes import node_facts
from cotune.cluster.objects import ForbiddenError, Object, Objects
from cotune.cluster.stacks import ObservedStack, Stacks
from cotune.handlers.statuses import condition, status_of
from cotune.handlers.store_thread import StoreThread
from cotune.measurement.contract import ProbeResult
from cotune.trials.outcome import NoResultError, probe_result

ARTIFACT_STORED = "ArtifactStored"
_UNAVAILABLE = "StoreUnavailable"
_GRACE = timedelta(seconds=60)
"""For which a trial that has ended keeps its pods, and so its card, because its record cannot be stored."""

_logger = logging.getLogger("cotune.artifacts")

ARTIFACTS = Counter("cotune_artifacts_total", "Records of trials, by what became of them.", ["outcome"])


@dataclass(frozen=True)
class Records:
    """The records of trials, in a store that may be missing, full or away."""

    objects: Objects
    stacks: Stacks
    probe_image: str
    store: StoreThread | None = None
    """None: nothing is kept."""
    is_short: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something could not be stored: room may have to be made."""

    async def with_record(
        self, body: Object, spec: TrialSpec, status: TrialStatus, stack: ObservedStack, now: datetime
    ) -> TrialStatus:
        """The status of a trial that ends, with its record stored, or with the reason why it is not.

        Args:
            body: the trial as it was read.
            spec: its spec.
            status: with the phase, reason and measurements in which it ends.
            stack: its pods, which must still be there.
            now: the time, for the condition only.
        """
        generation = body["metadata"]["generation"]
        if self.store is None:
            message = "the operator has no artifact store: artifacts.enabled of its chart"
            stored = condition(ARTIFACT_STORED, False, generation, now, "NotConfigured", message)
            return _with(status, None, with_condition(status.conditions, stored))
        ended = await self._ended(body, spec, status, stack)
        try:
            content = canonical_bytes(make_record(ended))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A pod that nobody has thought of must not cost the result, nor keep the card for ever.
            _logger.exception("no record of %s could be made", body["metadata"]["name"])
            message = f"{type(error).__name__}: {error}"
            failed = condition(ARTIFACT_STORED, False, generation, now, "RecordNotMade", message)
            return _with(status, None, with_condition(status.conditions, failed))
        try:
            if status.measurements and ended.result is None:
                raise StoreError("the kubelet does not give the probe's log any more")
            digest = await self.store.put(content)
        except StoreError as error:
            self.is_short.set()
            ARTIFACTS.labels("failed").inc()
            until = ((status.finished_at or now) + _GRACE).isoformat(timespec="seconds")
            message = f"{error}; tried until {until}"
            failed = condition(ARTIFACT_STORED, False, generation, now, _UNAVAILABLE, message)
            return _with(status, None, with_condition(status.conditions, failed))
        ARTIFACTS.labels("stored").inc()
        stored = condition(ARTIFACT_STORED, True, generation, now, "RecordStored", digest)
        artifact = Artifact(digest=digest, bytes=len(content))
        return _with(status, artifact, with_condition(status.conditions, stored))

    def is_to_be_tried_again(self, status: TrialStatus, now: datetime) -> bool:
        """Whether the record of a trial that has ended may still be stored, and its pods are kept for that.

        Its result stands in its status whatever becomes of the record.
        """
        if self.store is None or status.finished_at is None or now >= status.finished_at + _GRACE:
            return False
        said = next((it for it in status.conditions if it.type == ARTIFACT_STORED), None)
        return said is not None and said.status is ConditionStatus.FALSE and said.reason == _UNAVAILABLE

    async def _ended(self, body: Object, spec: TrialSpec, status: TrialStatus, stack: ObservedStack) -> Ended:
        counts = status.phase is TrialPhase.SUCCEEDED
        return Ended(
            body=body,
            spec=spec,
            status=status,
            pods=stack.pods,
            cards={name: sorted(it) for name, it in stack.cards().items()},
            node=await node_facts(self.objects, status.node) if status.node is not None else None,
            parents=await self._parents(body["metadata"]["namespace"], spec.parents),
            probe_image=self.probe_image,
            result=_result(stack),
            logs={} if counts else await self._logs(stack),
        )

    async def _parents(self, namespace: str, names: Sequence[str]) -> list[Parent]:
        found: list[Parent] = []
        for name in names:
            trial = await self.objects.find(TRIAL, namespace, name)
            artifact = TrialStatus.model_validate(status_of(trial)).artifact if trial is not None else None
            found.append(Parent(trial=name, record=artifact.digest if artifact is not None else None))
        return found

    async def _logs(self, stack: ObservedStack) -> dict[str, str]:
        try:
            return await self.stacks.tails(stack)
        except ForbiddenError:
            return {}  # The trial may have ended for want of this very right.


def _result(stack: ObservedStack) -> ProbeResult | None:
    """What the probe said, whether it counts or not."""
    if stack.probe is None or not stack.probe.log:
        return None
    try:
        return probe_result(stack.probe.log)
    except NoResultError:
        return None


def _with(status: TrialStatus, artifact: Artifact | None, conditions: Sequence[object]) -> TrialStatus:
    return status.model_copy(update={"artifact": artifact, "conditions": conditions})
