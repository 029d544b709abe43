"""What `kubectl describe` tells of a resource: Events, each of them once."""

import hashlib
import logging
from datetime import datetime

from cotune.cluster.kinds import EVENT
from cotune.cluster.objects import AlreadyExistsError, ApiError, Object, Objects

_LONGEST_NOTE = 1024

_logger = logging.getLogger("cotune.events")


class Events:
    """Writes Events, and a line of the operator's log for each; one that is refused holds nothing up."""

    def __init__(self, objects: Objects, reporter: str) -> None:
        self._objects = objects
        self._reporter = reporter

    async def tell(
        self, regarding: Object, reason: str, note: str, action: str, now: datetime, warning: bool = False
    ) -> None:
        """Say it once: an Event with the same words about the same object is never doubled, not even by a restart."""
        metadata = regarding["metadata"]
        level = logging.WARNING if warning else logging.INFO
        _logger.log(level, "%s %s/%s: %s: %s", regarding["kind"], metadata["namespace"], metadata["name"], reason, note)
        digest = hashlib.sha256(f"{metadata['uid']}/{reason}/{note}".encode()).hexdigest()[:12]
        moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        # Of the core API, not events.k8s.io: kubectl describe orders and dates events by these two times.
        body: Object = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": metadata["namespace"]},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": note[:_LONGEST_NOTE],
            "action": action,
            "source": {"component": self._reporter},
            "reportingComponent": self._reporter,
            "involvedObject": {
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
        except AlreadyExistsError:
            return
        except ApiError as error:
            _logger.warning("an Event was lost: %s", error)
