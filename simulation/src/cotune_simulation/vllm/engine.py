"""The engine's loop: one step after the other, each of them a kernel on the card."""

import asyncio
import time
from collections.abc import AsyncGenerator

from cotune_simulation.card.client import CardClient
from cotune_simulation.torch_memory import take
from cotune_simulation.vllm.figures import ModelFigures
from cotune_simulation.vllm.metrics import EngineMetrics
from cotune_simulation.vllm.scheduler import Request, Scheduler
from cotune_simulation.vllm.startup import StartedEngine

_GROWTH_SEQUENCES = 32
"""Sequences at once at which the growth under load was measured; fewer take a share of it."""


class Engine:
    """Completes requests on a card until cancelled."""

    def __init__(self, card: CardClient, figures: ModelFigures, started: StartedEngine, metrics: EngineMetrics) -> None:
        self._card = card
        self._figures = figures
        self._scheduler = Scheduler(started.sizes, started.blocks)
        self._metrics = metrics
        self._work = asyncio.Event()
        self._grown_sequences = 0

    async def run(self) -> None:
        """Compute steps for ever.

        :raises TorchOutOfMemoryError: the card is too full for what more sequences at once take.
        """
        counted = 0
        while True:
            step = self._scheduler.next_step()
            self._show()
            self._metrics.preemptions.inc(self._scheduler.preemptions - counted)
            counted = self._scheduler.preemptions
            if not step.work:
                self._work.clear()
                await self._work.wait()
                continue
            await self._grow(len(step.work))
            await self._card.run(self._figures.step.step_ms(len(step.work), step.prompt_tokens))
            for request in self._scheduler.complete(step):
                request.on_token(request.generated)

    async def generate(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Complete a prompt; yields the number of tokens generated so far. Ends early when the caller does."""
        tokens: asyncio.Queue[int] = asyncio.Queue()
        started_at = last = time.monotonic()
        await asyncio.sleep(self._figures.step.request_overhead_ms / 1000)
        request = Request(prompt_tokens, output_tokens, tokens.put_nowait)
        self._scheduler.add(request)
        self._work.set()
        try:
            while not request.finished or not tokens.empty():
                count = await tokens.get()
                now = time.monotonic()
                if count == 1:
                    self._metrics.prompt_tokens.inc(prompt_tokens)
                    self._metrics.first_token.observe(now - started_at)
                else:
                    self._metrics.between_tokens.observe(now - last)
                self._metrics.generation_tokens.inc()
                last = now
                yield count
            self._metrics.latency.observe(time.monotonic() - started_at)
        finally:
            self._scheduler.remove(request)
            self._show()

    async def _grow(self, sequences: int) -> None:
        sequences = min(sequences, _GROWTH_SEQUENCES)
        if sequences > self._grown_sequences:
            more = sequences - self._grown_sequences
            await take(self._card, self._figures.growth_under_load_bytes * more // _GROWTH_SEQUENCES)
            self._grown_sequences = sequences

    def _show(self) -> None:
        self._metrics.running.set(len(self._scheduler.running))
        self._metrics.waiting.set(len(self._scheduler.waiting))
        self._metrics.kv_cache_usage.set(self._scheduler.usage)
