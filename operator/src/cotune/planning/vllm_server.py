"""A language model under vLLM, as a server of the stack."""

from dataclasses import dataclass
from functools import cached_property

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.server import Part, Situation, Start
from cotune.planning.vllm import VllmPlan, VllmSettings, plan_vllm


@dataclass(frozen=True)
class VllmServer:
    """One `vllm serve`."""

    component: str
    config: ModelConfig
    settings: VllmSettings
    offset: int = 0
    """Learned from earlier starts, in bytes."""

    def start(self, situation: Situation) -> Start:
        """Predict one start.

        Raises:
            ModelConfigError: the quantisation is not known.
        """
        found = self._starts.get(situation)
        if found is None:
            found = self._starts[situation] = self._plan(situation)
        return found

    def appearing(self, card: Card) -> int:
        """Its weights and its context: they come within seconds, the KV cache long after."""
        return plan_vllm(self.config, self.settings, card).weights + card.context_bytes

    @cached_property
    def _starts(self) -> dict[Situation, Start]:
        """What was planned already: candidates differ in their neighbours more often than in this."""
        return {}

    def _plan(self, situation: Situation) -> Start:
        plan = plan_vllm(
            self.config,
            self.settings,
            situation.card,
            situation.taken,
            self.offset,
            freed_while_profiling=situation.freed_meanwhile,
            taken_while_profiling=situation.taken_meanwhile,
        )
        parts = self._parts(plan, situation.card)
        return Start(parts, plan.refusal, plan.message, plan.doubts, language_model=plan)

    def _parts(self, plan: VllmPlan, card: Card) -> tuple[Part, ...]:
        """What it holds itself: what neighbours took or gave back meanwhile changes its KV cache and is not its own."""
        return (
            Part(self.component, "weights", plan.weights),
            Part(self.component, "activations", plan.activations),
            Part(self.component, "libraries", card.non_torch_bytes),
            Part(self.component, "KV cache", max(plan.kv_cache, 0)),
            Part(self.component, "context and graphs", plan.outside + plan.counted_graphs),
        )
