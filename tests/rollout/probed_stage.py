"""A stage with a probe and two gates of it, and runs of that probe, for this folder's tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cotune.api.profile import Stage
from cotune.api.stage_probe import ProbeRun, StageProbe
from cotune.api.trial import Measurement
from cotune.rollout.gates import Baking
from support.probed_stages import PROBE, gate

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
SINCE = BEGAN + timedelta(minutes=2)
BAKE_SECONDS = 300
END = SINCE + timedelta(seconds=BAKE_SECONDS)
BAKING = Baking(BEGAN, SINCE, generation=3)
P95, ERRORS = "stt.latency.p95", "stt.errorRate"


def probed_stage(*gates: dict[str, Any], runs: int = 3) -> Stage:
    """It bakes for five minutes, in which its probe runs three times, unless told otherwise."""
    return Stage.model_validate(
        {
            "name": "production",
            "namespace": "voice-prod",
            "bakeSeconds": BAKE_SECONDS,
            "gates": gates or (gate(), gate(ERRORS, name="errors")),
            "probe": PROBE | {"runs": runs},
        }
    )


def probe_of(stage: Stage) -> StageProbe:
    assert stage.probe is not None
    return stage.probe


def run(number: int, p95: float = 300, *, samples: int = 40, error: str = "", errors: str | None = "0") -> ProbeRun:
    """A run that was over so many minutes after the stage began to bake."""
    measured = [Measurement(metric=P95, value=str(p95), samples=samples)]
    if errors is not None:
        measured.append(Measurement(metric=ERRORS, value=errors, samples=samples))
    ended = SINCE + timedelta(minutes=number)
    return ProbeRun(number=number, ended_at=ended, measurements=() if error else tuple(measured), error=error)
