import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cotune.planning.cards import card
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.planning.sizes import GIB, MIB
from cotune.planning.vllm import (
    ArgumentError,
    CompileCache,
    Refusal,
    VllmPlan,
    VllmSettings,
    activation_peak,
    plan_vllm,
    settings_from_arguments,
)
from cotune.planning.vllm_settings import read_version
from cotune_bench.planner import Case, evaluate, largest_calibrated_error, read_cases, tell_caches
from cotune_bench.planner import main as bench_planner
from hypothesis import given
from hypothesis import strategies as st

RTX_3060, H200 = card("NVIDIA-GeForce-RTX-3060"), card("NVIDIA-H200")
RECORDED = Path(__file__).parents[1] / "data" / "planner"
SURFACES = sorted((RECORDED.parent / "surfaces").glob("*/surface.json"))
ALL_STARTS = [*sorted(RECORDED.glob("*.json")), *SURFACES]
SHAPE: dict[str, Any] = {
    "model_type": "qwen2",
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


def name_of(file: Path) -> str:
    return file.parent.name if file.name == "surface.json" else file.stem


def config(**changes: object) -> ModelConfig:
    return read_model_config(json.dumps(SHAPE | changes))


def story(utilization: float, **changes: Any) -> VllmPlan:
    settings = VllmSettings(
        gpu_memory_utilization=utilization,
        max_model_len=2048,
        max_num_batched_tokens=2048,
        max_num_seqs=256,
        version=(0, 11, 0),
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


@pytest.mark.parametrize("file", ALL_STARTS, ids=name_of)
def test_recorded_starts_end_as_predicted_and_leave_the_predicted_cache(file: Path) -> None:
    rows = evaluate(*read_cases(file))

    assert [it.name for it in rows if not it.is_right] == []
    errors = [it.error for it in rows if it.error is not None]
    assert errors
    assert max(map(abs, errors)) < 0.15
    calibrated = [it.calibrated_error for it in rows if it.calibrated_error is not None]
    # A recording of one start has none left to hold its calibration against.
    assert bool(calibrated) == (len(rows) > 1)
    assert max(map(abs, calibrated), default=0) <= 0.03


def test_another_card_and_seven_other_models_are_predicted_to_0_01_gib() -> None:
    rows = evaluate(*read_cases(RECORDED / "h100-2026-11-24.json"))

    assert len(rows) == 24
    assert [it.name for it in rows if it.error is not None and abs(it.error) > 0.01] == []


@pytest.mark.parametrize("file", [it for it in ALL_STARTS if "stt-alone" not in name_of(it)], ids=name_of)
def test_any_one_recorded_start_calibrates_the_others_of_its_model_to_0_03_gib(file: Path) -> None:
    of, cases = read_cases(file)
    largest = largest_calibrated_error(of, cases)

    assert largest is not None
    assert largest <= 0.03


def test_the_starts_of_the_surfaces_are_predicted_beside_whatever_else_was_on_the_card() -> None:
    found = [read_cases(it) for it in SURFACES]
    cases = [case for _, those in found for case in those]
    rows = [row for product, those in found for row in evaluate(product, those)]

    assert len({it.name for it in cases}) == len(cases) == 26
    # One speech server or four of them, and under MPS its own server as well.
    assert {round(it.taken / MIB, -2) for it in cases} == {1000, 9600, 9700}
    assert {it.settings.compile_cache for it in cases} == {CompileCache.COLD, CompileCache.WARM}
    assert not any(it.is_cache_inferred for it in cases)
    assert Counter(it.refusal for it in cases) == {None: 20, Refusal.NO_CACHE_BLOCKS: 6}
    assert max(abs(it.error or 0) for it in rows) < 0.02


def h200() -> tuple[Case, ...]:
    return read_cases(RECORDED / "h200-2026-11-23.json")[1]


def with_cache(case: Case, state: CompileCache, seconds: float | None) -> Case:
    return replace(case, settings=replace(case.settings, compile_cache=state), is_cache_inferred=False, seconds=seconds)


def test_a_further_file_of_another_shape_and_card_is_read_with_what_it_says_of_them(tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    meta: dict[str, Any] = {
        "gpu": "NVIDIA H100 80GB HBM3",
        "gpuTotalBytes": 85_017_755_648,
        "gpuIdleMiB": 1000,
        "models": {},
    }
    meta["models"] = {"wide": LLAMA_8B}
    start = {"model": "wide", "gpuMemoryUtilization": 0.5, "maxModelLen": 4096, "gpuUsedMiBBefore": 1000}
    end = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 102.00 MiB."
    batch = {"maxNumBatchedTokens": 2048, "arguments": ["--kv-cache-dtype", "fp8"]}
    starts = [
        {**start, **batch, "name": "short", "enforceEager": True, "availableKvGiB": 23.0, "gpuUsedMiBBefore": 3048},
        {**start, "name": "warm", "enforceEager": False, "availableKvGiB": 22.0, "compileCache": "warm"},
        {**start, "name": "full", "enforceEager": True, "error": end},
        {**start, "name": "odd", "enforceEager": True, "error": "Segmentation fault"},
    ]
    file.write_text(json.dumps({"meta": meta, "starts": starts}))

    product, (short, warm, full, odd) = read_cases(file)

    assert product.total_bytes == 85_017_755_648
    assert (short.taken, warm.taken) == (2048 * MIB, 0)
    assert (short.settings.max_num_batched_tokens, short.settings.kv_cache_dtype) == (2048, "fp8")
    assert warm.settings.compile_cache is CompileCache.WARM
    assert (short.refusal, full.refusal, odd.refusal) == (None, Refusal.CUDA_OUT_OF_MEMORY, "Unknown")
    assert [it.is_right for it in evaluate(product, (short, warm, full, odd))] == [True, True, False, False]


@given(
    utilization=st.floats(0.3, 0.95),
    shape=st.sampled_from((SHAPE, SHAPE | {"quantization_config": None})),
    tokens=st.sampled_from((2048, 8192, 16384)),
)
def test_a_colder_compilation_cache_never_leaves_more_tokens(
    utilization: float, shape: dict[str, Any], tokens: int
) -> None:
    settings = VllmSettings(utilization, max_model_len=2048, max_num_batched_tokens=tokens)
    cold, unknown, warm = (
        plan_vllm(of(shape), replace(settings, compile_cache=it), H200).tokens
        for it in (CompileCache.COLD, CompileCache.UNKNOWN, CompileCache.WARM)
    )

    assert cold <= unknown <= warm


def test_without_a_word_on_the_compilation_cache_the_bound_is_twice_as_wide() -> None:
    unknown = [with_cache(it, CompileCache.UNKNOWN, None) for it in h200()]

    assert [it.settings.compile_cache for it in tell_caches(unknown)] == [CompileCache.UNKNOWN] * len(unknown)
    largest = largest_calibrated_error(H200, unknown)
    assert largest is not None
    assert 0.03 < largest < 0.065


def test_the_longer_compiled_starts_are_taken_for_those_with_a_cold_cache_unless_it_is_recorded() -> None:
    compiled = {it.name: it for it in h200() if not it.settings.enforce_eager}
    states = {name: str(it.settings.compile_cache) for name, it in compiled.items()}

    assert states == {"comp-0.5-cold": "cold", "comp-0.5": "cold", "comp-0.05": "warm", "mps-comp-0.5": "warm"}
    recorded = [with_cache(it, CompileCache.WARM, it.seconds) for it in compiled.values()]
    assert {it.settings.compile_cache for it in tell_caches(recorded)} == {CompileCache.WARM}
    alike = [with_cache(it, CompileCache.UNKNOWN, 60.0) for it in compiled.values()]
    assert {it.settings.compile_cache for it in tell_caches(alike)} == {CompileCache.COLD}
    timeless = [with_cache(it, CompileCache.UNKNOWN, None) for it in compiled.values()]
    assert {it.settings.compile_cache for it in tell_caches(timeless)} == {CompileCache.UNKNOWN}


def test_a_model_or_an_argument_that_is_not_understood_spoils_no_other_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cotune_bench.table._FOLDER", tmp_path)
    file = tmp_path / "odd.json"
    exotic = LLAMA_8B | {"quantization_config": {"quant_method": "exotic"}}
    models = {"known": LLAMA_8B, "shapeless": {"model_type": "odd"}, "exotic": exotic}
    start = {"gpuMemoryUtilization": 0.5, "maxModelLen": 4096, "enforceEager": True, "availableKvGiB": 40.0}
    starts = [{**start, "name": it, "model": it} for it in (*models, "absent")]
    starts += [{**start, "name": "argument", "model": "known", "arguments": ["--block-size=x"]}]
    starts += [{"name": "silent end", "model": "known", "started": False}]
    meta = {"gpu": "NVIDIA Unheard Of", "gpuTotalGiB": 139.8, "models": models}
    file.write_text(json.dumps({"meta": meta, "starts": starts}))
    monkeypatch.setattr("sys.argv", ["bench-planner", str(file)])

    assert bench_planner() == 0

    said = capsys.readouterr()
    assert "no data on card NVIDIA-Unheard-Of" in said.err
    found = {it["name"]: it for it in json.loads((tmp_path / "planner.json").read_text())["starts"]}
    assert found["known"]["predicted"] is not None
    assert {name: it["doubts"][0] for name, it in found.items() if it["predicted"] is None} == {
        "shapeless": "num_hidden_layers: Field required",
        "exotic": "quantization_config.quant_method 'exotic' is not known",
        "absent": "meta.models has no absent",
        "argument": "argument --block-size: invalid int value: 'x'",
    }
    assert "wrong 'fits' 1, wrong 'does not fit' 0, another refusal 0, not predicted 4" in said.out


LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
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
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
GEMMA_2_9B: dict[str, Any] = {
    "model_type": "gemma2",
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}
FAMILIES = (SHAPE, LLAMA_8B, MIXTRAL, GEMMA_2_9B)


def of(shape: dict[str, Any], **changes: object) -> ModelConfig:
    return read_model_config(json.dumps(shape | changes))


def peak(shape: dict[str, Any], **settings: Any) -> int:
    """MiB of the profile run on an H200, without cuBLAS's 32."""
    size = activation_peak(of(shape), replace(VllmSettings(enforce_eager=True), **settings), H200).assumed
    return (size - 32 * MIB) // MIB


def test_the_profile_run_holds_what_the_models_layers_hold_at_once() -> None:
    tokens = 8192 * 2 / MIB

    # Hidden states, residual and input beside gate, up and product: the gate is gone before Llama's down projection.
    assert peak(LLAMA_8B) == (3 * 4096 + 3 * 14336) * tokens
    # Qwen 2 keeps it: one more hidden state beside it.
    assert peak(LLAMA_8B | {"model_type": "qwen2"}) == (4 * 4096 + 3 * 14336) * tokens
    # A narrow feed-forward leaves the peak to the projections around attention.
    assert peak(LLAMA_8B | {"intermediate_size": 1024}) == (3 * 4096 + 2 * 4096 + 2 * 1024) * tokens
    assert peak(LLAMA_8B, max_num_batched_tokens=4096) == peak(LLAMA_8B) // 2


@pytest.mark.parametrize(("cache", "buffer"), [("cold", 60), ("unknown", 30), ("warm", 0)])
def test_a_compiled_start_holds_one_hidden_state_less_and_with_a_cold_cache_the_buffer_of_the_timings_more(
    cache: str, buffer: int
) -> None:
    shape = LLAMA_8B | {"model_type": "qwen2", "vocab_size": 32_000}

    assert peak(shape, enforce_eager=False, compile_cache=CompileCache(cache)) == peak(shape) - 64 + buffer
    assert peak(shape, enforce_eager=True, compile_cache=CompileCache(cache)) == peak(shape)


def test_compiling_holds_a_second_table_where_that_is_more_than_a_pass_through_the_layers() -> None:
    """A start with a cold cache of the recorded Qwen3 4B held 189 MiB more than one with a warm cache."""
    recorded = json.loads((RECORDED / "h100-2026-11-24.json").read_text())["meta"]["models"]["qwen3-4b"]
    h100 = card("NVIDIA-H100-80GB-HBM3")
    cold, unknown, warm = (
        activation_peak(of(recorded), VllmSettings(max_num_seqs=32, compile_cache=it), h100).assumed
        for it in (CompileCache.COLD, CompileCache.UNKNOWN, CompileCache.WARM)
    )

    assert cold == (151_936 * 2560 + 2 * 8192 * 2560) * 2
    assert (cold - warm) / MIB == pytest.approx(189, abs=2.25)  # To within a block of the KV cache.
    assert unknown == (cold + warm) // 2


def test_before_0_11_1_no_second_table_was_held_for_compiling() -> None:
    """The story's server: with a later one the same share of the card leaves nothing in a fresh container."""
    older, later = (
        plan_vllm(
            config(),
            VllmSettings(0.5, 2048, 2048, 256, compile_cache=CompileCache.COLD, version=it),
            RTX_3060,
        )
        for it in ((0, 11, 0), (0, 11, 1))
    )

    assert older.refusal is None
    assert later.refusal is Refusal.NO_CACHE_BLOCKS
    assert later.activations == (152_064 + 2 * 2048) * 3584 * 2


@pytest.mark.parametrize(
    ("text", "version"),
    [("v0.11.0", (0, 11, 0)), ("0.26", (0, 26, 0)), ("v0.12.1-x86_64", (0, 12, 1)), ("latest", None), ("2025.1", None)],
)
def test_versions_are_read_where_there_is_one(text: str, version: tuple[int, ...] | None) -> None:
    assert read_version(text) == version


def test_logits_decide_where_sequences_are_many_and_tokens_few() -> None:
    states = (1024 + 1024) * 4096 * 2

    few = {"max_num_batched_tokens": 1024, "max_num_seqs": 1024}
    assert peak(LLAMA_8B, **few) == (states + 1024 * 128256 * 2) // MIB
    # The older runner, which serves Mixtral, copies them to float32, to probabilities and to noise.
    assert peak(MIXTRAL | {"vocab_size": 128256}, **few) == (states + 1024 * 128256 * (2 + 12)) // MIB
    # A soft cap makes a second copy.
    assert peak(LLAMA_8B | {"final_logit_softcapping": 30.0}, **few) == (states + 1024 * 128256 * 4) // MIB


def test_defaults_for_batches_follow_the_card_and_the_a100_is_not_a_large_one() -> None:
    settings = VllmSettings()

    assert (settings.batched_tokens(H200), settings.sequences(H200)) == (8192, 1024)
    assert settings.batched_tokens(card("NVIDIA-A100-SXM4-80GB")) == 2048
    assert VllmSettings(max_num_batched_tokens=512).sequences(H200) == 512


def test_graphs_are_subtracted_only_by_the_runner_that_estimates_them() -> None:
    dense, mixture = (plan_vllm(of(it), VllmSettings(), H200) for it in (LLAMA_8B, MIXTRAL))

    assert dense.counted_graphs == 0
    assert mixture.counted_graphs > 0.5 * GIB
    assert plan_vllm(of(MIXTRAL), VllmSettings(enforce_eager=True), H200).counted_graphs == 0


def test_counts_of_every_token_for_every_sequence_are_held_beyond_the_budget() -> None:
    few, many = (
        plan_vllm(of(LLAMA_8B), VllmSettings(0.9, 2048, max_num_seqs=it, enforce_eager=True), H200) for it in (64, 1024)
    )

    assert few.kv_cache == many.kv_cache
    assert (many.outside - few.outside) / (960 * 128256 * 4) == pytest.approx(1, abs=0.12)


def test_the_recorded_overshoot_is_what_is_held_beyond_the_budget() -> None:
    """0.65 to 0.8 GiB without graphs, 1.1 to 1.3 with them, on the H200."""
    recorded = json.loads((RECORDED / "h200-2026-11-23.json").read_text())["meta"]["models"]["llm-1b4"]

    eager, compiled = (plan_vllm(of(recorded), VllmSettings(0.5, 4096, enforce_eager=it), H200) for it in (True, False))

    assert 0.65 <= eager.outside / GIB <= 0.8
    assert 1.1 <= compiled.outside / GIB <= 1.3


def test_weights_larger_than_the_card_run_out_of_memory_before_vllm_can_count() -> None:
    plan = plan_vllm(of(LLAMA_8B), VllmSettings(0.95, 2048), RTX_3060)

    assert plan.refusal is Refusal.CUDA_OUT_OF_MEMORY
    assert plan.message.startswith("weights and the profile run need 15.")


def test_a_budget_of_the_whole_card_leaves_no_room_for_graphs() -> None:
    settings = VllmSettings(0.995, 4096, kv_cache_memory_bytes=123 * GIB)

    plan = plan_vllm(of(LLAMA_8B), settings, H200)

    assert plan.refusal is Refusal.CUDA_OUT_OF_MEMORY
    assert plan.message.startswith("weights, KV cache and graphs need")


def test_a_given_kv_cache_is_taken_whatever_the_utilisation_says() -> None:
    plan = plan_vllm(of(LLAMA_8B), VllmSettings(0.01, 8192, kv_cache_memory_bytes=GIB), H200)

    assert (plan.refusal, plan.tokens) == (None, 8192)
    assert plan.kv_cache == GIB


def test_the_longest_request_that_fits_is_found_and_is_the_one_that_vllm_recorded() -> None:
    """At 0.04 of the H200 the recorded start estimated 79,008 tokens."""
    recorded = json.loads((RECORDED / "h200-2026-11-23.json").read_text())["meta"]["models"]["llm-1b4"]

    plan = plan_vllm(
        of(recorded),
        settings_from_arguments(["--gpu-memory-utilization=0.04", "--enforce-eager", "--max-model-len=auto"]),
        H200,
    )

    assert plan.max_model_len == pytest.approx(79_008, abs=64)
    assert plan.refusal is None


def test_neighbours_that_take_memory_meanwhile_shrink_the_cache_by_just_that() -> None:
    alone, beside = story(0.50), story(0.50, taken_while_profiling=GIB // 4)

    assert alone.kv_cache - beside.kv_cache == GIB // 4
    assert story(0.50, taken_while_profiling=GIB).refusal is Refusal.NO_CACHE_BLOCKS
    assert story(0.50, freed_while_profiling=GIB).kv_cache - alone.kv_cache == GIB


def test_what_the_formulas_leave_out_is_a_doubt_with_its_name() -> None:
    hybrid = of(LLAMA_8B, layer_types=["linear_attention"] * 24 + ["full_attention"] * 8)

    assert "state of fixed size" in plan_vllm(hybrid, VllmSettings(), H200).doubts[0]
    assert "images" in plan_vllm(of(LLAMA_8B, vision_config={"depth": 1}), VllmSettings(), H200).doubts[0]
    assert "draft" in plan_vllm(of(LLAMA_8B), VllmSettings(speculative_config="{}"), H200).doubts[0]
    assert plan_vllm(of(LLAMA_8B), VllmSettings(), H200).doubts == ()
    assert plan_vllm(of(GEMMA_2_9B), VllmSettings(), H200).doubts == ()


def test_a_start_near_a_bound_says_which() -> None:
    assert "nearly fill the budget" in story(0.50, offset=story(0.50).kv_cache - GIB // 16).doubts[0]


def test_weights_that_are_quantised_while_loaded_are_counted_as_such() -> None:
    plain, fp8 = (plan_vllm(of(LLAMA_8B), VllmSettings(quantization=it), H200).weights for it in (None, "fp8"))

    assert (plain - fp8) / GIB == pytest.approx(6.5, abs=0.1)


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
    enable_lora=st.booleans(),
    disable_hybrid_kv_cache_manager=st.booleans(),
    no_async_scheduling=st.booleans(),
)
MODELS = st.sampled_from([of(it) for it in FAMILIES])


@given(model=MODELS, settings=SETTINGS, more=st.floats(0.0, 1.0))
def test_more_utilisation_never_gives_fewer_tokens(model: ModelConfig, settings: VllmSettings, more: float) -> None:
    larger = min(1.0, settings.gpu_memory_utilization + more)
    changed = replace(settings, gpu_memory_utilization=larger)

    assert plan_vllm(model, changed, H200).tokens >= plan_vllm(model, settings, H200).tokens


@given(model=MODELS, settings=SETTINGS, more=st.integers(0, 100_000))
def test_a_longer_context_never_gives_more_concurrency(model: ModelConfig, settings: VllmSettings, more: int) -> None:
    longer = replace(settings, max_model_len=(settings.max_model_len or 1) + more)

    assert plan_vllm(model, longer, H200).concurrency <= plan_vllm(model, settings, H200).concurrency


@given(model=MODELS, settings=SETTINGS)
def test_the_budget_is_what_its_parts_are(model: ModelConfig, settings: VllmSettings) -> None:
    plan = plan_vllm(model, settings, H200)

    assert plan.weights + plan.activations + plan.non_torch + plan.counted_graphs + plan.kv_cache == plan.budget


def test_arguments_are_read_as_vllm_reads_them() -> None:
    words = ["vllm", "serve", "some/model", "--gpu_memory_utilization=0.5", "--max-model-len", "2048", "--port=8000"]

    settings = settings_from_arguments([*words, "--enforce-eager", "--max-num-batched-tokens=4K", "--enable_lora"])

    assert settings == VllmSettings(
        0.5, max_model_len=2048, max_num_batched_tokens=4096, enforce_eager=True, enable_lora=True
    )


@pytest.mark.parametrize(
    "argument", ["--gpu-memory-utilization=much", "--gpu-memory-utilization=1.5", "--max-model-len=x"]
)
def test_arguments_that_make_no_sense_are_refused(argument: str) -> None:
    with pytest.raises(ArgumentError):
        settings_from_arguments([argument])
