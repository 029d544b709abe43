"""The planner's blocks beside those that vLLM's own functions made (see `meta.command` of the recorded file)."""

import json
from pathlib import Path
from typing import Any

import pytest
from cotune.planning.kv_cache import KvLayout, kv_layout
from cotune.planning.model_config import Attention, ModelConfig, read_model_config
from hypothesis import given
from hypothesis import strategies as st

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "planner" / "kv-layouts" / "vllm-0.26.0.json").read_text()
)
NAMES = {
    "full_attention": Attention.FULL,
    "sliding_attention": Attention.SLIDING,
    "chunked_attention": Attention.CHUNKED,
}


def config(name: str) -> ModelConfig:
    return read_model_config(json.dumps(RECORDED["meta"]["models"][name]))


def layout(case: dict[str, Any]) -> KvLayout:
    return kv_layout(
        config(case["model"]),
        block_size=case["block"],
        batched_tokens=case["tokens_of_a_step"],
        is_one_step_at_a_time=case["steps"] == 1,
        is_mixing=case["mixing"],
    )


@pytest.mark.parametrize("name", RECORDED["meta"]["models"])
def test_layers_are_of_the_kinds_that_transformers_says(name: str) -> None:
    assert [it.attention for it in config(name).layers] == [
        NAMES[it] for it in RECORDED["meta"]["layers"][name].split()
    ]


@pytest.mark.parametrize(
    "case", RECORDED["cases"], ids=lambda it: f"{it['model']} {it['length']}{'' if it['mixing'] else ' unmixed'}"
)
def test_blocks_tokens_and_concurrency_are_those_of_vllm(case: dict[str, Any]) -> None:
    found = layout(case)

    blocks = found.blocks(case["memory"])

    if case["blocks"] is None:
        assert "To serve at least one request" in case["refused"]
        assert found.blocks_per_request(case["length"]) * found.block_bytes > case["memory"]
        return
    assert [it.layers for it in found.groups] == case["groups"]
    assert (blocks, blocks * found.block_bytes) == (case["blocks"], case["bytes"])
    assert float(found.concurrency(blocks, case["length"])) == pytest.approx(case["concurrency"], rel=1e-12)
    assert abs(int(found.concurrency(blocks, case["length"]) * case["length"]) - case["kv_tokens"]) <= 1


@given(
    name=st.sampled_from(sorted(RECORDED["meta"]["models"])),
    memory=st.integers(0, 100 << 30),
    more=st.integers(0, 10 << 30),
    length=st.integers(1, 200_000),
    longer=st.integers(0, 50_000),
    mixing=st.booleans(),
)
def test_more_memory_never_holds_fewer_requests_and_longer_ones_are_never_more(
    name: str, memory: int, more: int, length: int, longer: int, mixing: bool
) -> None:
    found = kv_layout(config(name), is_mixing=mixing)
    blocks = found.blocks(memory)

    assert found.blocks(memory + more) >= blocks
    assert found.concurrency(blocks, length + longer) <= found.concurrency(blocks, length)
    assert blocks * found.block_bytes <= memory
    longest = found.longest(memory, length)
    assert longest == 0 or found.blocks_per_request(longest) * found.block_bytes <= memory
    assert longest == length or found.blocks_per_request(longest + 1) * found.block_bytes > memory
