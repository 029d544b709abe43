"""What the demonstration of validation on the target expects: each expectation fails for what it is there for."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cotune.api.conditions import Condition, ConditionStatus
from cotune.api.experiment import ExperimentStatus, ValidatedChange, ValidationSummary
from cotune_demo.target import Target, Told, expectations, summary

TINY = ValidatedChange(parameter="whisperModel", value="tiny", kept=True, reason="Validated")
MORE = ValidatedChange(
    parameter="judgeMemory",
    value="0.85",
    kept=False,
    reason="CardTaken",
    message="in voice-staging, beside embeddings, chat: judge: 9.40 GiB are free, and 10.20 GiB are asked for",
)
CHANGE: dict[str, Any] = {"component": "stt", "env": "ASR_WHISPER_SIZE", "from": "small", "to": "tiny"}
SIMPLER, COPIED = ("SimplerThanTarget", "ServicesMissing"), ("TargetCopied", "Copied")


def told(
    seconds: str,
    changes: tuple[ValidatedChange, ...] = (TINY, MORE),
    reasons: tuple[tuple[str, str], ...] = (SIMPLER, COPIED),
) -> Told:
    conditions = tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE,
            observed_generation=1,
            last_transition_time=datetime(2026, 11, 27, tzinfo=UTC),
            reason=reason,
            message="",
        )
        for kind, reason in reasons
    )
    validation = ValidationSummary(changes=changes)
    status = ExperimentStatus(conditions=conditions, validation=validation, gpu_seconds=seconds)
    trial = {"spec": {"skipped": False}, "status": {"startedAt": "2026-11-27T12:00:00Z"}}
    return Told(status, (trial, trial | {"spec": {"skipped": True}}), (CHANGE,))


GOOD = Target(
    simpler=told("130.0"),
    copied=told("60.0"),
    phases=("Promoted", "Promoted"),
    sizes=(("voice-staging", "tiny"), ("voice-prod", "tiny")),
)


def test_the_summary_says_how_many_gpu_seconds_were_saved() -> None:
    found = json.loads(json.dumps(summary(GOOD, list(expectations(GOOD)))))

    assert found["gpuSecondsSaved"] == 70.0
    assert found["experiments"]["copied"] == {
        "gpuSeconds": 60.0,
        "trialsStarted": 1,
        "trialsSkipped": 1,
        "changes": [CHANGE],
        "validated": [
            {"parameter": "whisperModel", "value": "tiny", "kept": True, "reason": "Validated"},
            {"parameter": "judgeMemory", "value": "0.85", "kept": False, "reason": "CardTaken"},
        ],
    }
    assert "simulation" in found
    assert len(found["checks"]) == 6


def test_all_of_it_holds_when_everything_went_well() -> None:
    found = list(expectations(GOOD))

    assert len(found) == 6
    assert all(it.holds for it in found)
    assert "60 s in 1 trials, and 130 s in 1" in found[-1].seen


@pytest.mark.parametrize(
    ("number", "bad"),
    [
        (0, replace(GOOD, simpler=told("130.0", reasons=(COPIED,)))),
        (0, replace(GOOD, simpler=told("130.0", reasons=(SIMPLER, ("TargetCopied", "NoGrant"))))),
        (1, replace(GOOD, simpler=told("130.0", changes=(TINY.model_copy(update={"kept": False}), MORE)))),
        (1, replace(GOOD, simpler=told("130.0", changes=(MORE,)))),
        (2, replace(GOOD, simpler=told("130.0", changes=(TINY,)))),
        (2, replace(GOOD, simpler=told("130.0", changes=(TINY, MORE.model_copy(update={"reason": "NoGainAlone"}))))),
        (2, replace(GOOD, simpler=told("130.0", changes=(TINY, MORE.model_copy(update={"message": "no room"}))))),
        (3, replace(GOOD, phases=("Promoted", "RolledBack"))),
        (3, replace(GOOD, sizes=(("voice-staging", "tiny"), ("voice-prod", "small")))),
        (4, replace(GOOD, copied=replace(GOOD.copied, changes=()))),
        (5, replace(GOOD, copied=told("131.0"))),
    ],
)
def test_each_expectation_fails_for_what_it_is_there_for(number: int, bad: Target) -> None:
    assert [index for index, it in enumerate(expectations(bad)) if not it.holds] == [number]
