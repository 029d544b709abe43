"""The few questions that the local cluster asks its own API server, as the administrator and through the relay."""

import http.client
import json
import ssl
from typing import Any

from localcluster.errors import LocalClusterError
from localcluster.locations import Instance

_TIMEOUT_SECONDS = 5.0


class ApiUnavailableError(LocalClusterError):
    """The API server does not answer (yet)."""


class Api:
    """Read access to an instance's API server."""

    def __init__(self, instance: Instance, port: int) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=instance.certificates / "authority.crt")
        self._context.load_cert_chain(
            instance.certificates / "administrator.crt", instance.certificates / "administrator.key"
        )

    def get(self, path: str) -> dict[str, Any]:
        """The object or list at `path`.

        :raises ApiUnavailableError: no connection, or any answer but 200.
        """
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS, context=self._context
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiUnavailableError(f"the API server does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ApiUnavailableError(f"GET {path}: {answer.status} {answer.reason}")
        return json.loads(body)

    def exists(self, path: str) -> bool:
        """Whether the object at `path` can be read now."""
        try:
            self.get(path)
        except ApiUnavailableError:
            return False
        return True


def is_ready(resource: dict[str, Any]) -> bool:
    """Whether a node or pod reports the condition Ready as true."""
    conditions: list[dict[str, str]] = resource.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
