"""Every expectation of the run with real servers holds for a good run, and fails when what it is about went wrong."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cotune_demo.checks import real_checks
from cotune_demo.report import lines
from cotune_demo.summary import ProfileSummary, RecordsSummary, StageSummary, Summary, TrialSummary, WinnerSummary

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
_RATES = {"tiny.en": 0.141, "base": 0.085}


def trial(whisper: str, seqs: str) -> TrialSummary:
    return TrialSummary(
        name=f"voice-{whisper}-{seqs}",
        parameters={"whisperModel": whisper, "llmMaxSeqs": seqs},
        repeat=0,
        phase="Succeeded",
        reason="",
        message="",
        metrics={"stt.wer": _RATES[whisper], "stt.errorRate": 0, "llm.errorRate": 0, "llm.kvCache.tokens": 46_592},
        fitness=0.5,
        predicted="",
        started_at=NOW,
        finished_at=NOW,
        probe_pods=1,
    )


def profile(production: str) -> ProfileSummary:
    stages = tuple(
        StageSummary(
            name=name,
            phase=phase,
            message="",
            revision=None,
            last_good_revision=None,
            started_at=NOW,
            finished_at=NOW,
        )
        for name, phase in (("staging", "Promoted"), ("production", production))
    )
    return ProfileSummary(name="voice-1", changes={}, phase=production, stages=stages)


GOOD = Summary(
    title="real servers",
    is_simulation=False,
    command="make demo-real",
    started_at=NOW,
    seconds=1,
    set_up_seconds=1,
    kills=(),
    experiment_phase="Succeeded",
    experiment_reason="WinnerFound",
    gpu_seconds=0,
    plan=None,
    nothing_feasible=None,
    target=None,
    trials=tuple(trial(whisper, seqs) for whisper in ("tiny.en", "base") for seqs in ("1", "4")),
    winner=WinnerSummary(parameters={"whisperModel": "tiny.en", "llmMaxSeqs": "4"}, fitness=0.6, baseline_fitness=0.5),
    profile=profile("Promoted"),
    broken=(),
    uninvited=None,
    records=RecordsSummary(records=8, recomputed=40, resources=9, faults=(), faults_when_edited=("Differs",)),
)


def with_metric(index: int, **metrics: float | None) -> Callable[[], Summary]:
    def change() -> Summary:
        trials = list(GOOD.trials)
        known = {name.replace("_", "."): value for name, value in metrics.items()}
        merged = {name: it for name, it in {**trials[index].metrics, **known}.items() if it is not None}
        trials[index] = trials[index].model_copy(update={"metrics": merged})
        return GOOD.model_copy(update={"trials": tuple(trials)})

    return change


def replaced(**update: object) -> Callable[[], Summary]:
    return lambda: GOOD.model_copy(update=update)


def failed(summary: Summary) -> list[str]:
    return [it.what for it in real_checks(summary) if not it.holds]


def test_everything_holds_for_a_good_run() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (with_metric(0, stt_errorRate=0.1), "without an error"),
        (with_metric(3, llm_errorRate=None), "without an error"),
        (replaced(trials=(GOOD.trials[0].model_copy(update={"phase": "Invalid"}), *GOOD.trials[1:])), "measured once"),
        (replaced(trials=(GOOD.trials[0].model_copy(update={"probe_pods": 2}), *GOOD.trials[1:])), "measured once"),
        (with_metric(1, stt_wer=0.08), "base better than tiny.en"),
        (with_metric(1, stt_wer=0.9), "understand noisy speech"),
        (with_metric(2, llm_kvCache_tokens=1.0), "vLLM itself"),
        (with_metric(2, gpu_freeMiB=100.0), "no figure of a card"),
        (replaced(profile=None), "went through staging"),
        (replaced(profile=profile("RolledBack")), "went through staging"),
        (replaced(winner=None), "went through staging"),
    ],
)
def test_what_went_wrong_fails_its_own_expectation_and_no_other(change: Callable[[], Summary], what: str) -> None:
    found = failed(change())

    assert len(found) == 1, found
    assert what in found[0]


def test_the_report_says_nothing_of_a_card_nor_of_a_simulation() -> None:
    told = "\n".join(lines(GOOD.model_copy(update={"checks": tuple(real_checks(GOOD))})))

    assert "0.141" in told
    assert "<- winner" in told
    assert not any(it in told for it in ("GPU", "SIMULATION", "uninvited"))
