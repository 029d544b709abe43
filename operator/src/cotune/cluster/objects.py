"""Kubernetes objects as JSON over the official asynchronous client: dicts in, dicts out, refusals as exceptions."""

# The client's generated code has no types: they stop at this file's signatures.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientResponse
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from cotune.cluster.kinds import POD, Kind

FIELD_MANAGER = "cotune"

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""

REFUSALS = frozenset({400, 403, 422})
"""Status codes of what would be refused again: a right, an admission rule, a quota, a field's value."""

_NO_SUCH_LOG = frozenset({400, 404})
"""No such pod, or a container that has not run (yet)."""

_FENCE = re.compile(r"ValidatingAdmissionPolicy '[^']*-fence(-shared)?'")
"""As the chart names the policies that let only the leader write; also when they cannot tell who that is."""

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.retry_after = retry_after
        """Seconds for which the API server wants to be left alone, as with 429; 0: it does not say."""
        self.reason = reason
        """As in the API's Status object, such as `AlreadyExists`."""
        self.message = message


class NotFoundError(ApiError):
    """The object does not exist."""


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class ConflictError(ApiError):
    """The object was changed since it was read: look again."""


class ForbiddenError(ApiError):
    """The operator's service account may not do this."""


class FencedError(Exception):
    """The API server holds another process for the leader, or nobody yet: the write was not done.

    No `ApiError`, for it says nothing about what was asked for: nothing may be concluded from it.
    """


class Objects:
    """Reads and writes objects. Every call may raise `ApiError` or one of its kinds, and a write `FencedError`."""

    def __init__(self, api: client.ApiClient, timeout_seconds: float = 20) -> None:
        self._api = api
        self._timeout = timeout_seconds
        self.before_write: Callable[[], None] = lambda: None
        """Called before every write is sent."""

    @classmethod
    async def connect(
        cls, kubeconfig: Path | None = None, timeout_seconds: float = 20, context: str | None = None
    ) -> "Objects":
        """As a kubeconfig says; without one as the pod's service account, or outside of a cluster by `KUBECONFIG`.

        Args:
            kubeconfig: the file; None with a context: the one of `KUBECONFIG`, else of the home folder.
            timeout_seconds: of every call.
            context: of the kubeconfig; None: its current one.

        Raises:
            kubernetes.aio.config.config_exception.ConfigException: there is no such file, or no such context in it.
        """
        configuration = client.Configuration()
        if kubeconfig is not None or context is not None:
            file = str(kubeconfig) if kubeconfig is not None else None
            await config.load_kube_config(file, context=context, client_configuration=configuration)
            return cls(client.ApiClient(configuration), timeout_seconds)
        try:
            config.load_incluster_config(client_configuration=configuration)
        except ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration), timeout_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self._json("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """One object, or None when there is none of this name."""
        try:
            return await self.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Object, ...]:
        """All objects that carry the labels."""
        query = [("labelSelector", ",".join(f"{key}={value}" for key, value in labels.items()))] if labels else []
        found = await self._json("GET", kind.path(namespace), query=query)
        # Items of a list lack what the list says for all of them.
        return tuple({"apiVersion": kind.api_version, "kind": kind.name} | item for item in found.get("items") or ())

    async def changes(self, kind: Kind, namespace: str, seconds: int) -> AsyncGenerator[Object]:
        """The metadata of a namespace's objects whenever one is created, changed or deleted; at first of all there are.

        Args:
            kind: what they are.
            namespace: where they are.
            seconds: after which the server ends the watch.
        """
        query = [("watch", "true"), ("timeoutSeconds", str(seconds))]
        response = await self._send(
            "GET", kind.path(namespace), None, query, accept=_METADATA, seconds=seconds + self._timeout
        )
        try:
            while line := await response.content.readline():
                event = cast("Object", json.loads(line))
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code", 500)), json.dumps(event["object"]).encode(), 0.0)
                yield event["object"]["metadata"]
        finally:
            response.close()

    async def create(self, kind: Kind, namespace: str | None, body: Object, dry_run: bool = False) -> Object:
        """Create an object.

        Raises:
            AlreadyExistsError: the name is taken.
        """
        query = [("fieldManager", FIELD_MANAGER), *_dry_run(dry_run)]
        return await self._json("POST", kind.path(namespace), body, query)

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Replace an object that was read before; its `resourceVersion` must still be the newest.

        Raises:
            ConflictError: somebody was faster.
        """
        metadata = cast("Mapping[str, str]", body["metadata"])
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._json("PUT", path, body, [("fieldManager", FIELD_MANAGER)])

    async def merge(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Object,
        subresource: str | None = None,
        dry_run: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Object:
        """A JSON merge patch: lists are replaced, null takes away. The API server notes `manager` as who did it.

        Raises:
            ConflictError: the patch has a `resourceVersion`, and somebody was faster.
        """
        path = kind.path(namespace, name, subresource)
        query = [("fieldManager", manager), *_dry_run(dry_run)]
        return await self._json("PATCH", path, patch, query, _MERGE_PATCH)

    async def apply(self, kind: Kind, body: Object, dry_run: bool = False) -> Object:
        """Server-side apply; cotune becomes the owner of exactly the fields in `body`.

        Raises:
            ConflictError: the body has a `resourceVersion`, and somebody was faster.
        """
        metadata = cast("Mapping[str, str]", body["metadata"])
        path = kind.path(metadata["namespace"], metadata["name"])
        query = [("fieldManager", FIELD_MANAGER), ("force", "true"), *_dry_run(dry_run)]
        return await self._json("PATCH", path, body, query, _APPLY_PATCH)

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str | None = None, grace: int | None = None
    ) -> None:
        """Delete an object; one that is gone, or replaced by another of its name, is no error.

        Args:
            kind: what it is.
            namespace: where it is.
            name: its name.
            uid: delete only the object that has this identity.
            grace: seconds that a pod's processes get to end by themselves; None: as the pod has it.
        """
        options: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._json("DELETE", kind.path(namespace, name), options)
        except (NotFoundError, ConflictError):
            return

    async def log(self, namespace: str, pod: str, container: str, tail_lines: int, previous: bool = False) -> str:
        """The end of a container's log; empty when there is none (any more).

        Raises:
            ApiError: there may be one, and the kubelet does not give it.
        """
        return await self._log(namespace, pod, container, ("tailLines", str(tail_lines)), previous)

    async def log_head(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        """The beginning of a container's log: what a server said when it started."""
        return await self._log(namespace, pod, container, ("limitBytes", str(limit_bytes)), previous=False)

    async def _log(self, namespace: str, pod: str, container: str, part: tuple[str, str], previous: bool) -> str:
        query = [("container", container), part, ("previous", str(previous).lower())]
        try:
            raw = await self._request("GET", POD.path(namespace, pod, "log"), None, query, _JSON)
        except ApiError as error:
            if error.status in _NO_SUCH_LOG:
                return ""
            raise
        return raw.decode(errors="replace")

    async def _json(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: "list[tuple[str, str]] | None" = None,
        content_type: str = _JSON,
    ) -> Object:
        return cast("Object", json.loads(await self._request(method, path, body, query or [], content_type)))

    async def _request(
        self, method: str, path: str, body: Object | None, query: "list[tuple[str, str]]", content_type: str
    ) -> bytes:
        return await (await self._send(method, path, body, query, content_type)).read()

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        query: "list[tuple[str, str]]",
        content_type: str = _JSON,
        accept: str = "application/json, */*",
        seconds: float | None = None,
    ) -> ClientResponse:
        if method != "GET":
            self.before_write()
        serialized = await self._api.param_serialize(
            method,
            path,
            query_params=query,
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(*serialized, _request_timeout=seconds or self._timeout)
        response = cast("ClientResponse", answer.response)
        if not 200 <= response.status <= 299:
            retry_after = _seconds(response.headers.get("Retry-After", ""))
            raise _error(response.status, await response.read(), retry_after)
        return response


def controller_reference(kind: Kind, owner: Object) -> Object:
    """What an object says of the one that made it, and with which it goes."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _dry_run(wanted: bool) -> "list[tuple[str, str]]":
    """Admission, validation and rights as in earnest, and nothing is stored."""
    return [("dryRun", "All")] if wanted else []


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdigit() else 0.0


def _error(status: int, data: bytes, retry_after: float) -> ApiError | FencedError:
    try:
        answer = cast("Object", json.loads(data))
    except ValueError:
        answer = Object()
    reason, message = str(answer.get("reason", "")), str(answer.get("message", data.decode(errors="replace")[:500]))
    if _FENCE.search(message):
        return FencedError(message)
    match status, reason:
        case 404, _:
            return NotFoundError(status, reason, message)
        case 409, "AlreadyExists":
            return AlreadyExistsError(status, reason, message)
        case 409, _:
            return ConflictError(status, reason, message)
        case 403, _:
            return ForbiddenError(status, reason, message)
        case _:
            return ApiError(status, reason, message, retry_after)
