"""A recorded surface plays back what was measured, and charges what it took."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from cotune_bench.surface import Surface, SurfaceError

_FITS = {"sharing": "TimeSlicing", "llmMemory": "0.30", "whisperModel": "base"}
_FAILS = {**_FITS, "llmMemory": "0.02"}


def run(candidate: "dict[str, str]", repeat: int, latency: float, start: int = 1) -> "dict[str, Any]":
    return {
        "candidate": candidate,
        "repeat": repeat,
        "start": start,
        "failure": None,
        "seconds": 8.5,
        "measurements": [{"metric": "stt.latency.p95", "value": str(latency), "samples": 10}],
    }


def document(*runs: "dict[str, Any]") -> "dict[str, Any]":
    return {
        "schema": 1,
        "case": {
            "parameters": [
                {"name": "sharing", "values": ["TimeSlicing", "MPS"], "baseline": "TimeSlicing"},
                {"name": "llmMemory", "values": ["0.02", "0.30"], "baseline": "0.30"},
                {"name": "whisperModel", "values": ["base"], "baseline": "base"},
            ],
            "load": {"durationSeconds": 5},
        },
        "starts": [{"id": 1, "seconds": 20}, {"id": 2, "seconds": 11}],
        "speechStarts": [{"sharing": "TimeSlicing", "whisperModel": "base", "seconds": 7}],
        "runs": list(runs),
    }


def written(folder: Path, name: str, *runs: "dict[str, Any]") -> Path:
    (folder / name).write_text(json.dumps(document(*runs)))
    return folder / name


@pytest.fixture
def surface(tmp_path: Path) -> Surface:
    failed = run(_FAILS, 1, 0, start=2)
    failed |= {"failure": {"component": "llm", "message": "no blocks"}, "measurements": list[str]()}
    return Surface.read(written(tmp_path, "a.json", *(run(_FITS, it, 100.0 * it) for it in (1, 2, 3)), failed))


def test_more_fidelity_is_more_repeats_and_costs_their_seconds(surface: Surface) -> None:
    one, all_of_them = surface.evaluate(_FITS, fidelity=5), surface.evaluate(_FITS, fidelity=60)

    assert (one.repeats, one.measurements["stt.latency.p95"], one.seconds) == (1, 100, 20 + 7 + 8.5)
    assert (all_of_them.repeats, all_of_them.measurements["stt.latency.p95"]) == (3, 200)
    assert all_of_them.seconds == 20 + 7 + 3 * 8.5


def test_a_candidate_that_cannot_start_says_why_and_costs_its_start(surface: Surface) -> None:
    found = surface.evaluate(_FAILS, fidelity=15)

    assert found.is_failure
    assert (found.failure, found.seconds, dict(found.measurements)) == ("llm: no blocks", 11, {})


def test_a_seed_draws_the_same_repeats_again(surface: Surface) -> None:
    drawn = [surface.evaluate(_FITS, 5, random.Random(seed)).measurements["stt.latency.p95"] for seed in range(20)]

    assert set(drawn) == {100, 200, 300}
    assert drawn == [surface.evaluate(_FITS, 5, random.Random(it)).measurements["stt.latency.p95"] for it in range(20)]


def test_what_was_not_recorded_is_no_guess(surface: Surface) -> None:
    with pytest.raises(SurfaceError, match=r"MPS.*was not recorded"):
        surface.evaluate({**_FITS, "sharing": "MPS"}, fidelity=5)


def test_repeats_of_several_recordings_are_put_together(tmp_path: Path) -> None:
    files = (written(tmp_path, "a.json", run(_FITS, 1, 100)), written(tmp_path, "b.json", run(_FITS, 2, 300)))

    found = Surface.read(*files).evaluate(_FITS, fidelity=10)

    assert (found.repeats, found.measurements["stt.latency.p95"]) == (2, 200)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(json.dumps(document() | {"schema": 2}))

    with pytest.raises(SurfaceError, match="schema 2"):
        Surface.read(tmp_path / "new.json")
