"""What a person reads while the demonstration runs and at its end."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cotune_demo import progress
from cotune_demo.progress import Progress
from cotune_demo.reading import errors_at
from cotune_demo.report import figures, settings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_line_says_how_long_the_run_has_taken(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress()
    clock[0] += 83

    told.say("trial 3/15 Succeeded")

    assert capsys.readouterr().out == "[ 1:23] trial 3/15 Succeeded\n"


def test_waiting_is_repeated_with_its_time_every_few_seconds_only(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told = Progress(every_seconds=5)
    for _ in range(24):
        told.waiting("the card is drained")
        clock[0] += 0.5

    assert capsys.readouterr().out.splitlines() == [
        "[ 0:00] the card is drained",
        "[ 0:05] the card is drained (5 s)",
        "[ 0:10] the card is drained (10 s)",
    ]


def test_two_that_wait_at_the_same_time_are_not_said_by_turns(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    told = Progress(every_seconds=5)
    for _ in range(8):
        told.waiting("trial 3 waits", about="3")
        told.waiting("trial 4 waits", about="4")
        clock[0] += 1

    assert capsys.readouterr().out.splitlines() == [
        "[ 0:00] trial 3 waits",
        "[ 0:00] trial 4 waits",
        "[ 0:05] trial 3 waits (5 s)",
        "[ 0:05] trial 4 waits (5 s)",
    ]


def test_waiting_for_something_else_is_said_at_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress()
    told.waiting("judge starts")
    clock[0] += 1
    told.waiting("stt starts")

    assert capsys.readouterr().out.splitlines() == ["[ 0:00] judge starts", "[ 0:01] stt starts"]


def test_a_candidate_and_its_figures_fit_a_line() -> None:
    assert settings({"judgeMemory": "0.60", "whisperModel": "tiny"}) == "judgeMemory=0.60 whisperModel=tiny"
    assert figures({"stt.latency.p95": 61.4, "judge.kvCache.tokens": 28000.0, "gpu.utilization": 0.62}) == (
        "stt p95 61 ms, KV cache 28,000 tokens, GPU 62% busy"
    )


def test_the_first_sign_of_a_failure_is_a_container_that_ended_with_an_error() -> None:
    moment = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)

    def ended(exit_code: int, after: int) -> dict[str, Any]:
        finished = (moment + timedelta(seconds=after)).isoformat().replace("+00:00", "Z")
        return {"terminated": {"exitCode": exit_code, "finishedAt": finished}}

    pod: dict[str, Any] = {
        "status": {
            "containerStatuses": [
                {"state": {"running": {}}, "lastState": ended(1, 7)},
                {"state": ended(0, 3), "lastState": {}},
            ]
        }
    }

    assert errors_at(pod) == [moment + timedelta(seconds=7)]
    assert errors_at({"status": {}}) == []
