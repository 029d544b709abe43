"""One trial at a time on a card: a Lease per node in the operator's own namespace.

The holder is a trial, not a process: a restarted operator finds its trials still holding their cards, and nothing
expires while it is away. A card whose holder has gone, or has finished without giving it back, is taken over once no
pod of that holder is left: a pass that died before it wrote down which card it had taken leaves such a holder.
"""

from dataclasses import dataclass

from cotune.api.trial import TrialStatus
from cotune.cluster.kinds import LEASE, POD, TRIAL
from cotune.cluster.objects import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError, Object, Objects
from cotune.trials.render import LABEL_TRIAL, TrialIdentity


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
    """The Leases of all cards."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def holder(self, node: str) -> Holder | None:
        """Who holds the card of a node."""
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        return _holder(lease) if lease is not None else None

    async def acquire(self, node: str, trial: TrialIdentity) -> bool:
        """Whether the trial holds the card now. Asking again does no harm."""
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
            await self._objects.replace(LEASE, lease | {"spec": lease.get("spec", {}) | {"holderIdentity": str(mine)}})
        except (AlreadyExistsError, ConflictError, NotFoundError):
            return False  # Another trial was faster.
        return True

    async def release(self, node: str, trial: TrialIdentity) -> None:
        """Give the card back; a card that somebody else holds is left alone."""
        lease = await self._objects.find(LEASE, self._namespace, _name(node))
        if lease is not None and _holder(lease) == Holder.of(trial):
            await self._objects.replace(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": ""}})

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


def _lease(namespace: str, node: str, holder: Holder) -> Object:
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.name,
        "metadata": {"name": _name(node), "namespace": namespace},
        "spec": {"holderIdentity": str(holder)},
    }
