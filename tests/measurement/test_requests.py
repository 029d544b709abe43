import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from cotune.api.workload import Arrivals, ArrivalType, FileRef
from cotune.measurement.arrivals import schedule
from cotune.measurement.requests import (
    Lengths,
    Phase,
    WorkloadError,
    read_dataset,
    read_trace,
    shuffled,
)


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join((it if isinstance(it, str) else json.dumps(it)) + "\n" for it in lines))
    return path


def test_a_trace_is_replayed_exactly(tmp_path: Path) -> None:
    recorded = [
        {"at": 0.0, "promptTokens": 10, "outputTokens": 2},
        {"at": 0.013007},
        {"at": 0.013007, "promptTokens": 30},
        {"at": 2.5, "outputTokens": 7},
        {"at": 9.0},
    ]
    trace = read_trace(written(tmp_path / "trace.jsonl", *recorded))
    arrivals = Arrivals(type=ArrivalType.TRACE, trace_ref=FileRef(config_map="load", key="trace.jsonl"))

    times = schedule(arrivals, 5.0, seed=1, trace=trace)
    requests = [Lengths(100, 50).request(7, Phase.WINDOW, number, trace[number]) for number in range(len(times))]

    assert times == (0.0, 0.013007, 0.013007, 2.5)
    assert [(it.prompt_tokens, it.output_tokens) for it in requests] == [(10, 2), (100, 50), (30, 50), (100, 7)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (({"at": 1.0}, {"at": 0.5}), "trace:2: at 0.5 comes after 1"),
        (({"at": -1.0},), "trace:1: at"),
        (({"at": 1.0}, "no JSON"), "trace:2: the whole"),
        (({"at": 1.0, "tokens": 3},), "trace:1: tokens"),
        ((), "has no line"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused(lines: tuple[Any, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=words):
        read_trace(written(tmp_path / "trace", *lines))


def test_a_dataset_is_sent_in_an_order_that_the_seed_decides(tmp_path: Path) -> None:
    samples = read_dataset(written(tmp_path / "prompts", *({"prompt": f"number {it}"} for it in range(20))))

    assert shuffled(samples, 3) == shuffled(samples, 3)
    assert shuffled(samples, 3) != shuffled(samples, 4)
    assert set(shuffled(samples, 3)) == set(samples)


@pytest.mark.parametrize("line", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}])
def test_a_sample_is_a_prompt_or_a_chat(line: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="prompts:1: give either prompt or messages"):
        read_dataset(written(tmp_path / "prompts", line))


def test_drawn_lengths_have_the_mean_and_the_spread_that_were_asked_for_and_repeat() -> None:
    lengths = Lengths(200, 100, spread=0.5)
    drawn = [lengths.request(7, Phase.WINDOW, number) for number in range(5000)]
    prompts = [it.prompt_tokens for it in drawn if it.prompt_tokens is not None]

    assert statistics.fmean(prompts) == pytest.approx(200, rel=0.05)
    assert statistics.stdev(prompts) == pytest.approx(100, rel=0.1)
    assert drawn == [lengths.request(7, Phase.WINDOW, number) for number in range(5000)]
    assert len({it.key for it in drawn}) == 5000


def test_no_request_is_sent_in_two_phases_or_by_two_seeds() -> None:
    lengths = Lengths(8, 8)
    keys = {lengths.request(seed, phase, number).key for seed in (1, 2) for phase in Phase for number in range(100)}

    assert len(keys) == 2 * len(Phase) * 100
