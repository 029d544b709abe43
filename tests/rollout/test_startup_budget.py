"""Whether a probe leaves a start the time that it was measured to take."""

from typing import Any

import pytest
from cotune.api.profile import Expect, ExpectedStartup
from cotune.rollout.startup_budget import startup_budget, too_small

HEALTH = {"httpGet": {"path": "/health", "port": 8000}}
ALIVE = {"httpGet": {"path": "/alive", "port": 8000}}
EXPECT = Expect(startup_seconds=(ExpectedStartup(component="judge", seconds=74),))


def probe(
    question: dict[str, Any], delay: int | None = None, period: int | None = None, failures: int | None = None
) -> dict[str, Any]:
    times = {"initialDelaySeconds": delay, "periodSeconds": period, "failureThreshold": failures}
    return question | {name: it for name, it in times.items() if it is not None}


@pytest.mark.parametrize(
    ("container", "name", "seconds"),
    [
        ({"livenessProbe": probe(HEALTH)}, "livenessProbe", 30),
        ({"livenessProbe": probe(HEALTH, 60, 5, 2)}, "livenessProbe", 70),
        ({"livenessProbe": probe(HEALTH, 1, 1, 1), "startupProbe": probe(HEALTH, 0, 10, 30)}, "startupProbe", 300),
        ({"livenessProbe": probe(HEALTH, 5), "readinessProbe": probe(HEALTH, 0, 1)}, "livenessProbe", 35),
    ],
)
def test_the_probe_that_ends_a_start_has_a_budget(container: dict[str, Any], name: str, seconds: int) -> None:
    budget = startup_budget(container)

    assert budget is not None
    assert (budget.probe, budget.seconds) == (name, seconds)


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"readinessProbe": probe(HEALTH)},
        {"livenessProbe": probe(ALIVE), "readinessProbe": probe(HEALTH)},
        {"livenessProbe": probe({"tcpSocket": {"port": 8000}}), "readinessProbe": probe(HEALTH)},
    ],
)
def test_a_probe_that_may_be_answered_before_readiness_is_not_judged(container: dict[str, Any]) -> None:
    assert startup_budget(container) is None
    assert too_small(EXPECT, {"judge": container}) is None


def test_a_budget_smaller_than_the_measured_start_is_told_with_its_figures() -> None:
    small = {"name": "vllm", "livenessProbe": probe(HEALTH, 10, 10, 6)}

    assert too_small(EXPECT, {"judge": small, "stt": small}) == (
        "judge: the livenessProbe of container vllm ends a start after 70 s "
        "(initialDelaySeconds 10 + periodSeconds 10 x failureThreshold 6), and it was measured to take 74 s"
    )


@pytest.mark.parametrize("expect", [None, Expect(), EXPECT])
def test_a_budget_that_is_enough_or_against_which_nothing_is_known_is_well(expect: Expect | None) -> None:
    assert too_small(expect, {"judge": {"livenessProbe": probe(HEALTH, 14, 10, 6)}}) is None
