"""Passes that act in the same namespace take turns: what one of them has seen there holds until it has acted.

Who is in the middle of a stage, who keeps production stopped, whose trial runs: all of that is asked of one namespace
and answered for it. What passes in other namespaces do changes none of it, and they wait for nothing here.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from cotune.api.profile import ProfileSpec, ProfileStatus
from cotune.cluster.objects import Object
from cotune.handlers.statuses import status_of
from cotune.rollout.progress import IN_PROGRESS, begun, current_stage
from cotune.rollout.to_revision import unanswered

PATIENCE_SECONDS = 1.0
"""After which a pass that could wait is put off, so that its worker looks at others meanwhile."""


@dataclass
class _Place:
    """One namespace."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    """Who has its turn there, or waits for it."""


class Turns:
    """The turns of all namespaces; of one in which nobody is at work nothing is kept."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    @property
    def at_work(self) -> frozenset[str]:
        """The namespaces in which somebody has a turn, or waits for it."""
        return frozenset(self._places)

    @asynccontextmanager
    async def of(self, namespaces: Iterable[str], patience_seconds: float) -> AsyncGenerator[bool]:
        """Whether it is the caller's turn in all of these namespaces, for as long as the context lasts.

        Args:
            namespaces: in which it is about to act.
            patience_seconds: for which it waits for all of them together; after that it has none of them.
        """
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(patience_seconds):
                    for it in sorted(set(namespaces)):  # In one order: no two wait for each other.
                        await held.enter_async_context(self._one(it))
                is_mine = True
            except TimeoutError:
                await held.aclose()
                is_mine = False
            yield is_mine

    @asynccontextmanager
    async def _one(self, namespace: str) -> AsyncGenerator[None]:
        place = self._places.setdefault(namespace, _Place())
        place.users += 1
        try:
            async with place.lock:
                yield
        finally:
            place.users -= 1
            if not place.users:
                del self._places[namespace]


def namespaces_of_pass(body: Object) -> frozenset[str]:
    """Where a pass over a profile acts, or decides whether it may: it looks into no other namespace but its own.

    A stage that was promoted and is not guarded any more is left alone, and so is one that others come before.
    """
    spec, status = ProfileSpec.model_validate(body["spec"]), ProfileStatus.model_validate(status_of(body))
    stages = [stage for stage, it in begun(spec, status) if it.phase in IN_PROGRESS or it.guarded]
    stages += [stage for stage, _ in unanswered(spec, status)]
    if (following := current_stage(spec, status)) is not None:
        stages.append(following)
    return frozenset(it.namespace for it in stages)
