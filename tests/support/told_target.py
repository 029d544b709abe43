"""A good run of the second site's story, as data."""

from datetime import UTC, datetime

from cotune_demo.summary import (
    ProfileSummary,
    StageSummary,
    TargetExperimentSummary,
    TargetSummary,
    TrialSummary,
    ValidatedSummary,
)

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
NO_ROOM = "in edge-staging, beside embeddings, chat: judge: 9.40 GiB are free, and 10.20 GiB are asked for"
TINY = ValidatedSummary(parameter="whisperModel", value="tiny", kept=True, reason="Validated", message="")
MORE = ValidatedSummary(parameter="judgeMemory", value="0.85", kept=False, reason="CardTaken", message=NO_ROOM)
CHANGES = {"stt.ASR_WHISPER_SIZE": "tiny"}


def run(experiment: str, memory: str, whisper: str, is_skipped: bool = False) -> TrialSummary:
    return TrialSummary(
        name=f"{experiment}-{memory}-{whisper}".replace(".", ""),
        parameters={"judgeMemory": memory, "whisperModel": whisper},
        repeat=0,
        phase="Skipped" if is_skipped else "Succeeded",
        reason="CardTaken" if is_skipped else "",
        message=NO_ROOM if is_skipped else "",
        metrics={},
        fitness=None,
        predicted="",
        started_at=NOW,
        finished_at=NOW,
        probe_pods=0 if is_skipped else 1,
    )


def experiment(name: str, gpu_seconds: float, is_planned: bool) -> TargetExperimentSummary:
    told = {"StackCopied": "Copied"} if is_planned else {"SimplerThanTarget": "ServicesMissing"}
    return TargetExperimentSummary(
        name=name,
        phase="Succeeded",
        conditions={"TargetCopied": "Copied", **told},
        gpu_seconds=gpu_seconds,
        trials=tuple(
            run(name, memory, whisper, is_skipped=is_planned and memory == "0.85")
            for memory in ("0.50", "0.85")
            for whisper in ("tiny", "small")
        ),
        validated=(TINY,) if is_planned else (TINY, MORE),
        changes=CHANGES,
    )


def profile(production: str = "Promoted") -> ProfileSummary:
    stages = tuple(
        StageSummary(
            name=name,
            phase=phase,
            message="",
            revision="cotune-2",
            last_good_revision="cotune-1",
            started_at=NOW,
            finished_at=NOW,
        )
        for name, phase in (("staging", "Promoted"), ("production", production))
    )
    return ProfileSummary(name="simpler-1", changes=CHANGES, phase=production, stages=stages)


GOOD_TARGET = TargetSummary(
    simpler=experiment("simpler", 130.0, is_planned=False),
    copied=experiment("copied", 60.0, is_planned=True),
    profile=profile(),
    values={"edge-staging": "tiny", "edge-prod": "tiny"},
    gpu_seconds_saved=70.0,
)
