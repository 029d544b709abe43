"""The report of recorded surfaces computes what it says, and says it of the recordings in this repository."""

import json
from pathlib import Path
from statistics import median, stdev
from typing import Any

import pytest
import yaml
from cotune_bench.surface_report import (
    ReportError,
    contents,
    holding,
    interference,
    main,
    modes,
    noise,
    read,
    start_ups,
    windows,
)
from cotune_bench.trial_repeats import read_repeats

ROOT = Path(__file__).parents[2]
RECORDED = {
    it.parent.name.removeprefix("h100-2026-11-28-"): it
    for it in sorted((ROOT / "tests/data/surfaces").glob("*/*.json"))
}
TRIALS = ROOT / "docs" / "results" / "h100-2026-11-28" / "trials.yaml"
pytestmark = pytest.mark.timeout(60)


def run(repeat: int, size: str, sharing: str = "TimeSlicing", **figures: float) -> "dict[str, Any]":
    candidate = {"sharing": sharing, "llmMemory": "0.30", "llmMaxSeqs": "8", "whisperModel": size}
    measurements = [{"metric": name.replace("__", "."), "value": str(it)} for name, it in figures.items()]
    return {"candidate": candidate, "repeat": repeat, "failure": None, "errors": [], "measurements": measurements}


def document(*runs: "dict[str, Any]", load: "tuple[str, ...]" = ("stt", "llm")) -> "dict[str, Any]":
    return {
        "schema": 1,
        "case": {"load": {it: {} for it in load}},
        "runs": list(runs),
        "starts": [],
        "speechStarts": [],
    }


def test_repeats_of_one_recording_are_noise_and_the_same_window_of_two_is_noise_of_the_same_arrivals() -> None:
    one = document(*(run(number, "base", stt__latency__p50=it) for number, it in enumerate((100, 200, 300), 1)))
    other = document(run(1, "base", stt__latency__p50=100), run(2, "base", stt__latency__p50=220))

    (found,) = noise([*windows(one, "one"), *windows(other, "other")])

    assert (found.metric, found.sharing, found.candidates) == ("stt.latency.p50", "TimeSlicing", 1)
    assert found.typical == found.pooled == found.largest == pytest.approx(50)
    of_pairs = [0, 100 * stdev((200, 220)) / 210]
    assert found.pairs == 2
    assert found.same_arrivals == pytest.approx((sum(it * it for it in of_pairs) / 2) ** 0.5)


def test_interference_sets_what_is_alone_beside_both_ways_of_sharing() -> None:
    measured = [
        *windows(document(run(1, "base", stt__latency__p50=1), load=("stt",)), "stt-alone"),
        *windows(document(run(1, "base", llm__ttft__p50=2), load=("llm",)), "llm-alone"),
        *windows(document(*(run(1, "base", mode, stt__latency__p50=9) for mode in ("MPS", "TimeSlicing"))), "both"),
    ]

    alone, by_turns, mps = interference(measured, "0.30")

    assert (alone.sharing, alone.stt_p50, alone.ttft_p50) == ("alone", 1, 2)
    assert (by_turns.sharing, mps.sharing, by_turns.stt_p50) == ("TimeSlicing", "MPS", 9)
    assert interference(measured, "0.05") == ()


def test_the_modes_are_compared_window_by_window_and_a_window_without_its_like_is_left_out() -> None:
    by_turns = [run(it, "base", "TimeSlicing", stt__latency__p50=100.0) for it in (1, 2, 3)]
    through_mps = [run(number, "base", "MPS", stt__latency__p50=it) for number, it in ((1, 50.0), (2, 150.0))]

    (found,) = modes(windows(document(*by_turns, *through_mps), "both"))

    assert (found.size, found.metric, found.pairs, found.less) == ("base", "stt.latency.p50", 2, 1)
    assert (found.lower, found.middle, found.upper) == (0.75, 1, 1.25)


def test_the_recordings_hold_what_the_results_say() -> None:
    found = {name: contents(read(it), name) for name, it in RECORDED.items()}

    assert {name: (it.starts, it.candidates, it.measured, it.windows) for name, it in found.items()} == {
        "llm-alone": (2, 2, 2, 6),
        "mps": (10, 40, 28, 79),
        "stt-alone": (1, 4, 4, 12),
        "time-slicing": (8, 28, 16, 48),
        "time-slicing-2": (5, 20, 20, 54),
    }
    assert sum(it.stream_failures for it in found.values()) == 0


def test_a_start_is_longer_where_imports_or_the_compiler_take_part() -> None:
    found = {
        (it.method, it.compile_cache): it
        for it in start_ups([read(it) for it in RECORDED.values()])
        if it.what == "vLLM"
    }

    assert found["warm", "warm"].largest < found["warm", "cold"].least
    assert found["warm", "warm"].largest < found["cold", "warm"].least < found["cold", "cold"].least
    assert sum(it.starts for it in found.values()) == 26
    by_hand = [it["seconds"] for it in read(RECORDED["time-slicing"])["starts"] if it["started"]]
    assert found["cold", "cold"].middle == median(by_hand[:3])


def test_speech_servers_have_a_figure_only_where_they_were_watched() -> None:
    watched = [it for it in start_ups([read(it) for it in RECORDED.values()]) if it.what.startswith("speech")]

    assert {it.what: it.starts for it in watched} == {
        f"speech, {size}": 1 for size in ("tiny.en", "base", "small-sized", "medium-sized")
    }
    assert all(it.largest < 20 for it in watched)


def test_vllm_leaves_nothing_behind_and_mps_has_a_context_of_its_own() -> None:
    found = {name: holding(read(it), name) for name, it in RECORDED.items()}

    assert found["mps"].unexplained - found["time-slicing"].unexplained == 52
    # Speech servers grow by 8 MiB in all; vLLM comes and goes.
    assert max(it.left_after_vllm for it in found.values()) == 8
    assert max(it.longest_release for it in found.values()) < 0.1


def test_trials_of_a_candidate_are_set_beside_each_other() -> None:
    rows = {(it.candidate.rpartition("=")[2], it.metric): it for it in read_repeats(TRIALS)}

    assert {size for size, _ in rows} == {"tiny.en", "small-sized"}
    p95 = rows["tiny.en", "stt.latency.p95"]
    assert [round(it) for it in p95.values] == [346, 317, 291]
    assert p95.variation == pytest.approx(100 * stdev(p95.values) / (sum(p95.values) / 3))
    assert rows["small-sized", "fitness"].values == (0.547171, 0.553729, 0.565517)


def test_what_is_no_list_of_trials_or_no_surface_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"kind": "GpuTrial"}))
    (tmp_path / "other.json").write_text(json.dumps({"schema": 1}))

    with pytest.raises(ValueError, match="no list of trials"):
        read_repeats(other)
    with pytest.raises(ValueError, match="have no variation"):
        read_repeats(TRIALS, least=1)
    with pytest.raises(ReportError, match="no surface of schema 1"):
        read(tmp_path / "other.json")


def test_the_command_prints_every_table_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cotune_bench.table._FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench-surface", *map(str, RECORDED.values()), "--trials", str(TRIALS)])

    assert main() == 0

    written = json.loads((tmp_path / "surface.json").read_text())
    assert all(written[it] for it in ("recordings", "noise", "startUps", "interference", "holding", "trials"))
    printed = capsys.readouterr().out
    heads = (
        "RECORDING",
        "NOISE, CV %",
        "START-UP, s",
        "MAX-NUM-SEQS",
        "MPS /",
        "MEMORY, MiB",
        "TRIALS OF ONE CANDIDATE",
    )
    assert [it for it in heads if it not in printed] == []


def test_the_command_says_which_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"schema": 2, "case": {}}))
    monkeypatch.setattr("sys.argv", ["bench-surface", str(tmp_path / "other.json")])

    assert main() == 1
    assert "other.json: no surface of schema 1" in capsys.readouterr().err
