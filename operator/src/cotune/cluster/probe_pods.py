"""The pods in which the probes of stages run: made once for each run, read when they have ended, deleted."""

from contextlib import suppress
from dataclasses import dataclass

from cotune.cluster.kinds import POD
from cotune.cluster.objects import AlreadyExistsError, ApiError, ForbiddenError, Object, Objects
from cotune.trials.pod_failure import pod_failure
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import Manifest

_TAIL_LINES = 200


class NotOursError(Exception):
    """A pod of a run's name exists, and belongs to somebody else."""


@dataclass(frozen=True)
class RunEnd:
    """A run that has ended."""

    log: str = ""
    """Its end: of one that went well, with the result."""
    error: str = ""
    """Why there is no result."""


class ProbePods:
    """The pods of one profile's probes.

    Args:
        objects: the API server.
        namespace: the profile's.
        uid: the profile's: only pods that it owns are read or deleted.
    """

    def __init__(self, objects: Objects, namespace: str, uid: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._uid = uid

    async def rehearse(self, manifest: Manifest) -> None:
        """Ask whether such a pod would be let in.

        Raises:
            ApiError: it would not.
        """
        with suppress(AlreadyExistsError):
            await self._objects.create(POD, self._namespace, manifest, dry_run=True)

    async def ended(self, manifest: Manifest) -> RunEnd | None:
        """How the run ended that this pod is for; the pod is made if it is not there. None: it has not ended.

        Raises:
            NotOursError: somebody else has a pod of its name.
        """
        pod = await self._objects.find(POD, self._namespace, manifest["metadata"]["name"])
        if pod is None:
            with suppress(AlreadyExistsError):  # By a pass that was not answered: the next one reads it.
                await self._objects.create(POD, self._namespace, manifest)
            return None
        if not self._is_owned(pod):
            raise NotOursError(f"there is a pod {self._namespace}/{pod['metadata']['name']} of somebody else")
        return await self._end(pod)

    async def delete(self, name: str) -> None:
        """Delete the pod of a run, wherever it stands; one that is gone, or somebody else's, is no error."""
        pod = await self._objects.find(POD, self._namespace, name)
        if pod is not None and self._is_owned(pod) and "deletionTimestamp" not in pod["metadata"]:
            await self._objects.delete(POD, self._namespace, name, uid=pod["metadata"]["uid"])

    def _is_owned(self, pod: Object) -> bool:
        return any(it["uid"] == self._uid for it in pod["metadata"].get("ownerReferences", ()))

    async def _end(self, pod: Object) -> RunEnd | None:
        status = pod.get("status", {})
        match status.get("phase"):
            case "Succeeded":
                log = await self._log(pod)
                return None if log is None else RunEnd(log=log)
            case "Failed":
                said = str(status.get("message") or status.get("reason") or "")
                lines = [it.strip() for it in (await self._log(pod) or "").splitlines() if it.strip()]
                return RunEnd(error=lines[-1] if lines else said or "the probe ended with an error")
            case _:
                pass
        if (failure := pod_failure(pod, {})) is not None and failure.is_decisive and not _has_ended(pod):
            return RunEnd(error=f"{failure.reason}: {failure.message}")
        return None

    async def _log(self, pod: Object) -> str | None:
        """None: the kubelet does not give it now."""
        metadata = pod["metadata"]
        try:
            return await self._objects.log(metadata["namespace"], metadata["name"], PROBE, _TAIL_LINES)
        except ForbiddenError:
            raise
        except ApiError:
            return None


def _has_ended(pod: Object) -> bool:
    """Whether its container has: the pod's phase, which decides, follows a moment later."""
    return any("terminated" in it.get("state", {}) for it in pod.get("status", {}).get("containerStatuses", ()))
