"""What starts teach, and how the planner's own error is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.trial import Measurement, ObservedServer, PredictedServer, Prediction
from cotune.planning.calibration import ComparedStart, Error, Subject, compared, learn, prediction_errors
from cotune.planning.sizes import GIB, MIB

AT = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject("0123456789abcdef", "NVIDIA-H200", "vllm/vllm-openai:v0.26.0")


def prediction(**changes: Any) -> Prediction:
    """6,976 tokens of 57,344 bytes."""
    said = {"kv_cache_tokens": 6976, "kv_cache_bytes": 6976 * 57_344, **changes}
    server = PredictedServer(component="judge", model=SUBJECT.model, card=SUBJECT.card, image=SUBJECT.version, **said)
    return Prediction(fits=True, free_mib=1000, servers=(server,))


def missed(predicted: Prediction, **logged: Any) -> int:
    (found,) = compared("voice-1", predicted, [ObservedServer(component="judge", **logged)], AT)
    assert (found.subject, found.trial) == (SUBJECT, "voice-1")
    return found.missed


@pytest.mark.parametrize(
    ("predicted", "measured", "words"),
    [
        (6976, 6912, "predicted 6,976 tokens, measured 6,912, -0.9 %"),
        (6976, 6976, "predicted 6,976 tokens, measured 6,976, +0.0 %"),
        (1000, 1500, "predicted 1,000 tokens, measured 1,500, +50.0 %"),
        (0, 16, "predicted 0 tokens, measured 16, +100.0 %"),
    ],
)
def test_an_error_is_both_figures_and_the_difference_as_a_share_of_the_predicted_one(
    predicted: int, measured: int, words: str
) -> None:
    assert str(Error(predicted, measured)) == words


def test_a_trial_shows_the_errors_of_what_was_measured_too() -> None:
    found = prediction_errors(
        prediction(),
        [
            Measurement(metric="judge.kvCache.tokens", value="6912", samples=1),
            Measurement(metric="gpu.freeMiB", value="990", samples=60),
            Measurement(metric="stt.wer", value="0.1", samples=9),
        ],
    )

    assert {it.metric: it.message for it in found} == {
        "judge.kvCache.tokens": "predicted 6,976 tokens, measured 6,912, -0.9 %",
        "gpu.freeMiB": "predicted 1,000 MiB, measured 990, -1.0 %",
    }


def test_tokens_are_the_finer_figure_and_the_logs_gibibytes_bound_it() -> None:
    by_tokens = 64 * 57_344

    assert missed(prediction(), kv_cache_tokens=6912) == by_tokens
    assert missed(prediction(), kv_cache_tokens=6912, kv_cache_gib="0.37") == by_tokens
    # A hybrid model's tokens cost differently: the log's own figure, to within its last digit, is nearer.
    off = missed(prediction(), kv_cache_tokens=3488, kv_cache_gib="0.37")
    assert off == 6976 * 57_344 - (round(0.37 * GIB) - round(0.005 * GIB))
    assert missed(prediction(), kv_cache_gib="-0.10") == 6976 * 57_344 + round(0.10 * GIB)


def test_what_was_learned_before_is_no_error_of_the_formulas_a_second_time() -> None:
    assert missed(prediction(offset_bytes=50 * MIB), kv_cache_tokens=6976) == 50 * MIB


@pytest.mark.parametrize(("compiled", "taken"), [(None, 0), (True, 30 * MIB), (False, -20 * MIB)])
def test_whether_a_start_compiled_is_no_error_of_the_formulas(compiled: bool | None, taken: int) -> None:
    said = prediction(if_compiled_bytes=30 * MIB, if_loaded_bytes=20 * MIB)

    assert missed(said, kv_cache_tokens=6912, compiled=compiled) == 64 * 57_344 - taken


def test_a_log_without_figures_and_a_server_of_which_nothing_was_said_teach_nothing() -> None:
    assert list(compared("voice-1", prediction(), [ObservedServer(component="judge")], AT)) == []
    assert list(compared("voice-1", prediction(), [ObservedServer(component="other", kv_cache_tokens=1)], AT)) == []


def start(of: int, version: str = "0.26.0", minutes: int = 0, subject: Subject = SUBJECT) -> ComparedStart:
    return ComparedStart(subject, version, of * MIB, AT + timedelta(minutes=minutes), f"voice-{minutes}")


def test_the_median_of_the_starts_counts_so_that_an_odd_one_does_not_decide() -> None:
    assert learn([start(10), start(12, minutes=1), start(900, minutes=2)]) == {SUBJECT: 12 * MIB}


def test_only_starts_of_the_version_that_started_last_count() -> None:
    assert learn([start(10, "0.11.0"), start(12, "0.11.0", 1), start(40, "0.26.0", 2)]) == {SUBJECT: 40 * MIB}


def test_cards_models_and_images_are_learned_of_apart() -> None:
    other = Subject(SUBJECT.model, "NVIDIA-L4", SUBJECT.version)

    assert learn([start(10), start(20, subject=other)]) == {SUBJECT: 10 * MIB, other: 20 * MIB}
