import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cotune.planning.cards import card
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.planning.sizes import GIB
from cotune.planning.vllm import ArgumentError, Refusal, VllmPlan, VllmSettings, plan_vllm, settings_from_arguments
from cotune_bench.planner import evaluate, read_cases
from hypothesis import given
from hypothesis import strategies as st

RTX_3060, H200 = card("NVIDIA-GeForce-RTX-3060"), card("NVIDIA-H200")
RECORDED = Path(__file__).parents[1] / "data" / "planner"
SHAPE: dict[str, Any] = {
    "torch_dtype": "float16",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "vocab_size": 152064,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
}


def config(**changes: object) -> ModelConfig:
    return read_model_config(json.dumps(SHAPE | changes))


def story(utilization: float, **changes: Any) -> VllmPlan:
    settings = VllmSettings(
        gpu_memory_utilization=utilization, max_model_len=2048, max_num_batched_tokens=2048, max_num_seqs=256
    )
    return plan_vllm(config(), settings, RTX_3060, **changes)


@pytest.mark.parametrize("utilization", [0.40, 0.45])
def test_a_budget_below_the_weights_is_refused_with_the_missing_memory(utilization: float) -> None:
    plan = story(utilization)

    assert plan.refusal is Refusal.NO_CACHE_BLOCKS
    assert "less than weights, activations and libraries" in plan.message
    assert not plan.is_doubtful


def test_the_storys_baseline_starts_with_the_kv_cache_that_was_reported() -> None:
    plan = story(0.50)

    assert plan.refusal is None
    assert abs(plan.kv_cache / GIB - 0.3726) < 0.15


def test_the_reported_kv_cache_is_exactly_the_reported_tokens() -> None:
    predicted = story(0.50)
    reported = round(0.3726 * GIB)

    plan = story(0.50, offset=predicted.kv_cache - reported)

    assert (plan.tokens, plan.tokens // 16, round(plan.concurrency, 2)) == (6976, 436, 3.41)


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.json")), ids=lambda it: it.stem)
def test_recorded_starts_end_as_predicted_and_leave_the_predicted_cache(file: Path) -> None:
    rows = evaluate(*read_cases(file))

    assert [it.name for it in rows if not it.is_right] == []
    assert max(abs(it.error) for it in rows if it.error is not None) < 0.15
    assert max(abs(it.calibrated_error) for it in rows if it.calibrated_error is not None) < 0.05


def test_memory_that_others_hold_is_not_free_when_it_starts() -> None:
    plan = story(0.50, taken=6 * GIB)

    assert plan.refusal is Refusal.CARD_TAKEN
    assert plan.message == "5.75 GiB are free when it starts, and 6.00 GiB are asked for"


def test_a_neighbour_that_gives_much_memory_back_disturbs_the_profiling() -> None:
    assert story(0.50, freed_while_profiling=6 * GIB).refusal is Refusal.PROFILING_DISTURBED
    assert story(0.50, freed_while_profiling=GIB).refusal is None


def test_a_request_that_does_not_fit_is_told_apart_from_no_cache_at_all() -> None:
    plan = plan_vllm(config(), VllmSettings(0.5, max_model_len=32768, max_num_batched_tokens=2048), RTX_3060)

    assert plan.refusal is Refusal.CONTEXT_TOO_LONG
    assert plan.message.startswith("one request of 32768 tokens needs 1.75 GiB of KV cache")


SETTINGS = st.builds(
    VllmSettings,
    gpu_memory_utilization=st.floats(0.01, 1.0),
    max_model_len=st.integers(1, 200_000),
    max_num_batched_tokens=st.integers(1, 65_536),
    max_num_seqs=st.integers(1, 2048),
    block_size=st.sampled_from([8, 16, 32]),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]),
    enforce_eager=st.booleans(),
)


@given(settings=SETTINGS, more=st.floats(0.0, 1.0))
def test_more_utilisation_never_gives_fewer_tokens(settings: VllmSettings, more: float) -> None:
    larger = min(1.0, settings.gpu_memory_utilization + more)
    changed = replace(settings, gpu_memory_utilization=larger)

    assert plan_vllm(config(), changed, H200).tokens >= plan_vllm(config(), settings, H200).tokens


@given(settings=SETTINGS, more=st.integers(0, 100_000))
def test_a_longer_context_never_gives_more_concurrency(settings: VllmSettings, more: int) -> None:
    longer = replace(settings, max_model_len=(settings.max_model_len or 1) + more)

    assert plan_vllm(config(), longer, H200).concurrency <= plan_vllm(config(), settings, H200).concurrency


@given(settings=SETTINGS)
def test_the_budget_is_what_its_parts_are(settings: VllmSettings) -> None:
    plan = plan_vllm(config(), settings, H200)

    assert plan.weights + plan.activations + plan.non_torch + plan.counted_graphs + plan.kv_cache == plan.budget


def test_arguments_are_read_as_vllm_reads_them() -> None:
    words = ["vllm", "serve", "some/model", "--gpu_memory_utilization=0.5", "--max-model-len", "2048", "--port=8000"]

    settings = settings_from_arguments([*words, "--enforce-eager"])

    assert settings == VllmSettings(0.5, max_model_len=2048, enforce_eager=True)


@pytest.mark.parametrize(
    "argument", ["--gpu-memory-utilization=much", "--gpu-memory-utilization=1.5", "--max-model-len=x"]
)
def test_arguments_that_make_no_sense_are_refused(argument: str) -> None:
    with pytest.raises(ArgumentError):
        settings_from_arguments([argument])
