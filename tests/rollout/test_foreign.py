"""What others do to the workloads of a stage in progress."""

from collections.abc import Mapping

import pytest
from cotune.rollout.convergence import Scale, SetValues, converge
from cotune.rollout.foreign import edited, scaled_by_others, with_their_replicas
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision

TARGET = Revision(
    (WorkloadRevision("judge", {"MEMORY": "0.55"}, 1), WorkloadRevision("stt", {"SIZE": "tiny"}, 2)),
)
OURS = "cotune-0123456789"


def seen(memory: str = "0.55", size: str = "tiny", judges: int = 1, stts: int = 2) -> dict[str, ObservedWorkload]:
    return {
        "judge": ObservedWorkload({"MEMORY": memory}, judges, judges, True),
        "stt": ObservedWorkload({"SIZE": size}, stts, stts, True),
    }


@pytest.mark.parametrize(
    ("observed", "markers", "who"),
    [
        (seen(), {"judge": OURS, "stt": OURS}, []),
        (seen(size="base"), {"judge": OURS, "stt": OURS}, ["stt"]),
        (seen(size="base"), {"judge": OURS, "stt": None}, []),
        (seen(size="base"), {"judge": OURS}, []),
        (seen(memory="0.5", size="small"), {"judge": "cotune-of-before", "stt": "cotune-of-before"}, []),
        ({"judge": seen(memory="0.5")["judge"]}, {"judge": OURS, "stt": OURS}, ["judge"]),
    ],
)
def test_a_template_with_the_mark_and_other_values_was_edited(
    observed: Mapping[str, ObservedWorkload], markers: Mapping[str, str | None], who: list[str]
) -> None:
    assert edited(TARGET, observed, markers, OURS) == who


@pytest.mark.parametrize(
    ("observed", "who"),
    [
        (seen(), []),
        (seen(judges=0, stts=0), []),
        (seen(stts=1), ["stt"]),
        (seen(judges=3, stts=0), ["judge"]),
        ({}, []),
    ],
)
def test_other_replicas_than_those_that_cotune_sets_are_somebody_elses(
    observed: Mapping[str, ObservedWorkload], who: list[str]
) -> None:
    assert scaled_by_others(TARGET, observed) == who


def test_an_autoscaler_has_the_replicas_of_what_it_scales_and_of_nothing_else() -> None:
    def replicas(observed: Mapping[str, ObservedWorkload]) -> dict[str, int]:
        return {it.component: it.replicas for it in with_their_replicas(TARGET, observed, {"stt"}).workloads}

    assert replicas(seen(judges=3, stts=5)) == {"judge": 1, "stt": 5}
    assert replicas(seen(judges=0, stts=0)) == {"judge": 1, "stt": 2}, "it leaves zero alone"
    assert replicas({}) == {"judge": 1, "stt": 2}


def test_a_way_forward_waits_for_a_workload_that_is_gone_and_does_nothing_meanwhile() -> None:
    stopped = seen(memory="0.5", judges=0)

    found = converge(TARGET, {"judge": stopped["judge"]})

    assert (found.actions, found.waiting_for) == ((), "workload of stt")


def test_a_way_back_brings_the_others_back_and_then_waits_for_the_workload_that_is_gone() -> None:
    def step(judge: ObservedWorkload) -> tuple[object, str]:
        found = converge(TARGET, {"judge": judge}, is_way_back=True)
        assert not found.is_complete
        return found.actions, found.waiting_for

    other = seen(memory="0.5")["judge"]
    assert step(other) == ((Scale("judge", 0),), "judge to stop")
    stopped = seen(memory="0.5", judges=0)["judge"]
    assert step(stopped) == ((SetValues("judge", {"MEMORY": "0.55"}),), "the values to be written")
    assert step(seen(judges=0)["judge"]) == ((Scale("judge", 1),), "judge to start")
    assert step(seen()["judge"]) == ((), "workload of stt")
