"""What `config.json` files call things: older and other names for the fields that nearly all models use today."""

from collections.abc import Mapping
from typing import Any, cast

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "text_model_config", "thinker_config")
"""Where a model of several parts keeps its language model."""

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model", "model_dim"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups"),
    "head_dim": ("kv_channels", "attention_head_dim"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"),
    "vocab_size": ("padded_vocab_size",),
    "num_experts": ("moe_num_experts",),
    "num_experts_per_tok": ("moe_topk", "moe_k", "num_experts_per_token", "top_k_experts"),
    "n_shared_experts": ("moe_num_shared_experts", "num_shared_experts", "num_shared_expert"),
    "shared_expert_intermediate_size": ("shared_intermediate_size", "moe_shared_expert_intermediate_size"),
    "first_k_dense_replace": ("moe_layer_start_index",),
}
_FOUR_TIMES_AS_WIDE = ("gpt2", "gpt_bigcode", "bloom", "falcon", "mpt", "gptj")
"""Model types whose feed-forward is four times as wide as the rest where the file says nothing of it."""
_WITHOUT_POSITIONS = {"bloom": 2048, "falcon": 2048}
"""Model types whose files state no greatest length, and the one that they were trained for."""


def canonical_fields(published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the language model, under the names of today; fields that are null are left out."""
    outer = {key: value for key, value in published.items() if value is not None}
    fields = outer
    part = _text_part(outer)
    if part is not None and not _is_flat(outer):
        fields = {**outer, **canonical_fields(part)}
    for name, others in _OTHER_NAMES.items():
        found = next((fields[it] for it in others if it in fields), None)
        if found is not None:
            fields = {name: found, **fields}
    if "dtype" in fields:
        fields = {"torch_dtype": fields["dtype"], **fields}
    return {**_implied(fields), **fields}


def _text_part(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next(
        (cast("Mapping[str, Any]", it) for name in _TEXT_PARTS if isinstance(it := fields.get(name), dict)), None
    )


def _is_flat(fields: Mapping[str, Any]) -> bool:
    return any(it in fields for it in ("num_hidden_layers", *_OTHER_NAMES["num_hidden_layers"]))


def _implied(fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(fields.get("model_type"))
    implied: dict[str, Any] = {}
    if kind in _FOUR_TIMES_AS_WIDE and isinstance(fields.get("hidden_size"), int):
        implied["intermediate_size"] = 4 * fields["hidden_size"]
    if kind in _WITHOUT_POSITIONS:
        implied["max_position_embeddings"] = _WITHOUT_POSITIONS[kind]
    if fields.get("multi_query") is True and not fields.get("new_decoder_architecture"):
        implied["num_key_value_heads"] = 1
    return implied
