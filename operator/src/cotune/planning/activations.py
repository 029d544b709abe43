"""What vLLM's profile run holds at its peak beside the weights, and what it keeps for good without counting it.

Source: vLLM 0.26. `GPUModelRunner._dummy_run` with `max_num_batched_tokens` tokens, then `_dummy_sampler_run` with the
logits of `max_num_seqs` of them, in `v1/worker/gpu/model_runner.py` (dense models and the few mixtures of
`DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES`) or `v1/worker/gpu_model_runner.py` (other mixtures, recurrent layers). The two
differ in the sampler: the older one holds its logits four times over. Attention itself is skipped, or needs little.

Which tensors of a layer live at once follows from the models' `forward`: without compilation the caller's hidden
states, the residual and the layer's own input stay beside the feed-forward's; compiled, one of the three goes.
"""

from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.vllm_settings import LONGEST_THAT_FITS, CompileCache, VllmSettings
from cotune.planning.weights import has_gate, padded_vocabulary, shared_width

_V2_MIXTURES = frozenset(
    {
        "DeepseekV2ForCausalLM",
        "GraniteMoeForCausalLM",
        "InklingForCausalLM",
        "InklingForConditionalGeneration",
        "LongcatFlashNgramForCausalLM",
        "Qwen2MoeForCausalLM",
    }
)
_FREES_GATE = ("llama", "mistral", "phi3")
"""Model types whose feed-forward lets go of gate and up before the down projection."""
_V1_LOGIT_BYTES = 4 + 4 + 4
"""Beside the logits themselves: in float32, their probabilities, and the noise that picks one."""
_BIAS_SLOTS, _STOP_SLOTS, _BAD_WORDS, _BAD_WORD_TOKENS = 1024, 128, 128, 1024
"""Per sequence: `MAX_NUM_ALLOWED_TOKEN_IDS` and its like in `v1/worker/gpu/sample/`."""
_MOST_EXPANDED = 65_536
_INT = 4


@dataclass(frozen=True)
class _Shape:
    """Tokens, sequences and widths of one card's share."""

    tokens: int
    sequences: int
    hidden: int
    attention: int
    keys: int
    wide: int
    value: int


def uses_second_runner(config: ModelConfig) -> bool:
    """Whether vLLM 0.26 runs this model with its V2 model runner (`VllmConfig.use_v2_model_runner`)."""
    if config.has_states:
        return False
    return not config.experts or bool(_V2_MIXTURES.intersection(config.architectures))


@dataclass(frozen=True)
class ActivationPeak:
    """The peak of the profile run in bytes, by what `torch.compile` finds of an earlier start."""

    warm: int
    """All of it, or nothing is to be compiled."""
    cold: int
    """Nothing: it compiles."""
    state: CompileCache

    @property
    def assumed(self) -> int:
        """Of the state that is known; where it is not, midway between both."""
        match self.state:
            case CompileCache.WARM:
                return self.warm
            case CompileCache.COLD:
                return self.cold
            case CompileCache.UNKNOWN:
                return (self.cold + self.warm) // 2


def activation_peak(config: ModelConfig, settings: VllmSettings, card: Card) -> ActivationPeak:
    """The peak of the profile run: the widest layer's forward pass, or the sampler, whichever is larger.

    Compiling takes more, and happens in the same run (`_compiling_peak`). With a warm compilation cache nothing is
    compiled or timed.
    """
    forward = _forward(config, settings, card)
    warm = max(forward, _sampler(config, _shape(config, settings, card))) + card.blas_workspace_bytes
    cold = warm if settings.enforce_eager else max(warm, _compiling_peak(config, settings, card, forward))
    return ActivationPeak(warm, cold, settings.compile_cache)


def _forward(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """One forward pass with a full batch, without cuBLAS's workspace."""
    shape = _shape(config, settings, card)
    quantized = config.quantization_config
    copies = max(shape.hidden, shape.wide) * quantized.activation_bytes if quantized is not None else 0
    adapters = 2 * shape.tokens * settings.max_lora_rank * _INT if settings.enable_lora else 0
    widest = shape.tokens * (shape.value * _width(config, settings, shape) + copies)
    return max(widest, _latent_attention(config, settings, card)) + adapters


def _compiling_peak(config: ModelConfig, settings: VllmSettings, card: Card, forward: int) -> int:
    """What inductor holds where it compiles: the larger of two moments.

    While the first forward pass runs, it times kernels, and clears the L2 cache between two timings by a buffer of its
    size (`InductorBenchmarker.benchmark_gpu` in `torch/_inductor/runtime/benchmarking.py` of torch 2.11). Before that,
    while it compiles the graph up to the first attention, it tries the kernel of embedding and first norm on made-up
    arguments: a second input table, and the hidden states and the residual of a full batch (`benchmark_fused_nodes` in
    `torch/_inductor/codegen/triton.py`; vLLM since 0.11.1 asks for it with `benchmark_combo_kernel`). No matrix product
    has run by then, so that cuBLAS has no workspace yet.
    """
    shape = _shape(config, settings, card)
    timing = forward + card.cache_bytes + card.blas_workspace_bytes
    if not settings.combines_kernels:
        return timing
    table = -(-padded_vocabulary(config) // settings.tensor_parallel_size) * shape.hidden * shape.value
    return max(timing, table + 2 * shape.tokens * shape.hidden * shape.value)


def persistent_buffers(config: ModelConfig, settings: VllmSettings, card: Card, longest: int, groups: int) -> int:
    """What the model runner allocates after the weights and before it profiles: held, and in no figure of the log.

    Most of it are the counts of every token of the vocabulary for every sequence (`PenaltiesState.output_bin_counts`),
    which only the V2 runner keeps on the card from the start.

    Args:
        config: the model.
        settings: the command line.
        card: the card.
        longest: tokens of the longest request.
        groups: groups of the KV cache, each with a table of blocks.
    """
    sequences, tokens = settings.sequences(card), settings.batched_tokens(card)
    tables = 2 * groups * sequences * -(-longest // settings.block_size) * _INT
    steps = tokens * (_INT + 8 + 1 + groups * 8)
    if not uses_second_runner(config):
        return tables + steps
    bits = -(-config.vocab_size // 32)
    lists = 3 * _BIAS_SLOTS + _STOP_SLOTS + _BAD_WORD_TOKENS + _BAD_WORDS + 1
    return tables + steps + sequences * (config.vocab_size + 2 * bits + lists) * _INT


def _shape(config: ModelConfig, settings: VllmSettings, card: Card) -> _Shape:
    cards, tokens = settings.tensor_parallel_size, settings.batched_tokens(card)
    keys = config.kv_heads * config.head_size
    attention = config.num_attention_heads * (config.v_head_dim or config.head_size)
    if config.kv_lora_rank is not None:
        keys = config.num_attention_heads * (config.qk_nope_head_dim + config.qk_rope_head_dim)
    return _Shape(
        tokens=tokens,
        sequences=min(tokens, settings.sequences(card)),
        hidden=config.hidden_size,
        attention=-(-attention // cards),
        keys=-(-keys // cards),
        wide=-(-config.intermediate_size // cards),
        value=settings.value_bytes,
    )


def _width(config: ModelConfig, settings: VllmSettings, shape: _Shape) -> int:
    """Values that live at once for every token, at the widest moment of a layer."""
    around = 3 * shape.hidden if settings.enforce_eager else 2 * shape.hidden + max(shape.hidden, shape.attention)
    into = 2 if has_gate(config) else 1
    product = around + (into + 1) * shape.wide
    keeps_gate = settings.enforce_eager and not config.model_type.startswith(_FREES_GATE)
    down = around + shape.wide + shape.hidden + (into * shape.wide if keeps_gate else 0)
    projected = 2 * shape.hidden + 2 * shape.attention + 2 * shape.keys + shape.hidden
    return max(product, down, projected, around + _experts_width(config, settings) if config.experts else 0)


def _latent_attention(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """Of multi-head latent attention: what it makes of the longest prefixes at once, beside queries and output; bytes.

    Source: `MLAAttention.forward_impl` of vLLM 0.26, which allocates it in the profile run, where attention is skipped.
    """
    if not config.is_latent:
        return 0
    heads = -(-config.num_attention_heads // settings.tensor_parallel_size)
    expanded = latent_workspace_tokens(config, settings, card) * (config.qk_nope_head_dim + config.v_head_dim)
    queries = config.qk_nope_head_dim + config.qk_rope_head_dim
    latent = 2 * (config.kv_lora_rank or 0) + config.qk_rope_head_dim
    around = 2 * config.hidden_size + latent + heads * (queries + config.v_head_dim)
    return settings.value_bytes * (heads * expanded + settings.batched_tokens(card) * around)


def latent_workspace_tokens(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """Tokens of prefixes that latent attention expands at once.

    Source: `determine_chunked_prefill_workspace_size` of vLLM 0.26.
    """
    longest = settings.max_model_len or config.max_position_embeddings
    longest = config.max_position_embeddings if longest == LONGEST_THAT_FITS else longest
    pages = settings.sequences(card) * settings.block_size
    return max(min(max(8 * longest, 4 * pages), _MOST_EXPANDED), pages)


def _experts_width(config: ModelConfig, settings: VllmSettings) -> int:
    """The two workspaces of a mixture, for every expert that a token is sent to, its output, and the shared expert's.

    Source: `TritonExperts.workspace_shapes` of vLLM 0.26.
    """
    size = -(-(config.moe_intermediate_size or config.intermediate_size) // settings.tensor_parallel_size)
    chosen = config.num_experts_per_tok or 2
    beside = config.hidden_size if shared_width(config) else 0
    return chosen * (max(size, config.hidden_size) + max(2 * size, config.hidden_size)) + config.hidden_size + beside


def _sampler(config: ModelConfig, shape: _Shape) -> int:
    """The last hidden states, those that are sampled, and their logits; with a soft cap, the logits twice."""
    logits = shape.sequences * padded_vocabulary(config)
    copies = 2 if config.final_logit_softcapping else 1
    others = 0 if uses_second_runner(config) else _V1_LOGIT_BYTES
    states = (shape.tokens + shape.sequences) * shape.hidden * shape.value
    return states + logits * (copies * shape.value + others)
