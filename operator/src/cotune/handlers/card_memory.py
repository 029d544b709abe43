"""What a pass does about the memory of a stage's pods: it records them, and asks node agents before a start."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cotune.api.card_memory import MemoryReason, StagePod
from cotune.api.profile import Stage, StageStatus
from cotune.cluster.events import Events
from cotune.cluster.objects import Object
from cotune.cluster.workloads import Workload
from cotune.measurement.agent.client import UnknownError
from cotune.measurement.agent.contract import NodeHoldings
from cotune.rollout.card_memory import Holdings, in_question, recorded_first, weighed, with_seen
from cotune.rollout.stage import StageStep


class Agents(Protocol):
    """The node agents."""

    async def held(self, node: str, pods: Set[str]) -> NodeHoldings:
        """What these pods hold on the cards of a node now.

        Raises:
            UnknownError: nobody says.
        """
        ...


@dataclass(frozen=True)
class CardMemory:
    """Lets no stack start beside what its own pods still hold; without node agents, nothing is recorded or asked."""

    agents: Agents | None = None

    async def looked_at(
        self, stage: Stage, state: StageStatus, step: StageStep, found: Mapping[str, Workload], now: datetime
    ) -> StageStep:
        """The step with what is known of the memory of the stage's pods.

        Args:
            stage: as the spec has it now.
            state: as it is on record.
            step: what was decided without regard to the card.
            found: the stage's workloads, by component.
            now: the time.
        """
        if self.agents is None:
            return step
        seen = [
            StagePod(uid=uid, component=component, node=node)
            for component, it in found.items()
            for uid, node in it.card_pods.items()
        ]
        observed = {name: it.observed for name, it in found.items()}
        memory = with_seen(state.memory, seen)
        step = recorded_first(step, state.memory, memory, observed)
        asked = in_question(step, memory, seen, observed)
        if not asked:
            return step
        return weighed(stage, step, asked, await _ask(self.agents, asked), observed, now)


async def tell_memory(events: Events, body: Object, old: StageStatus | None, new: StageStatus, now: datetime) -> None:
    """An event when a start waits for memory, no longer waits for it, or is made without knowing of it."""
    before, after = old.memory if old is not None else None, new.memory
    if after is None or after.reason is None or (before is not None and before.reason is after.reason):
        return
    warning = after.reason is not MemoryReason.UNKNOWN
    note = f"stage {new.name}: {after.message}"
    await events.tell(body, str(after.reason), note, "Rollout", now, warning=warning)


async def _ask(agents: Agents, pods: Sequence[StagePod]) -> Holdings:
    by_node: dict[str, set[str]] = {}
    for it in pods:
        by_node.setdefault(it.node, set()).add(it.uid)
    answers = await asyncio.gather(*(_of_node(agents, node, uids) for node, uids in by_node.items()))
    held = {uid: what for it in answers for uid, what in it.held.items()}
    unknown = {uid: why for it in answers for uid, why in it.unknown.items()}
    return Holdings(held, {uid: why for uid, why in unknown.items() if uid not in held})


async def _of_node(agents: Agents, node: str, pods: Set[str]) -> Holdings:
    try:
        found = await agents.held(node, pods)
    except UnknownError as error:
        return Holdings(unknown=dict.fromkeys(pods, str(error)))
    held: dict[str, str] = {}
    for it in found.held:
        processes = ", ".join(f"{process.name} {process.pid}" for process in it.processes[:4])
        what = f"{it.mib:,.0f} MiB on {it.card} by {processes} of pod {it.pod}"
        held[it.pod] = f"{held[it.pod]}, {what}" if it.pod in held else what
    why = "; ".join(found.unknown) or ("" if found.cards else "its node agent sees no card")
    return Holdings(held, dict.fromkeys(pods, why) if why else {})
