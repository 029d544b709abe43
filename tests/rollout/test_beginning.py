"""What keeps a stage from beginning."""

import pytest
from cotune.rollout.beginning import unfit
from cotune.rollout.state import ObservedWorkload

WELL = ObservedWorkload({}, 1, 1, True)
NAMES = {"judge": "judge-server", "stt": "whisper"}


def test_a_stage_whose_workloads_are_well_may_begin() -> None:
    assert unfit(("judge", "stt"), "voice", NAMES, {"judge": WELL, "stt": WELL}, {}) is None


@pytest.mark.parametrize(
    ("observed", "autoscalers", "reason", "stalled"),
    [
        ({"judge": WELL}, {}, "WorkloadNotFound", True),
        ({"judge": WELL, "stt": ObservedWorkload({}, 1, 1, True, unbindable="no")}, {}, "NotBindable", True),
        ({"judge": WELL, "stt": ObservedWorkload({}, 0, 0, True)}, {}, "WorkloadAtZero", True),
        ({"judge": WELL, "stt": WELL}, {"judge": "busy"}, "WorkloadAutoscaled", True),
        ({"judge": WELL, "stt": ObservedWorkload({}, 1, 1, False)}, {}, "StageNotReady", False),
    ],
)
def test_a_stage_does_not_begin_on_workloads_that_are_not_fit(
    observed: dict[str, ObservedWorkload], autoscalers: dict[str, str], reason: str, stalled: bool
) -> None:
    waiting = unfit(("judge", "stt"), "voice", NAMES, observed, autoscalers)

    assert waiting is not None
    assert (waiting.reason, waiting.is_stalled) == (reason, stalled)
