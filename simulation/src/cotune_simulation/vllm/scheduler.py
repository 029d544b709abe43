"""Which requests the next step works on: vLLM's continuous batching, as far as memory and waiting show it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cotune_simulation.vllm.memory import EngineSizes


@dataclass(eq=False)
class Request:
    """A sequence to be completed."""

    prompt_tokens: int
    output_tokens: int
    """How many to generate."""
    on_token: Callable[[int], None]
    """Called with the number of tokens generated so far, after each one."""
    arrived_at: float = 0.0
    generated: int = 0
    computed: int = 0
    """Tokens whose KV cache is filled."""
    blocks: int = field(default=0)

    @property
    def length(self) -> int:
        """Tokens of the prompt and generated ones."""
        return self.prompt_tokens + self.generated

    @property
    def finished(self) -> bool:
        """Whether all is generated."""
        return self.generated >= self.output_tokens


@dataclass(frozen=True)
class Step:
    """What one step of the engine computes."""

    work: tuple[tuple[Request, int], ...]
    """Requests, with the number of their tokens that are computed."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens beyond the one that every generating sequence needs."""
        return sum(tokens for _, tokens in self.work if tokens > 1)


class Scheduler:
    """The queue of requests and the blocks of the KV cache. It knows no time."""

    def __init__(self, sizes: EngineSizes, blocks: int) -> None:
        self._sizes = sizes
        self._blocks = blocks
        self._free = blocks
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0

    @property
    def usage(self) -> float:
        """The share of the KV cache's blocks in use, 0 to 1."""
        return 1 - self._free / self._blocks

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request, whether it waits, runs or has ended."""
        if request in self.running:
            self.running.remove(request)
            self._release(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def next_step(self) -> Step:
        """Choose the next step's work and take its blocks; empty when there is nothing to do.

        Running requests come first. One that finds no free block takes those of the request that came last, which
        then waits in front and computes everything again.
        """
        budget = self._sizes.max_num_batched_tokens
        work: dict[Request, int] = {}
        preempted = False
        for request in list(self.running):
            if request not in self.running or budget == 0:
                continue
            tokens = min(request.length - request.computed, budget)
            while not self._take(request, request.computed + tokens):
                victim = self.running[-1]
                budget += work.pop(victim, 0)
                self._preempt(victim)
                preempted = True
                if victim is request:
                    break
            else:
                work[request] = tokens
                budget -= tokens
        while not preempted and budget > 0 and self.waiting and len(self.running) < self._sizes.max_num_seqs:
            request = self.waiting[0]
            tokens = min(request.length - request.computed, budget)
            if not self._take(request, request.computed + tokens):
                break
            self.running.append(self.waiting.popleft())
            work[request] = tokens
            budget -= tokens
        return Step(tuple(work.items()))

    def complete(self, step: Step) -> list[Request]:
        """Account for a computed step; returns the requests that have one token more."""
        advanced: list[Request] = []
        for request, tokens in step.work:
            if request not in self.running:
                continue
            request.computed += tokens
            if request.computed == request.length:
                request.generated += 1
                advanced.append(request)
                if request.finished:
                    self.remove(request)
        return advanced

    def _take(self, request: Request, tokens: int) -> bool:
        more = self._sizes.blocks(tokens) - request.blocks
        if more > self._free:
            return False
        if more > 0:
            request.blocks += more
            self._free -= more
        return True

    def _preempt(self, request: Request) -> None:
        self.preemptions += 1
        self.running.remove(request)
        self._release(request)
        request.computed = 0
        self.waiting.appendleft(request)

    def _release(self, request: Request) -> None:
        self._free += request.blocks
        request.blocks = 0
