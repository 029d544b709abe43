"""The two calls that the simulation makes to the API server, with its pod's ServiceAccount."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import aiohttp

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def node_labels(node: str) -> dict[str, str]:
    """The labels of a node.

    :raises aiohttp.ClientError: the API server does not answer, or refuses.
    """
    metadata = (await _call("GET", node, None, "application/json")).get("metadata")
    return cast("dict[str, dict[str, str]]", metadata).get("labels", {})


async def label_node(node: str, labels: Mapping[str, str]) -> None:
    """Set labels of a node and leave its others alone.

    :raises aiohttp.ClientError: the API server does not answer, or refuses.
    """
    await _call("PATCH", node, {"metadata": {"labels": dict(labels)}}, "application/merge-patch+json")


async def _call(method: str, node: str, body: object, content_type: str) -> dict[str, object]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    token = (_ACCOUNT / "token").read_text().strip()
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT, raise_for_status=True) as session,
        session.request(
            method,
            f"https://{host}:{port}/api/v1/nodes/{node}",
            json=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": content_type},
            ssl=ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt")),
        ) as response,
    ):
        return cast("dict[str, object]", await response.json())
