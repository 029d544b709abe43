"""Node agents behind one address, over HTTP; what pods hold on their cards is played."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cotune.measurement.agent.client import NodeAgents
from cotune.measurement.agent.contract import Holding, Node, NodeHoldings, TenantProcess

from support.simulated_server import free_port

CARD = "GPU-0a1b"


@dataclass
class PlayedAgent:
    """The agent of one node with one card."""

    node: str
    held: dict[str, float] = field(default_factory=dict[str, float])
    """Pod's uid to MiB."""
    asked: list[frozenset[str]] = field(default_factory=list[frozenset[str]])
    """For which pods, each time."""
    status: int = 200
    frees_after: int | None = None
    """What is held is free after so many questions; None: it never is."""

    def application(self) -> web.Application:
        """Its routes."""
        application = web.Application()
        application.add_routes([web.get("/v1/node", self._node), web.get("/v1/held", self._held)])
        return application

    async def _node(self, _: web.Request) -> web.Response:
        return web.Response(text=Node(name=self.node, cards=(CARD,)).model_dump_json(by_alias=True))

    async def _held(self, request: web.Request) -> web.Response:
        pods = frozenset(request.query.getall("pod"))
        self.asked.append(pods)
        if self.frees_after is not None and len(self.asked) > self.frees_after:
            self.held.clear()
        process = TenantProcess(pid=4711, name="python3", container="c" * 64)
        held = tuple(
            Holding(pod=it, card=CARD, mib=mib, processes=(process,)) for it, mib in self.held.items() if it in pods
        )
        text = NodeHoldings(node=self.node, cards=(CARD,), held=held).model_dump_json(by_alias=True)
        return web.Response(text=text, status=self.status)


@asynccontextmanager
async def answering(agent: PlayedAgent) -> AsyncGenerator[NodeAgents]:
    """The way to this agent, as long as it answers."""
    port = free_port()
    runner = web.AppRunner(agent.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield NodeAgents(f"127.0.0.1:{port}")
    finally:
        await runner.cleanup()
