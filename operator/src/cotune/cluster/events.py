"""What `kubectl describe` tells of a resource: Events, each of them once."""

import hashlib
from datetime import datetime

from cotune.cluster.kinds import EVENT
from cotune.cluster.objects import AlreadyExistsError, ForbiddenError, Object, Objects

_LONGEST_NOTE = 1024


class Events:
    """Writes Events; a repeated or forbidden one is no error."""

    def __init__(self, objects: Objects, reporter: str) -> None:
        self._objects = objects
        self._reporter = reporter

    async def tell(
        self, regarding: Object, reason: str, note: str, action: str, now: datetime, warning: bool = False
    ) -> None:
        """Say it once: an Event with the same words about the same object is never doubled, not even by a restart."""
        metadata = regarding["metadata"]
        digest = hashlib.sha256(f"{metadata['uid']}/{reason}/{note}".encode()).hexdigest()[:12]
        body: Object = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": metadata["namespace"]},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "cotune.dev/operator",
            "reportingInstance": self._reporter,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:_LONGEST_NOTE],
            "action": action,
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
        try:
            await self._objects.create(EVENT, metadata["namespace"], body)
        except (AlreadyExistsError, ForbiddenError):
            return
