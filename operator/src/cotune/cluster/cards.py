"""One trial at a time on a card: a Lease per node in the operator's own namespace.

The holder is a trial, not a process: a restarted operator finds its trials still holding their cards, and nothing
expires while it is away. A card whose holder has gone, or has finished without giving it back, is taken over once no
pod of that holder is left: a pass that died before it wrote down which card it had taken leaves such a holder.

A card that was not drained in time is in quarantine for a while: annotations of its Lease say until when, and why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cotune.api.trial import TrialStatus
from cotune.cluster.kinds import LEASE, POD, TRIAL
from cotune.cluster.objects import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError, Object, Objects
from cotune.trials.render import LABEL_TRIAL, TrialIdentity

ANNOTATION_QUARANTINED_UNTIL = "cotune.dev/quarantined-until"
ANNOTATION_QUARANTINED_BECAUSE = "cotune.dev/quarantined-because"


class QuarantinedError(Exception):
    """The card was found in use by somebody else, and is left alone for a while."""

    def __init__(self, node: str, until: str, why: str) -> None:
        super().__init__(f"{node} until {until}: {why}")


@dataclass(frozen=True)
class Holder:
    """The trial that holds a card."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, trial: TrialIdentity) -> "Holder":
        """The trial as a holder."""
        return cls(trial.namespace, trial.name, trial.uid)

    @classmethod
    def parse(cls, identity: str) -> "Holder":
        """The holder in a Lease's `holderIdentity`; parts that are missing are empty."""
        namespace, name, uid, *_ = [*identity.split("/"), "", ""]
        return cls(namespace, name, uid)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}/{self.uid}"


class Cards:
    """The Leases of all cards.

    Args:
        objects: of the cluster.
        namespace: the operator's own, where they are.
        released: called when a card has been given back.
    """

    def __init__(self, objects: Objects, namespace: str, released: Callable[[], None] = lambda: None) -> None:
        self._objects = objects
        self._namespace = namespace
        self._released = released

    async def holder(self, node: str) -> Holder | None:
        """Who holds the card of a node."""
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        return _holder(lease) if lease is not None else None

    async def acquire(self, node: str, trial: TrialIdentity, now: datetime | None = None) -> bool:
        """Whether the trial holds the card now. Asking again does no harm.

        Raises:
            QuarantinedError: the card is in quarantine at `now`; without a time nobody asks.
        """
        mine = Holder.of(trial)
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        try:
            if lease is None:
                await self._objects.create(LEASE, self._namespace, _lease(self._namespace, node, mine))
                return True
            current = _holder(lease)
            if current == mine:
                return True
            if current is not None and not await self._is_gone(current):
                return False
            if now is not None:
                lease = _out_of_quarantine(lease, node, now)
            await self._objects.replace(LEASE, lease | {"spec": lease.get("spec", {}) | {"holderIdentity": str(mine)}})
        except (AlreadyExistsError, ConflictError, NotFoundError):
            return False  # Another trial was faster.
        return True

    async def release(self, node: str, trial: TrialIdentity) -> None:
        """Give the card back; a card that somebody else holds is left alone."""
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        if lease is not None and _holder(lease) == Holder.of(trial):
            await self._objects.replace(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": ""}})
            self._released()

    async def quarantine(self, node: str, trial: TrialIdentity, until: datetime, why: str) -> None:
        """Have nobody acquire the card for a while; the trial that holds it gives it back as ever.

        Raises:
            ConflictError: the Lease was changed meanwhile.
        """
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        if lease is None or _holder(lease) != Holder.of(trial):
            return
        said = {
            ANNOTATION_QUARANTINED_UNTIL: until.isoformat(timespec="seconds"),
            ANNOTATION_QUARANTINED_BECAUSE: why,
        }
        metadata = lease["metadata"]
        annotations = metadata.get("annotations", {}) | said
        await self._objects.replace(LEASE, lease | {"metadata": metadata | {"annotations": annotations}})

    async def _is_gone(self, holder: Holder) -> bool:
        trial = await self._objects.find(TRIAL, holder.namespace, holder.name)
        if trial is not None and trial["metadata"]["uid"] == holder.uid:
            status = TrialStatus.model_validate(trial.get("status") or {})
            if not status.phase.is_finished():
                return False
        try:
            return not await self._objects.list(POD, holder.namespace, {LABEL_TRIAL: holder.name})
        except ForbiddenError:
            # The namespace takes its invitation along when it goes. A card whose trial is gone must not stay locked for
            # everybody else: that it is drained, the next probe sees for itself.
            return trial is None


def _name(node: str) -> str:
    return f"card-{node}"


def _holder(lease: Object) -> Holder | None:
    identity = lease.get("spec", {}).get("holderIdentity")
    return Holder.parse(identity) if identity else None


def _out_of_quarantine(lease: Object, node: str, now: datetime) -> Object:
    """The Lease without a quarantine that is over; what a person has made of the time counts as over, too.

    Raises:
        QuarantinedError: it is not over.
    """
    metadata = lease["metadata"]
    annotations: dict[str, str] = metadata.get("annotations", {})
    until = annotations.get(ANNOTATION_QUARANTINED_UNTIL)
    if until is None:
        return lease
    if _is_later(until, now):
        raise QuarantinedError(node, until, annotations.get(ANNOTATION_QUARANTINED_BECAUSE, ""))
    ours = {ANNOTATION_QUARANTINED_UNTIL, ANNOTATION_QUARANTINED_BECAUSE}
    rest = {key: value for key, value in annotations.items() if key not in ours}
    return lease | {"metadata": metadata | {"annotations": rest}}


def _is_later(text: str, now: datetime) -> bool:
    try:
        return datetime.fromisoformat(text) > now
    except (TypeError, ValueError):  # No time, or one without a zone.
        return False


def _lease(namespace: str, node: str, holder: Holder) -> Object:
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.name,
        "metadata": {"name": _name(node), "namespace": namespace},
        "spec": {"holderIdentity": str(holder)},
    }
