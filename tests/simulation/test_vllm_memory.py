"""vLLM's arithmetic and its words, against what was measured and reported of the real one."""

import re

import pytest
from cotune_simulation.figures import GIB, MIB
from cotune_simulation.vllm.arguments import parse_arguments
from cotune_simulation.vllm.figures import model_figures
from cotune_simulation.vllm.memory import check_free_memory, check_profiling, engine_sizes, kv_blocks

STORY = ("Qwen/Qwen2.5-7B-Instruct-AWQ", "NVIDIA-GeForce-RTX-3060")
MEASURED = ("llm-1b4", "NVIDIA-H200")
H200_TOTAL = 143_156 * MIB


def tokens(model: str, card: str, utilization: float, total: int, *options: str) -> int:
    figures = model_figures(model, card)
    sizes = engine_sizes(parse_arguments(["serve", model, *options]), figures)
    available = int(utilization * total) - figures.weights_bytes - sizes.activation_bytes - figures.non_torch_bytes
    return kv_blocks(sizes, available, figures.version) * sizes.block_size


def test_the_story_leaves_436_blocks_at_one_half() -> None:
    figures = model_figures(*STORY)
    sizes = engine_sizes(parse_arguments(["serve", STORY[0], "--max-model-len", "2048"]), figures)
    assert sizes.kv_bytes_per_token == 57_344
    assert tokens(*STORY, 0.5, 12 * GIB, "--max-model-len=2048") == 436 * 16 == 6976
    assert round(436 * sizes.block_bytes / GIB, 4) == 0.3726
    assert round(6976 / 2048, 2) == 3.41


@pytest.mark.parametrize("utilization", [0.40, 0.45])
def test_the_story_leaves_nothing_below_one_half(utilization: float) -> None:
    with pytest.raises(ValueError, match=re.escape("No available memory for the cache blocks. Try increasing")):
        tokens(*STORY, utilization, 12 * GIB, "--max-model-len=2048")


@pytest.mark.parametrize(("utilization", "measured"), [(0.05, 131_360), (0.1, 393_120), (0.5, 2_485_968)])
def test_the_measured_card_has_as_many_tokens_as_measured(utilization: float, measured: int) -> None:
    # 0.01 GiB are 374 tokens of this model, and the measured activation peak varied by 0.06 GiB between starts.
    assert tokens(*MEASURED, utilization, H200_TOTAL) == pytest.approx(measured, abs=6 * 374)


def test_an_fp8_cache_holds_twice_as_many_tokens() -> None:
    full = tokens(*MEASURED, 0.1, H200_TOTAL)
    assert tokens(*MEASURED, 0.1, H200_TOTAL, "--kv-cache-dtype", "fp8") == pytest.approx(2 * full, abs=32)


def test_too_long_a_model_is_refused_in_the_measured_words() -> None:
    with pytest.raises(ValueError, match="max seq len") as refused:
        tokens(*MEASURED, 0.04, H200_TOTAL, "--max-model-len", "131072")
    text = re.sub(r"estimated maximum model length is \d+", "estimated maximum model length is N", str(refused.value))
    assert text == (
        "To serve at least one request with the model's max seq len (131072), (3.5 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (2.11 GiB). Based on the available memory, the estimated maximum "
        "model length is N. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU "
        "backend) or decreasing `max_model_len` when initializing the engine. See "
        "https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
    )


def test_a_card_already_taken_is_refused_in_the_measured_words() -> None:
    with pytest.raises(ValueError, match="Free memory") as refused:
        check_free_memory(0.9, int(98.77 * GIB), H200_TOTAL)
    assert str(refused.value) == (
        "Free memory on device cuda:0 (98.77/139.8 GiB) on startup is less than desired GPU memory utilization "
        "(0.9, 125.82 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )


def test_memory_that_a_neighbour_gives_back_is_an_error_in_the_measured_words() -> None:
    check_profiling(int(108.77 * GIB), int(104.0 * GIB))
    with pytest.raises(AssertionError, match="Error in memory profiling") as refused:
        check_profiling(int(108.77 * GIB), int(136.04 * GIB))
    assert str(refused.value) == (
        "Error in memory profiling. Initial free memory 108.77 GiB, current free memory 136.04 GiB. This happens when "
        "other processes sharing the same container release GPU memory while vLLM is profiling during "
        "initialization. To fix this, ensure consistent GPU memory allocation or isolate vLLM in its own container."
    )


def test_a_length_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"User-specified max_model_len \(65536\)"):
        tokens(*STORY, 0.9, 12 * GIB, "--max-model-len", "64K")


def test_underscores_and_suffixes_are_taken_as_by_vllm() -> None:
    arguments = parse_arguments(["serve", "m", "--max_model_len=2k", "--gpu_memory_utilization", "0.5"])
    assert (arguments.max_model_len, arguments.gpu_memory_utilization) == (2000, 0.5)


@pytest.mark.parametrize("option", ["--gpu-memory-utilization=1.5", "--max-num-seqs=0", "--no-such-option"])
def test_malformed_options_end_it_with_code_2(option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["serve", "m", option])
    assert ended.value.code == 2


def test_unknown_models_are_named() -> None:
    with pytest.raises(ValueError, match="no figures for other on NVIDIA-H200; it has: Qwen"):
        model_figures("other", "NVIDIA-H200")
