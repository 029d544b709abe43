"""A probe's way to the agent of its own node."""

import asyncio
import socket
from dataclasses import dataclass

import aiohttp
from pydantic import ValidationError

from cotune.measurement.agent.contract import Node, NodeReport

_QUICK = aiohttp.ClientTimeout(total=5)
_SLACK_SECONDS = 20.0
_AT_ONCE = 16


class UnknownError(Exception):
    """Whose the processes on the card are cannot be known; the message says why."""


@dataclass(frozen=True)
class NodeAgent:
    """The agent of one node and the card that is asked for."""

    session: aiohttp.ClientSession
    url: str
    card: str

    async def window(self, seconds: float) -> NodeReport:
        """Have the card watched for so long from now on.

        Raises:
            UnknownError: the agent does not answer, or says something else.
        """
        query = {"card": self.card, "seconds": f"{seconds:g}"}
        timeout = aiohttp.ClientTimeout(total=seconds + _SLACK_SECONDS)
        try:
            async with self.session.get(f"{self.url}/v1/window", params=query, timeout=timeout) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnknownError(f"the node agent: {error or type(error).__name__}") from error
        try:
            return NodeReport.model_validate_json(text)
        except ValidationError as error:
            raise UnknownError(f"the node agent: {response.status}: {text.strip()[:200]}") from error


async def find_agent(session: aiohttp.ClientSession, address: str, node: str, card: str) -> NodeAgent:
    """The agent that says it runs on this node and sees this card, among those behind a headless Service.

    Raises:
        UnknownError: there is none.
    """
    host, _, port = address.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnknownError(f"no node agent at {address}: {error.strerror}") from error
    urls = sorted({f"http://{_bracketed(str(it[4][0]))}:{port}" for it in found})
    gate = asyncio.Semaphore(_AT_ONCE)
    answers = await asyncio.gather(*(_node(session, it, gate) for it in urls))
    of_node = [(url, it) for url, it in zip(urls, answers, strict=True) if it is not None and it.name == node]
    if not of_node:
        raise UnknownError(f"no node agent of {node} answers, of {len(urls)} there")
    for url, it in of_node:
        if card in it.cards:
            return NodeAgent(session, url, card)
    raise UnknownError(f"the node agent of {node} does not see {card}")


async def _node(session: aiohttp.ClientSession, url: str, gate: asyncio.Semaphore) -> Node | None:
    try:
        async with gate, session.get(f"{url}/v1/node", timeout=_QUICK) as response:
            return Node.model_validate_json(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValidationError):
        return None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
