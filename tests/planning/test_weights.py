"""What counts as weights: published parameters, what torch's allocator makes of them, and LoRA's slots."""

import json
from pathlib import Path
from typing import Any

import pytest
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.planning.sizes import MIB, gib
from cotune.planning.torch_allocator import LOADING_MAX_SPLIT, Block, CachingAllocator
from cotune.planning.weights import Lora, weights
from hypothesis import given
from hypothesis import strategies as st

RECORDED: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 49152,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
GEMMA_3_4B: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}
QWEN3_30B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
GPT_OSS_20B: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "quantization_config": {"quant_method": "mxfp4"},
}


def of(shape: dict[str, Any], **changes: object) -> ModelConfig:
    return read_model_config(json.dumps(shape | changes))


def test_the_recorded_weights_are_explained_to_the_logs_last_digit() -> None:
    found = weights(of(RECORDED))

    assert round(gib(found.total), 2) == 2.72
    # 2,643 MiB of parameters, 32 of cosines and sines, the rest is what blocks over 20 MiB keep of their segments.
    assert (found.parameters // MIB, found.rotary // MIB, found.unsplit // MIB) == (2643, 32, 111)


def test_tied_tables_are_one_and_untied_ones_two() -> None:
    tied, untied = weights(of(RECORDED)), weights(of(RECORDED, tie_word_embeddings=False))

    assert untied.embeddings == 2 * tied.embeddings == 2 * 49152 * 1536 * 2


@pytest.mark.parametrize(
    ("shape", "billions"), [(GEMMA_3_4B, 3.880), (QWEN3_30B, 30.53)], ids=["gemma 3's text part", "many experts"]
)
def test_the_weights_are_the_published_number_of_parameters(shape: dict[str, Any], billions: float) -> None:
    assert weights(of(shape)).parameters / 2 / 1e9 == pytest.approx(billions, rel=0.002)


def test_experts_in_four_bits_leave_attention_in_sixteen() -> None:
    """The published files of gpt-oss-20b hold 13.76 GB."""
    assert weights(of(GPT_OSS_20B)).parameters / 1e9 == pytest.approx(13.76, rel=0.01)


def test_tables_are_padded_to_whole_blocks_of_rows() -> None:
    assert weights(of(RECORDED, vocab_size=49_153)).embeddings == (49_152 + 64) * 1536 * 2


@pytest.mark.parametrize(
    ("changes", "tables"),
    [
        ({}, 1),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 4),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2),
        ({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 131072}}, 2),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 1),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}, 4),
        ({"partial_rotary_factor": 0.5}, 0.5),
        ({"model_type": "gemma3_text"}, 2),
    ],
)
def test_rotary_tables_are_as_long_as_their_scaling_makes_them(changes: dict[str, Any], tables: float) -> None:
    shape = {**RECORDED, "head_dim": 128, "sliding_window": None, **changes}

    assert weights(of(shape)).rotary == tables * 131072 * 128 * 2


def test_adapters_are_slots_of_the_greatest_rank_and_only_those_on_the_card_count() -> None:
    one, four = weights(of(RECORDED), lora=Lora(1, 16)), weights(of(RECORDED), lora=Lora(4, 32))

    # In and out of query, key, value, output, gate, up and down projections, 28 times, in two bytes.
    widths = (1536 + 1536) + 2 * (1536 + 256) + (1536 + 1536) + 2 * (1536 + 8960) + (8960 + 1536)
    assert one.adapters == 28 * widths * 16 * 2
    assert four.adapters == 8 * one.adapters
    assert weights(of(RECORDED)).adapters == 0


def test_eight_bit_checkpoints_of_compressed_tensors_and_four_bit_ones_are_told_apart() -> None:
    def packed(bits: int) -> dict[str, Any]:
        group = {"weights": {"num_bits": bits, "group_size": 128}}
        return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}

    plain, eight, four = (
        weights(of(RECORDED, **changes)).linear
        for changes in ({}, {"quantization_config": packed(8)}, {"quantization_config": packed(4)})
    )
    assert eight * 2 == plain
    assert four / plain == pytest.approx((0.5 + 2.5 / 128) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("sizes", "allocated", "reserved"),
    [
        ([600], 1024, 2 * MIB),  # rounded to 512, from a segment of small blocks
        ([6 * MIB, 5 * MIB], 11 * MIB, 20 * MIB),  # both from one segment
        ([10 * MIB + 1], 10 * MIB + 512, 12 * MIB),  # a segment of its own; more than 1 MiB is left and split off
        ([52 * MIB + MIB // 2], 54 * MIB, 54 * MIB),  # too large to be split
    ],
)
def test_blocks_are_what_torch_makes_of_a_request(sizes: list[int], allocated: int, reserved: int) -> None:
    allocator = CachingAllocator(LOADING_MAX_SPLIT)

    for it in sizes:
        allocator.take(it)

    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_a_large_tensor_takes_the_whole_of_what_an_earlier_one_left() -> None:
    allocator = CachingAllocator(LOADING_MAX_SPLIT)
    allocator.give_back(allocator.take(64 * MIB))

    allocator.take(52 * MIB)

    assert (allocator.allocated, allocator.reserved) == (64 * MIB, 64 * MIB)


@given(
    steps=st.lists(st.tuples(st.integers(1, 70 * MIB), st.booleans()), max_size=60),
    max_split=st.sampled_from([None, LOADING_MAX_SPLIT]),
)
def test_the_allocator_loses_no_byte(steps: list[tuple[int, bool]], max_split: int | None) -> None:
    allocator = CachingAllocator(max_split)
    held: list[tuple[int, Block]] = []
    for size, gives_back in steps:
        if gives_back and held:
            allocator.give_back(held.pop(size % len(held))[1])
        else:
            held.append((size, allocator.take(size)))

    assert allocator.allocated == sum(block.size for _, block in held)
    assert all(block.size >= size for size, block in held)
    assert allocator.reserved >= allocator.allocated
    for _, block in held:
        allocator.give_back(block)
    assert allocator.allocated == 0


COUNTED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "planner" / "parameters" / "transformers.json").read_text()
)["models"]


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_those_of_transformers_own_classes(name: str) -> None:
    """To a two-thousandth: biases and the norms of single heads are left out."""
    found = weights(of(COUNTED[name]["config"])).parameters / 2

    assert found == pytest.approx(COUNTED[name]["parameters"], rel=5e-4)


@pytest.mark.parametrize("name", COUNTED)
def test_tables_that_a_file_says_nothing_of_are_tied_where_the_class_ties_them(name: str) -> None:
    silent = {key: it for key, it in COUNTED[name]["config"].items() if key != "tie_word_embeddings"}

    assert of(silent).is_tied == COUNTED[name]["tiedByDefault"]
