"""Files of many families: their names, what they imply, and what is said where the formulas do not follow."""

import json
from typing import Any

import pytest
from cotune.planning.activations import activation_peak, latent_workspace_tokens, uses_second_runner
from cotune.planning.cards import card
from cotune.planning.kv_cache import kv_bytes_per_layer, kv_bytes_per_token
from cotune.planning.model_config import Attention, ModelConfig, ModelConfigError, read_model_config, read_weights_index
from cotune.planning.sizes import GIB, MIB
from cotune.planning.vllm import VllmSettings, plan_vllm
from cotune.planning.weights import computed_bytes, weights

H200 = card("NVIDIA-H200")
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "vocab_size": 128256,
}
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 163840,
    "vocab_size": 102400,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def of(shape: dict[str, Any], **changes: object) -> ModelConfig:
    return read_model_config(json.dumps(shape | changes))


def doubts(config: ModelConfig, **settings: Any) -> str:
    return "; ".join(plan_vllm(config, VllmSettings(0.9, 4096, **settings), H200).doubts)


def test_gpt_2_is_read_by_its_own_names_with_its_table_of_positions_and_no_rotary_table() -> None:
    """Published: 124 million parameters."""
    published = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}

    found = weights(of({**published, "vocab_size": 50257, "n_inner": None}))

    assert found.parameters / 2 / 1e6 == pytest.approx(124.4, rel=0.002)
    assert found.rotary == 0


def test_falcon_has_one_head_of_keys_for_all_unless_it_is_of_the_newer_architecture() -> None:
    old = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    new = {**old, "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8, "new_decoder_architecture": True}

    assert of(old, vocab_size=65024, multi_query=True).kv_heads == 1
    assert of(new, vocab_size=65024, multi_query=True).kv_heads == 8


@pytest.mark.parametrize("part", ["text_config", "llm_config", "language_config"])
def test_the_language_model_of_a_model_of_several_parts_is_found(part: str) -> None:
    found = of({"model_type": "several", "vision_config": {"depth": 1}, part: LLAMA})

    assert (found.model_type, found.num_hidden_layers) == ("llama", 32)
    assert "images" in doubts(found)


def test_parts_within_parts_are_found() -> None:
    found = of({"model_type": "omni", "thinker_config": {"audio_config": {"d": 1}, "text_config": LLAMA}})

    assert (found.num_hidden_layers, found.is_multimodal) == (32, True)


@pytest.mark.parametrize(
    ("changes", "mixtures"),
    [
        ({"num_experts": 8}, [True] * 4),
        ({"num_experts": 8, "decoder_sparse_step": 2}, [False, True, False, True]),
        ({"num_experts": 8, "mlp_only_layers": [1]}, [True, False, True, True]),
        ({"n_routed_experts": 8, "first_k_dense_replace": 2}, [False, False, True, True]),
        ({"n_routed_experts": 8, "moe_layer_freq": [0, 1, 1, 0]}, [False, True, True, False]),
        ({"num_local_experts": 8, "interleave_moe_layer_step": 2}, [False, True, False, True]),
        ({"moe_num_experts": 8, "moe_layer_start_index": 3}, [False, False, False, True]),
        ({}, [False] * 4),
    ],
)
def test_which_layers_are_mixtures_is_what_the_file_says(changes: dict[str, Any], mixtures: list[bool]) -> None:
    config = of(LLAMA, num_hidden_layers=4, **changes)

    assert [config.is_mixture(it) for it in range(4)] == mixtures


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_block_type": ["mamba", "mamba", "hybrid", "mamba"]},
        {"hybrid_override_pattern": "M-*-"},
        {"attn_layer_period": 4, "attn_layer_offset": 2},
        {"attn_layer_indices": [2]},
        {"layer_types": ["linear_attention", "linear_attention", "full_attention", "conv"]},
    ],
    ids=str,
)
def test_layers_that_keep_a_state_are_told_from_those_with_attention(changes: dict[str, Any]) -> None:
    config = of(LLAMA, num_hidden_layers=4, **changes)

    assert [it.attention for it in config.layers].index(Attention.FULL) == 2
    assert sum(it.attention is Attention.FULL for it in config.layers) == 1
    assert "state of fixed size" in doubts(config)
    assert not uses_second_runner(config)


def test_every_fourth_layer_has_attention_where_the_interval_is_four() -> None:
    config = of(LLAMA, num_hidden_layers=8, full_attention_interval=4)

    assert [index for index, it in enumerate(config.layers) if it.attention is Attention.FULL] == [3, 7]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "brand_new"}, "brand_new was never held against another count"),
        ({"model_type": None}, "of no model_type"),
        ({"num_kv_shared_layers": 4}, "do not follow num_kv_shared_layers"),
        ({"index_topk": 2048}, "do not follow index_topk"),
        ({"vocab_size_per_layer_input": 1000}, "do not follow vocab_size_per_layer_input"),
    ],
)
def test_what_the_formulas_were_not_written_on_is_doubtful_by_its_name(changes: dict[str, Any], words: str) -> None:
    assert words in doubts(of(LLAMA, **changes))
    assert doubts(of(LLAMA)) == ""


@pytest.mark.parametrize("fields", [{"model_type": "mamba", "hidden_size": 768}, {"n_heads": [1, 2]}])
def test_a_shape_that_cannot_be_read_is_refused_and_not_guessed(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelConfigError):
        of(fields)


def test_a_latent_is_kept_whole_on_every_card_and_only_where_vllm_serves_the_model_so() -> None:
    latent, minicpm = of(DEEPSEEK_V2_LITE), of(DEEPSEEK_V2_LITE, model_type="minicpm3")

    assert [kv_bytes_per_layer(latent, cards=it) for it in (1, 4)] == [(512 + 64) * 2] * 2
    assert kv_bytes_per_layer(minicpm) == 2 * 16 * (128 + 64) * 2


def test_the_profile_run_of_latent_attention_expands_the_longest_prefixes() -> None:
    """Of vLLM 0.26's source, held against no recording: 65,536 tokens, 16 heads, keys and values of 128."""
    short, long = (VllmSettings(0.9, it, max_num_seqs=256, enforce_eager=True) for it in (4096, 163_840))
    config = of(DEEPSEEK_V2_LITE)

    assert latent_workspace_tokens(config, short, H200) == 8 * 4096
    assert latent_workspace_tokens(config, long, H200) == 65_536
    expanded = 65_536 * 16 * (128 + 128) * 2
    around = 8192 * (2 * 2048 + 2 * 512 + 64 + 16 * (192 + 128)) * 2
    assert activation_peak(config, long, H200).assumed == expanded + around + 32 * MIB
    gathered = 65_536 * (512 + 64) * 2
    outside = [plan_vllm(config, it, H200).outside for it in (short, long)]
    assert outside[1] - outside[0] >= gathered - 8 * 4096 * (512 + 64) * 2


def test_a_quantised_latent_projection_is_kept_in_16_bits_as_well() -> None:
    plain = weights(of(DEEPSEEK_V2_LITE))
    fp8 = weights(of(DEEPSEEK_V2_LITE, quantization_config={"quant_method": "fp8"}))

    assert (plain.absorbed, fp8.absorbed) == (0, 27 * 512 * 16 * (128 + 128) * 2)
    assert fp8.total < plain.total


@pytest.mark.parametrize(
    ("changes", "per_token"),
    [
        ({"head_dim": 256}, 32 * 2 * 8 * 256 * 2),
        ({"num_key_value_heads": None}, 32 * 2 * 32 * 128 * 2),
        ({"num_key_value_heads": 1}, 32 * 2 * 1 * 128 * 2),
    ],
)
def test_a_tokens_cache_follows_the_heads_and_not_the_hidden_size(changes: dict[str, Any], per_token: int) -> None:
    assert kv_bytes_per_token(of(LLAMA, **changes)) == per_token
    assert kv_bytes_per_token(of(LLAMA, **changes), "fp8_e4m3") * 2 == per_token


def test_what_the_files_hold_takes_the_place_of_what_the_formulas_say() -> None:
    text = json.dumps(LLAMA)
    computed = computed_bytes(read_model_config(text))

    more = read_model_config(text, computed + 64 * MIB)
    less = read_model_config(text, computed - 64 * MIB)

    assert weights(more).parameters == computed + 64 * MIB
    assert weights(less).parameters == computed - 64 * MIB
    assert weights(more, 2).parameters == weights(read_model_config(text), 2).parameters + 32 * MIB
    assert doubts(more) == ""


def test_files_that_hold_much_else_cast_doubt_and_those_in_32_bits_are_served_in_16() -> None:
    text = json.dumps(LLAMA)
    computed = computed_bytes(read_model_config(text))

    assert "and the formulas say 14.96" in doubts(read_model_config(text, computed * 2))
    doubled = read_model_config(json.dumps(LLAMA | {"torch_dtype": "float32"}), computed * 2)
    assert weights(doubled).parameters == computed
    assert doubts(doubled) == ""


@pytest.mark.parametrize("text", ["{}", '{"metadata": {"total_size": 0}}', "[", '{"metadata": {}}'])
def test_an_index_without_a_size_is_refused(text: str) -> None:
    with pytest.raises(ModelConfigError, match=r"total_size of more than 0"):
        read_weights_index(text)
    assert read_weights_index('{"metadata": {"total_size": 12}, "weight_map": {}}') == 12


def test_weights_that_are_quantised_while_loaded_are_not_those_of_the_files() -> None:
    stored = read_model_config(json.dumps(LLAMA), 16 << 30)

    quantised = plan_vllm(stored, VllmSettings(0.9, 4096, quantization="fp8"), H200)

    assert quantised.weights < 10 << 30


@pytest.mark.parametrize(("shape", "margin"), [(LLAMA, 0.15), (DEEPSEEK_V2_LITE, 0.5)], ids=["dense", "latent mixture"])
def test_kinds_of_models_that_no_start_was_recorded_of_are_doubtful_further_from_a_bound(
    shape: dict[str, Any], margin: float
) -> None:
    known = plan_vllm(of(shape), VllmSettings(0.9, 64, enforce_eager=True), H200)

    def left(kv_cache_gib: float) -> str:
        offset = known.kv_cache - round(kv_cache_gib * GIB)
        settings = VllmSettings(0.9, 64, enforce_eager=True)
        return "; ".join(plan_vllm(of(shape), settings, H200, offset=offset).doubts)

    assert "nearly fill the budget" in left(margin - 0.01)
    assert "nearly fill the budget" not in left(margin + 0.01)


def test_heads_that_are_fewer_than_cards_are_repeated_and_a_latents_projection_is_whole_on_each() -> None:
    eight, one = of(LLAMA), of(LLAMA, num_key_value_heads=1)
    repeated = weights(one, 4).linear - weights(one).linear / 4

    assert weights(eight, 4).linear * 4 == weights(eight).linear
    assert repeated == pytest.approx(32 * 2 * 4096 * 128 * (1 - 1 / 4) * 2)
    latent = of(DEEPSEEK_V2_LITE)
    whole = 27 * 2048 * (512 + 64) + 26 * 2048 * 64  # The router too.
    assert weights(latent, 4).linear - weights(latent).linear / 4 == pytest.approx(whole * (1 - 1 / 4) * 2)


def test_a_server_on_several_cards_holds_buffers_for_what_they_exchange() -> None:
    alone, shared = (
        plan_vllm(of(LLAMA), VllmSettings(0.9, 4096, enforce_eager=True, tensor_parallel_size=it), H200)
        for it in (1, 4)
    )

    assert shared.outside - alone.outside == 512 * MIB
    assert shared.weights < alone.weights / 3.5
    assert shared.tokens > 4 * alone.tokens
