"""A probe's way to the agent of its own node, and the operator's to the agents of all."""

import asyncio
import socket
from collections.abc import Set
from dataclasses import dataclass, field

import aiohttp
from pydantic import ValidationError

from cotune.measurement.agent.contract import Node, NodeHoldings, NodeReport

_QUICK = aiohttp.ClientTimeout(total=5)
_SLACK_SECONDS = 20.0
_AT_ONCE = 16
_LONGEST_SECONDS = 10.0
"""For the operator's question: others wait for the pass that asks."""


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
    answers = await _answers(session, address)
    of_node = [(url, it) for url, it in answers if it is not None and it.name == node]
    if not of_node:
        raise UnknownError(f"no node agent of {node} answers, of {len(answers)} there")
    for url, it in of_node:
        if card in it.cards:
            return NodeAgent(session, url, card)
    raise UnknownError(f"the node agent of {node} does not see {card}")


@dataclass
class NodeAgents:
    """The agents of all nodes behind a headless Service."""

    address: str
    """Its host name and port."""
    _urls: dict[str, str] = field(default_factory=dict[str, str])
    """Node to where its agent was found."""

    async def held(self, node: str, pods: Set[str]) -> NodeHoldings:
        """What these pods hold on the cards of a node now.

        Args:
            node: its name.
            pods: their uids, at most `MOST_PODS_ASKED`.

        Raises:
            UnknownError: nobody says.
        """
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await self._ask(node, pods)
        except TimeoutError as error:
            raise UnknownError(f"the node agent of {node}: no answer within {_LONGEST_SECONDS:g} s") from error

    async def _ask(self, node: str, pods: Set[str]) -> NodeHoldings:
        async with aiohttp.ClientSession(timeout=_QUICK) as session:
            if (url := self._urls.get(node)) is not None:
                try:
                    return await _held(session, url, node, pods)
                except UnknownError:
                    self._urls.pop(node, None)  # An agent's pod that was replaced has another address.
            answers = await _answers(session, self.address)
            url = next((url for url, it in answers if it is not None and it.name == node), None)
            if url is None:
                raise UnknownError(f"no node agent of {node} answers, of {len(answers)} there")
            found = await _held(session, url, node, pods)
            self._urls[node] = url
            return found


async def _held(session: aiohttp.ClientSession, url: str, node: str, pods: Set[str]) -> NodeHoldings:
    try:
        query = [("pod", it) for it in sorted(pods)]
        async with session.get(f"{url}/v1/held", params=query, allow_redirects=False) as response:
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnknownError(f"the node agent of {node}: {error or type(error).__name__}") from error
    try:
        found = NodeHoldings.model_validate_json(text)
    except ValidationError as error:
        raise UnknownError(f"the node agent of {node}: {response.status}: {text.strip()[:200]}") from error
    if found.node != node:
        raise UnknownError(f"the node agent at {url} is that of {found.node}, not of {node}")
    return found


async def _answers(session: aiohttp.ClientSession, address: str) -> list[tuple[str, Node | None]]:
    """What all agents say of themselves, by their addresses; None: one does not answer.

    Raises:
        UnknownError: there is no such Service.
    """
    host, _, port = address.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnknownError(f"no node agent at {address}: {error.strerror}") from error
    urls = sorted({f"http://{_bracketed(str(it[4][0]))}:{port}" for it in found})
    gate = asyncio.Semaphore(_AT_ONCE)
    return list(zip(urls, await asyncio.gather(*(_node(session, it, gate) for it in urls)), strict=True))


async def _node(session: aiohttp.ClientSession, url: str, gate: asyncio.Semaphore) -> Node | None:
    try:
        async with gate, session.get(f"{url}/v1/node", timeout=_QUICK) as response:
            return Node.model_validate_json(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValidationError):
        return None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
