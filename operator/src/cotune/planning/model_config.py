"""A language model's shape, read from the `config.json` that is published with it.

Field names are Hugging Face's. What the file leaves out is what its architecture implies: the defaults of the classes
of transformers 5, which writes only what differs from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotune.planning.published_fields import canonical_fields

_FP8_BITS = 8

_IMPLIED: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "gemma2": {"head_dim": 256, "vocab_size": 256_000, "max_position_embeddings": 8192, "sliding_window": 4096},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128},
}
"""Fields that published files of a `model_type` leave out."""
_TIED = ("gemma", "cohere", "gpt2", "opt", "bloom", "falcon", "mpt", "smollm3", "starcoder2", "t5")
"""Prefixes of the model types whose classes tie input and output embeddings by default."""
_PERIOD = {"gemma3_text": 6, "gemma3": 6, "gemma2": 2, "gpt_oss": 2, "cohere2": 4, "llama4_text": 4, "llama4": 4}
"""Of model types that mix layers: the last layer of every so many has full attention, the others a window."""
_LATENT = (
    "axk1",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "kimi_k2",
    "kimi_linear",
    "longcat_flash",
    "pangu_ultra_moe",
)
"""Model types that vLLM serves with multi-head latent attention: a `kv_lora_rank` alone does not make one (MiniCPM 3).

Source: `is_deepseek_mla` in `transformers_utils/model_arch_config_convertor.py` of vLLM 0.26."""
_CHECKED = (
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "gemma3", "olmo2", "granite"),
    *("glm4", "cohere", "cohere2", "smollm3", "starcoder2", "stablelm", "nemotron", "phi", "gpt_neox", "mixtral"),
    *("qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3"),
)
"""Model types whose parameters were held against transformers' own classes (tests/data/planner/parameters)."""
_NOT_FOLLOWED = (
    *("num_kv_shared_layers", "vocab_size_per_layer_input", "altup_num_inputs", "block_configs", "index_topk"),
    *("compress_ratios", "cross_attention_layers", "is_encoder_decoder"),
)
"""Fields of known meaning that change weights or cache in ways that the formulas do not follow."""
_RECURRENT = ("mamba", "jamba", "bamba", "zamba", "nemotron_h", "falcon_h1", "granitemoehybrid", "rwkv", "plamo2")
"""Prefixes of the model types with layers that keep a state of fixed size, or nothing but that."""


class ModelConfigError(ValueError):
    """The file is no configuration of a model that the planner understands."""


class Attention(StrEnum):
    """What a layer keeps for the tokens that it has seen."""

    FULL = "full"
    """A key and a value for every token."""
    SLIDING = "sliding"
    """Those of the last `window` tokens."""
    CHUNKED = "chunked"
    """Those of the current chunk of `window` tokens."""
    RECURRENT = "recurrent"
    """A state of fixed size."""


@dataclass(frozen=True)
class Layer:
    """One layer's kind of attention."""

    attention: Attention
    window: int = 0
    """Tokens; 0 where there is no window."""


class QuantizationConfig(BaseModel):
    """How the weights of linear layers are stored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    quant_method: str
    bits: int | None = None
    group_size: int | None = None
    config_groups: Mapping[str, Any] | None = None
    """Of compressed-tensors: per group of layers, the type of its weights."""

    @property
    def is_for_experts_only(self) -> bool:
        """Whether attention and embeddings keep the model's own type: MXFP4 as gpt-oss is published."""
        return self.quant_method == "mxfp4"

    @property
    def activation_bytes(self) -> int:
        """Of a quantised copy of a layer's input; 0 when only weights are quantised."""
        return 1 if self._bits() == _FP8_BITS else 0

    def bytes_per_weight(self) -> float:
        """Of the linear layers, scales and zero points included.

        AWQ and GPTQ keep an fp16 scale and a zero point of `bits` for every group of a column, MXFP4 one byte for 32
        weights, bitsandbytes' NF4 a float32 for 64.

        Raises:
            ModelConfigError: nothing is known of the method.
        """
        bits = self._bits()
        group = self.group_size if self.group_size and self.group_size > 0 else 128
        match self.quant_method:
            case "mxfp4":
                return 0.5 + 1 / 32
            case "bitsandbytes":
                return 1.0 if bits == _FP8_BITS else 0.5 + 4 / 64
            case _:
                return 1.0 if bits == _FP8_BITS else bits / 8 + (2 + bits / 8) / group

    def _bits(self) -> int:
        match self.quant_method:
            case "awq" | "gptq" | "awq_marlin" | "gptq_marlin":
                return self.bits or 4
            case "fp8" | "modelopt" | "fbgemm_fp8":
                return _FP8_BITS
            case "mxfp4" | "bitsandbytes":
                return self.bits or 4
            case "compressed-tensors":
                groups = [cast("Mapping[str, Any]", it) for it in (self.config_groups or {}).values()]
                types = [cast("Mapping[str, Any]", it.get("weights") or {}) for it in groups]
                return int(types[0].get("num_bits") or _FP8_BITS) if types else _FP8_BITS
            case other:
                raise ModelConfigError(f"quantization_config.quant_method {other!r} is not known")


class ModelConfig(BaseModel):
    """The part of `config.json` that memory depends on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_hidden_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    tie_word_embeddings: bool | None = None
    rope_scaling: Mapping[str, Any] | None = None
    rope_parameters: Mapping[str, Any] | None = None
    partial_rotary_factor: float = 1.0
    final_logit_softcapping: float | None = None
    vision_config: Mapping[str, Any] | None = None
    audio_config: Mapping[str, Any] | None = None
    torch_dtype: str = "bfloat16"
    quantization_config: QuantizationConfig | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None
    max_window_layers: int | None = None
    layer_types: tuple[str, ...] | None = None
    sliding_window_pattern: int | None = None
    attention_chunk_size: int | None = None
    no_rope_layers: tuple[int, ...] | None = None

    num_experts: int | None = None
    num_local_experts: int | None = None
    n_routed_experts: int | None = None
    n_shared_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    shared_expert_intermediate_size: int | None = None
    first_k_dense_replace: int = 0

    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    moe_layer_freq: int | tuple[int, ...] | None = None
    interleave_moe_layer_step: int | None = None
    intermediate_size_mlp: int | None = None

    layers_block_type: tuple[str, ...] | None = None
    hybrid_override_pattern: str | None = None
    full_attention_interval: int | None = None
    attn_layer_period: int | None = None
    attn_layer_offset: int = 0
    attn_layer_indices: tuple[int, ...] | None = None

    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_rope_head_dim: int = 0
    qk_nope_head_dim: int = 0
    v_head_dim: int = 0

    not_followed: tuple[str, ...] = ()
    """Fields of the file that change memory in ways that the formulas do not follow."""
    stored_bytes: int | None = None
    """What the files of the weights hold, as their index says; None: not known. Of no field of `config.json`."""

    @model_validator(mode="before")
    @classmethod
    def _flattened(cls, data: Any) -> Any:
        """The text model's fields at the top, older names for newer ones, and what the architecture implies."""
        if not isinstance(data, dict):
            return data
        fields = canonical_fields(cast("dict[str, Any]", data))
        present = tuple(it for it in _NOT_FOLLOWED if fields.get(it))
        return {**_IMPLIED.get(str(fields.get("model_type")), {}), **fields, "not_followed": present}

    @property
    def is_latent(self) -> bool:
        """Whether a layer keeps one latent for all heads of a token instead of a key and a value for each."""
        return self.kv_lora_rank is not None and self.model_type.startswith(_LATENT)

    @property
    def is_checked(self) -> bool:
        """Whether the weights of its architecture were held against another count."""
        return self.model_type in _CHECKED

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer's feed-forward is a mixture of experts."""
        if not self.experts or layer < self.first_k_dense_replace or layer in self.mlp_only_layers:
            return False
        if self.interleave_moe_layer_step:
            return (layer + 1) % self.interleave_moe_layer_step == 0
        if isinstance(self.moe_layer_freq, tuple):
            return layer < len(self.moe_layer_freq) and bool(self.moe_layer_freq[layer])
        if self.moe_layer_freq:
            return layer % self.moe_layer_freq == 0
        return (layer + 1) % self.decoder_sparse_step == 0

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: fewer than attention heads in grouped-query attention."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Values of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def experts(self) -> int:
        """Routed experts of a mixture; 0 for a dense model."""
        return self.num_experts or self.num_local_experts or self.n_routed_experts or 0

    @property
    def is_tied(self) -> bool:
        """Whether the output table is the input's."""
        if self.tie_word_embeddings is not None:
            return self.tie_word_embeddings
        return self.model_type.startswith(_TIED)

    @property
    def value_bytes(self) -> int:
        """Of an unquantised weight and of an activation: vLLM's dtype `auto` serves float32 models in 16 bits."""
        return 2

    @property
    def is_multimodal(self) -> bool:
        """Whether it has parts for images or sound, which the planner's formulas do not cover."""
        return self.vision_config is not None or self.audio_config is not None

    def __hash__(self) -> int:
        """Cheap, and enough to tell models apart: equality compares all fields."""
        return hash(
            (self.model_type, self.num_hidden_layers, self.hidden_size, self.intermediate_size, self.vocab_size)
        )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer's kind of attention, in their order."""
        if self.layer_types is not None:
            return tuple(self._layer(it) for it in self.layer_types[: self.num_hidden_layers])
        if (mixed := self._mixed()) is not None:
            return tuple(Layer(Attention.FULL if it else Attention.RECURRENT) for it in mixed)
        if self.model_type.startswith(_RECURRENT):
            return (Layer(Attention.RECURRENT),) * self.num_hidden_layers
        period = self.sliding_window_pattern or _PERIOD.get(self.model_type, 0)
        windowed = self._windowed()
        if windowed is None:
            return (Layer(Attention.FULL),) * self.num_hidden_layers
        if period:
            return tuple(
                windowed if (index + 1) % period else Layer(Attention.FULL) for index in range(self.num_hidden_layers)
            )
        full = min(self.max_window_layers or 0, self.num_hidden_layers) if self.use_sliding_window else 0
        return (Layer(Attention.FULL),) * full + (windowed,) * (self.num_hidden_layers - full)

    @cached_property
    def has_states(self) -> bool:
        """Whether any layer keeps a state of fixed size."""
        return any(it.attention is Attention.RECURRENT for it in self.layers)

    def _mixed(self) -> tuple[bool, ...] | None:
        """Which layers have attention, of a model in which others keep a state; None: the file says nothing of it."""
        every = range(self.num_hidden_layers)
        if self.layers_block_type is not None:
            return tuple(it != "mamba" for it in self.layers_block_type)
        if self.hybrid_override_pattern is not None:
            return tuple(it == "*" for it in self.hybrid_override_pattern)
        if self.full_attention_interval:
            return tuple((it + 1) % self.full_attention_interval == 0 for it in every)
        if self.attn_layer_period:
            return tuple(it % self.attn_layer_period == self.attn_layer_offset for it in every)
        if self.attn_layer_indices is not None:
            return tuple(it in self.attn_layer_indices for it in every)
        return None

    def _windowed(self) -> Layer | None:
        if self.attention_chunk_size:
            return Layer(Attention.CHUNKED, self.attention_chunk_size)
        if self.sliding_window and self.use_sliding_window is not False:
            return Layer(Attention.SLIDING, self.sliding_window)
        return None

    def _layer(self, name: str) -> Layer:
        match name:
            case "full_attention" | "attention":
                return Layer(Attention.FULL)
            case "sliding_attention":
                return Layer(Attention.SLIDING, self.sliding_window) if self.sliding_window else Layer(Attention.FULL)
            case "chunked_attention":
                size = self.attention_chunk_size
                return Layer(Attention.CHUNKED, size) if size else Layer(Attention.FULL)
            case _:
                return Layer(Attention.RECURRENT)


def read_model_config(text: str | bytes, stored_bytes: int | None = None) -> ModelConfig:
    """Parse a `config.json`; of a multimodal model, the part that is its language model.

    Args:
        text: the file.
        stored_bytes: what the files of the weights hold, if that is known.

    Raises:
        ModelConfigError: it is not one, or lacks what memory depends on.
    """
    try:
        config = ModelConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(it) for it in first["loc"]) or "config.json"
        raise ModelConfigError(f"{where}: {first['msg']}") from error
    return config if stored_bytes is None else config.model_copy(update={"stored_bytes": stored_bytes})


def read_weights_index(text: str | bytes) -> int:
    """What the files of a model hold, in bytes: `metadata.total_size` of its `model.safetensors.index.json`.

    Raises:
        ModelConfigError: it is none.
    """
    try:
        return _Index.model_validate_json(text).metadata.total_size
    except ValidationError as error:
        raise ModelConfigError("model.safetensors.index.json: no metadata.total_size of more than 0 bytes") from error


class _IndexMetadata(BaseModel):
    total_size: int = Field(gt=0)


class _Index(BaseModel):
    metadata: _IndexMetadata
