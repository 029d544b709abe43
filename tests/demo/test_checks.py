"""Every expectation of the demonstration holds for a good run, and fails when what it is about went wrong."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cotune_demo.__main__ import good_run
from cotune_demo.checks import checks, same_outcome
from cotune_demo.report import lines
from cotune_demo.summary import (
    BrokenSummary,
    Check,
    NothingFeasibleSummary,
    PlanSummary,
    ProfileSummary,
    RecordsSummary,
    Refusal,
    RefusedSummary,
    StageSummary,
    Summary,
    TrialSummary,
    UninvitedSummary,
    WinnerSummary,
)
from support.told_target import GOOD_TARGET

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
CACHE_BLOCKS = (
    "judge: NoCacheBlocks: container vllm exited with 1: ValueError: No available memory for the cache blocks."
)
FIGURES = "judge: the budget of 4.80 GiB is 0.77 GiB less than weights, activations and libraries"
MEMORY = ("0.40", "0.45", "0.50", "0.55", "0.60")


def trial(memory: str, whisper: str) -> TrialSummary:
    skipped = memory in {"0.40", "0.45"}
    return TrialSummary(
        name=f"voice-{memory}-{whisper}".replace(".", ""),
        parameters={"judgeMemory": memory, "whisperModel": whisper},
        repeat=0,
        phase="Skipped" if skipped else "Succeeded",
        reason="NoCacheBlocks" if skipped else "",
        message=FIGURES if skipped else "",
        metrics={} if skipped else {"stt.latency.p95": 80.0},
        fitness=None if skipped else 0.6,
        predicted="NoCacheBlocks" if skipped else "fits",
        started_at=NOW,
        finished_at=NOW,
        probe_pods=0 if skipped else 1,
    )


def again(memory: str, whisper: str, repeat: int, purpose: str) -> TrialSummary:
    fresh = trial(memory, whisper)
    return fresh.model_copy(update={"name": f"{fresh.name}-{repeat}", "repeat": repeat, "purpose": purpose})


def profile(name: str, message: str = "", **phases: str) -> ProfileSummary:
    stages = tuple(
        StageSummary(
            name=stage,
            phase=phase,
            message=message,
            revision="cotune-2",
            last_good_revision="cotune-1",
            started_at=NOW,
            finished_at=NOW,
        )
        for stage, phase in phases.items()
    )
    return ProfileSummary(name=name, changes={}, phase=stages[-1].phase, stages=stages)


def broken(name: str, generation_after: int, **phases: str) -> BrokenSummary:
    return BrokenSummary(
        profile=profile(name, CACHE_BLOCKS, **phases),
        failed_stage=list(phases)[-1],
        first_sign_at=NOW,
        condition_at=NOW,
        ready_at=NOW,
        generations_before={"judge": 4},
        generations_after={"judge": generation_after},
        values_before={"JUDGE_MEMORY": "0.60"},
        values_after={"JUDGE_MEMORY": "0.60"},
        is_production_ready=True,
    )


def refusal(verb: str) -> Refusal:
    return Refusal(attempt=verb, answer=f'403 Forbidden: x is forbidden: User "y" cannot {verb} resource "x"')


REFUSALS = tuple(refusal(verb) for verb in ("get", "patch", "create", "list"))

PLAN = PlanSummary(
    candidates=15,
    fitting=9,
    refused=(RefusedSummary(reason="NoCacheBlocks", count=6, skipped=6, example=f"judgeMemory=0.40: {FIGURES}"),),
    wrong_fits=0,
    wrong_does_not_fit=0,
    gpu_seconds_saved=57.6,
)
RECORDS = RecordsSummary(records=28, recomputed=300, resources=40, faults=(), faults_when_edited=("Differs",))
NOTHING = NothingFeasibleSummary(
    name="nothing-fits",
    phase="Failed",
    reason="NothingFeasible",
    message=f"none of 4 candidates can start; the baseline: {FIGURES}",
    plan=PLAN.model_copy(update={"candidates": 4, "fitting": 0, "gpu_seconds_saved": None}),
    trials=0,
    pods=0,
    seconds=1.8,
)
FRESH = (
    *(again("0.60", "tiny", it, "Confirmation") for it in (1, 2)),
    *(again("0.50", "small", it, "Confirmation") for it in (1, 2)),
    *(again("0.60", "small", it, "Validation") for it in (1, 2)),
    *(again("0.50", "tiny", it, "Validation") for it in (1, 2)),
    *(again("0.50", "small", it, "Validation") for it in (3,)),
)

GOOD = Summary(
    title="a SIMULATION",
    is_simulation=True,
    command="make demo",
    started_at=NOW,
    seconds=240.0,
    set_up_seconds=10.0,
    kills=(),
    experiment_phase="Succeeded",
    experiment_reason="Winner",
    gpu_seconds=180.0,
    plan=PLAN,
    nothing_feasible=NOTHING,
    trials=(
        *(trial(memory, whisper) for memory in MEMORY for whisper in ("tiny", "base", "small")),
        *FRESH,
    ),
    winner=WinnerSummary(
        parameters={"judgeMemory": "0.60", "whisperModel": "tiny"}, fitness=0.72, baseline_fitness=0.54
    ),
    profile=profile("voice-0e4aea", staging="Promoted", production="Promoted"),
    target=GOOD_TARGET,
    broken=(
        broken("voice-cannot-start", 4, staging="RolledBack"),
        broken("voice-too-much-for-production", 10, staging="Promoted", production="RolledBack"),
    ),
    uninvited=UninvitedSummary(
        refusals=REFUSALS,
        condition="NoGrant",
        generation_before=1,
        generation_after=1,
    ),
    records=RECORDS,
)
KILLED = GOOD.model_copy(update={"kills": ("trial: x", "profile: y", "rollout: z")})

Change = Callable[[Summary], Summary]


def with_trial(index: int, **update: object) -> Change:
    def change(summary: Summary) -> Summary:
        trials = list(summary.trials)
        trials[index] = trials[index].model_copy(update=update)
        return summary.model_copy(update={"trials": tuple(trials)})

    return change


def with_broken(index: int, **update: object) -> Change:
    def change(summary: Summary) -> Summary:
        several = list(summary.broken)
        several[index] = several[index].model_copy(update=update)
        return summary.model_copy(update={"broken": tuple(several)})

    return change


def with_records(**update: object) -> Change:
    return lambda summary: summary.model_copy(update={"records": summary.records.model_copy(update=update)})


def with_uninvited(**update: object) -> Change:
    def change(summary: Summary) -> Summary:
        assert summary.uninvited is not None
        return summary.model_copy(update={"uninvited": summary.uninvited.model_copy(update=update)})

    return change


def with_winner(**update: object) -> Change:
    assert GOOD.winner is not None
    return replaced(winner=GOOD.winner.model_copy(update=update))


def with_plan(**update: object) -> Change:
    return replaced(plan=PLAN.model_copy(update=update))


def with_nothing(**update: object) -> Change:
    return replaced(nothing_feasible=NOTHING.model_copy(update=update))


def replaced(**update: object) -> Change:
    return lambda summary: summary.model_copy(update=update)


def failed(found: list[Check]) -> list[str]:
    return [it.what for it in found if not it.holds]


def test_everything_holds_for_a_good_run() -> None:
    assert failed(list(checks(GOOD))) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (replaced(trials=(*GOOD.trials[:14], *FRESH)), "of 15 candidates has one trial"),
        (replaced(trials=(*GOOD.trials[:15], *FRESH[1:])), "run again as often as each other"),
        (replaced(trials=(*GOOD.trials[:15], *FRESH[4:])), "run again as often as each other"),
        (replaced(trials=GOOD.trials[:-1]), "run on its own, by turns with the baseline"),
        (replaced(trials=GOOD.trials[:-2]), "run on its own, by turns with the baseline"),
        (with_trial(-1, phase="Failed"), "run on its own, by turns with the baseline"),
        (
            replaced(trials=(*GOOD.trials, *(again("0.60", "tiny", it, "Validation") for it in (3, 4)))),
            "run on its own, by turns with the baseline",
        ),
        (replaced(trials=(*GOOD.trials[:14], GOOD.trials[13], *FRESH)), "of 15 candidates has one trial"),
        (with_trial(14, probe_pods=2), "of 15 candidates has one trial"),
        (with_trial(0, phase="Failed", message=CACHE_BLOCKS), "were skipped with the figures"),
        (with_trial(0, message="it does not start"), "were skipped with the figures"),
        (with_trial(0, probe_pods=1), "were skipped with the figures"),
        (with_trial(0, predicted="fits"), "planner had said"),
        (with_trial(0, predicted=""), "planner had said"),
        (with_trial(14, predicted="NoCacheBlocks"), "planner had said"),
        (replaced(plan=None), "GPU-seconds"),
        (with_plan(gpu_seconds_saved=None), "GPU-seconds"),
        (with_plan(wrong_fits=1), "GPU-seconds"),
        (with_plan(wrong_does_not_fit=1), "GPU-seconds"),
        (replaced(nothing_feasible=None), "of which nothing fits"),
        (with_nothing(reason="BaselineFailed"), "of which nothing fits"),
        (with_nothing(trials=1), "of which nothing fits"),
        (with_nothing(pods=1), "of which nothing fits"),
        (with_nothing(seconds=10.0), "of which nothing fits"),
        (
            with_broken(0, profile=profile("voice-cannot-start", "StartTimeout", staging="RolledBack")),
            "vLLM refuses there in its own words",
        ),
        (with_trial(14, phase="Failed"), "every other candidate was measured"),
        (with_trial(14, metrics={}), "every other candidate was measured"),
        (replaced(winner=None), "Whisper tiny"),
        (with_winner(parameters={"judgeMemory": "0.60", "whisperModel": "base"}), "Whisper tiny"),
        (with_winner(fitness=0.54), "beats the baseline"),
        (replaced(profile=None), "through staging to production"),
        (replaced(profile=profile("x", staging="Promoted")), "through staging to production"),
        (replaced(profile=profile("x", staging="Promoted", production="RolledBack")), "through staging to production"),
        (with_broken(0, failed_stage="production"), "voice-cannot-start failed in staging"),
        (with_broken(0, condition_at=None), "voice-cannot-start failed in staging"),
        (with_broken(0, ready_at=None), "voice-cannot-start failed in staging"),
        (with_broken(0, generations_after={"judge": 5}), "production never heard"),
        (with_broken(1, failed_stage="staging"), "failed in production"),
        (with_broken(1, values_after={"JUDGE_MEMORY": "0.75"}), "production is back"),
        (with_broken(1, is_production_ready=False), "production is back"),
        (with_broken(1, generations_after={"judge": 4}), "production is back"),
        (with_uninvited(generation_after=2), "without a grant"),
        (with_uninvited(condition=""), "without a grant"),
        (with_uninvited(refusals=()), "without a grant"),
        (with_uninvited(refusals=(refusal("get"),) * 4), "without a grant"),
        (
            with_uninvited(refusals=(*REFUSALS, Refusal(attempt="create a pod", answer="it was allowed"))),
            "without a grant",
        ),
        (replaced(target=None), "simpler than its target was made"),
        (replaced(target=GOOD_TARGET.model_copy(update={"profile": None})), "second site's staging to production"),
        (with_records(records=3), "left a record"),
        # Those of the first site alone.
        (with_records(records=19), "left a record"),
        (with_records(recomputed=0), "left a record"),
        (with_records(faults=("Damaged: sha256:0: it has changed",)), "left a record"),
        (with_records(faults_when_edited=()), "left a record"),
        (with_records(faults_when_edited=("Differs", "Missing")), "left a record"),
    ],
)
def test_what_went_wrong_fails_its_own_expectation_and_no_other(change: Change, what: str) -> None:
    found = failed(list(checks(change(GOOD))))

    assert len(found) == 1, found
    assert what in found[0]


def test_the_report_says_what_skipping_saved_and_why_nothing_fitted() -> None:
    text = "\n".join(lines(GOOD))

    assert "planner:  9 of 15 candidates fit; 180 GPU-seconds used, about 58 saved by skipping" in text
    assert (
        "NoCacheBlocks: 6, of them skipped 6; judgeMemory=0.40: judge: the budget of 4.80 GiB is 0.77 GiB less" in text
    )
    assert "nothing-fits: Failed after 1.8 s, NothingFeasible, 0 pods" in text
    assert "none of 4 candidates can start; the baseline: judge: the budget" in text


def test_the_report_says_what_of_the_simpler_experiment_was_kept_and_what_the_copy_saved() -> None:
    text = "\n".join(lines(GOOD))

    assert "staging (SimplerThanTarget: ServicesMissing): 4 trials run, 130 GPU-seconds" in text
    assert "whisperModel=tiny: kept" in text
    assert "judgeMemory=0.85: left out: CardTaken: in edge-staging, beside embeddings, chat: judge: 9.40 GiB" in text
    assert "simpler-1 (stt.ASR_WHISPER_SIZE=tiny): Promoted: staging Promoted in 0.0 s, production Promoted" in text
    assert "copied, on a copy of staging and with the planner: 2 trials run, 60 GPU-seconds" in text
    assert "its profile: stt.ASR_WHISPER_SIZE=tiny; 70 GPU-seconds saved" in text


def test_a_killed_run_that_tells_the_same_story_holds() -> None:
    assert failed(list(same_outcome(GOOD, KILLED))) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (replaced(kills=("trial: x", "profile: y")), "killed three times"),
        (with_trial(3, reason="StartTimeout"), "same phase and reason"),
        (replaced(trials=GOOD.trials[:-1]), "same phase and reason"),
        (with_winner(parameters={"judgeMemory": "0.55", "whisperModel": "tiny"}), "same winner"),
        (replaced(winner=None), "same winner"),
        (replaced(profile=None), "same revisions"),
        (replaced(target=None), "of the second site as without kills"),
        (replaced(profile=profile("voice-0e4aea", staging="Promoted")), "same revisions"),
    ],
)
def test_a_killed_run_that_ends_otherwise_fails_that_expectation_alone(change: Change, what: str) -> None:
    found = failed(list(same_outcome(GOOD, change(KILLED))))

    assert len(found) == 1, found
    assert what in found[0]


def test_a_summary_survives_its_file() -> None:
    judged = GOOD.model_copy(update={"checks": tuple(checks(GOOD))})

    assert Summary.model_validate_json(judged.model_dump_json()) == judged


def test_a_killed_run_is_compared_with_a_good_run_of_this_version_only(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    judged = GOOD.model_copy(update={"checks": tuple(checks(GOOD))})
    bad = judged.model_copy(update={"checks": (Check(what="x", holds=False, seen=""),)})

    assert good_run(file) is None
    for text in ("{}", GOOD.model_dump_json(), bad.model_dump_json()):
        file.write_text(text)
        assert good_run(file) is None
    file.write_text(judged.model_dump_json())
    assert good_run(file) == judged
