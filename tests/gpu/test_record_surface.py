"""What a recorder goes through, keeps and leaves out; the windows themselves need a card."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cotune_bench.surface import Surface

from gpu.record_surface import Record
from gpu.sharing import MPS, TIME_SLICING, SharingError, sharing
from gpu.surface_case import LlmStart, SurfaceCase, read_case

_CASES = Path(__file__).parent / "cases"


@pytest.fixture(params=["voice-surface.json", "eager-surface.json"])
def case(request: pytest.FixtureRequest) -> SurfaceCase:
    return read_case(_CASES / request.param)


def run(candidate: "dict[str, str]", repeat: int, failure: "dict[str, str] | None" = None) -> "dict[str, Any]":
    return {
        "candidate": candidate,
        "repeat": repeat,
        "start": 1,
        "failure": failure,
        "seconds": 8,
        "measurements": [{"metric": "stt.latency.p95", "value": "120", "samples": 10}],
    }


def test_the_candidates_of_both_sharing_modes_are_the_whole_grid(case: SurfaceCase) -> None:
    found = {
        tuple(case.candidate(mode, start, size).values())
        for mode in case.values("sharing")
        for start in case.starts()
        for size in case.sizes
    }

    whole = 1
    for it in case.document["parameters"]:
        whole *= len(it["values"])
    assert len(found) == whole


def test_the_full_case_has_at_least_forty_candidates() -> None:
    case = read_case(_CASES / "voice-surface.json")

    assert len(list(case.starts())) * len(case.sizes) * len(case.values("sharing")) >= 40
    assert case.repeats >= 3


def test_a_start_says_its_settings_to_vllm(case: SurfaceCase) -> None:
    words = LlmStart("0.30", "8").command(Path("/models/llm"), tuple(case.model["arguments"]), 8100)

    assert words[:2] == ["serve", "/models/llm"]
    assert words[words.index("--port") + 1] == "8100"
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.30"
    assert words[words.index("--max-num-seqs") + 1] == "8"
    assert "--no-enable-prefix-caching" in words  # Windows of one repeat send the same prompts.


def test_all_candidates_meet_the_same_load_and_each_repeat_another_one(case: SurfaceCase, tmp_path: Path) -> None:
    one, other = (case.probe(size, 1, tmp_path) for size in case.sizes[:2])

    assert one.seed == other.seed != case.probe(case.sizes[0], 2, tmp_path).seed
    assert [it.arrivals for it in one.streams] == [it.arrivals for it in other.streams]
    assert one.streams[1].port != other.streams[1].port


def test_a_second_call_repeats_neither_windows_nor_refusals(tmp_path: Path) -> None:
    measured, refused = {"llmMemory": "0.30"}, {"llmMemory": "0.02"}
    runs = [run(measured, 1), run(refused, 1, {"component": "llm", "message": "no blocks"})]
    record = Record(tmp_path, {"runs": runs})

    assert record.done(measured, 1)
    assert not record.done(measured, 2)
    assert record.done(refused, 2)


def test_what_is_written_is_a_surface_and_the_raw_files(case: SurfaceCase, tmp_path: Path) -> None:
    candidate = case.candidate(TIME_SLICING, LlmStart("0.30", "8"), case.sizes[0])
    record = Record(tmp_path, {})
    record.document["case"] = case.document
    record.starts.append({"id": 1, "seconds": 20.0})
    record.document["speechStarts"].append({"sharing": TIME_SLICING, "whisperModel": case.sizes[0], "seconds": 7.0})
    record.runs.append(run(candidate, 1))
    record.keep("runs/one.json", b"{}")

    record.write()

    evaluation = Surface.read(tmp_path / "surface.json").evaluate(candidate, fidelity=5)
    assert evaluation.measurements == {"stt.latency.p95": 120}
    assert evaluation.seconds == 20 + 7 + 8
    with tarfile.open(tmp_path / "raw.tar.xz") as archive:
        assert archive.getnames() == ["runs/one.json"]
    assert json.loads((tmp_path / "surface.json").read_text())["schema"] == 1


def test_turns_need_nothing_and_a_machine_without_the_daemon_has_no_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with sharing(TIME_SLICING, tmp_path) as environment:
        assert dict(environment) == {}
    with pytest.raises(SharingError, match="nvidia-cuda-mps-control is not on this machine"), sharing(MPS, tmp_path):
        pass
