"""Published parameter counts and caches: the formulas are not fitted to one family."""

import json
from typing import Any

import pytest
from cotune.planning.kv_cache import is_hybrid, kv_bytes_per_token
from cotune.planning.model_config import ModelConfigError, read_model_config
from cotune.planning.weights import weights

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
}
MIXTRAL: dict[str, Any] = {
    **LLAMA_8B,
    "model_type": "mixtral",
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "num_local_experts": 8,
}
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "torch_dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 163840,
    "vocab_size": 102400,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def of(shape: dict[str, Any], **changes: object) -> Any:
    return read_model_config(json.dumps(shape | changes))


@pytest.mark.parametrize(
    ("shape", "billions"),
    [(LLAMA_8B, 8.030), (MIXTRAL, 46.703), (DEEPSEEK_V2_LITE, 15.706)],
    ids=["dense", "mixture", "latent attention"],
)
def test_the_weights_are_the_published_number_of_parameters(shape: dict[str, Any], billions: float) -> None:
    assert weights(of(shape)).parameters / 2 / 1e9 == pytest.approx(billions, rel=0.002)


def test_quantised_weights_keep_embeddings_and_scales() -> None:
    plain, awq = of(LLAMA_8B), of(LLAMA_8B, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})

    assert weights(awq).embeddings == weights(plain).embeddings
    assert weights(awq).linear / weights(plain).linear == pytest.approx((0.5 + 2.5 / 128) / 2)
    assert weights(of(LLAMA_8B, quantization_config={"quant_method": "fp8"})).linear * 2 == weights(plain).linear


@pytest.mark.parametrize(
    ("shape", "cache_dtype", "size"),
    [
        (LLAMA_8B, "auto", 131_072),  # 32 layers, a key and a value, 8 heads of 128, 2 bytes
        (LLAMA_8B, "fp8", 65_536),
        (DEEPSEEK_V2_LITE, "auto", 27 * (512 + 64) * 2),
    ],
)
def test_a_tokens_cache_follows_from_heads_and_layers(shape: dict[str, Any], cache_dtype: str, size: int) -> None:
    assert kv_bytes_per_token(of(shape), cache_dtype) == size


def test_layers_without_attention_keep_nothing_for_a_token_and_make_a_model_hybrid() -> None:
    hybrid = of(LLAMA_8B, layer_types=["linear_attention"] * 24 + ["full_attention"] * 8)

    assert is_hybrid(hybrid)
    assert not is_hybrid(of(LLAMA_8B))
    assert kv_bytes_per_token(hybrid) * 4 == kv_bytes_per_token(of(LLAMA_8B))


def test_tensor_parallelism_spreads_the_weights() -> None:
    assert weights(of(LLAMA_8B), 4).linear * 4 == weights(of(LLAMA_8B)).linear


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "config.json"),
        (json.dumps({"hidden_size": 1}), "num_hidden_layers: Field required"),
        (json.dumps(LLAMA_8B | {"hidden_size": 0}), "hidden_size: Input should be greater than 0"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_field(text: str, what: str) -> None:
    with pytest.raises(ModelConfigError, match=what):
        read_model_config(text)


def test_an_unknown_quantisation_is_refused_and_not_guessed() -> None:
    with pytest.raises(ModelConfigError, match="'exotic' is not known"):
        weights(of(LLAMA_8B, quantization_config={"quant_method": "exotic"}))
