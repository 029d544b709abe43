import pytest
from cotune.measurement.agent.contract import LONGEST_SERIES
from cotune.measurement.agent.ownership import Owner, Process
from cotune.measurement.agent.window import OwnedReading, lost, tenants

POD, OTHER_POD = "pod-1", "pod-2"
SERVER = Process(10, "vllm", Owner("a", POD))
ENGINE = Process(11, "VLLM::EngineCor", Owner("a", POD))
SIDECAR = Process(12, "python3", Owner("b", POD))
ANOTHER = Process(20, "python3", Owner("c", OTHER_POD))
XORG = Process(30, "Xorg", Owner())
DOCKER = Process(40, "train", Owner("d"))


def test_a_pods_containers_and_processes_are_one_tenant() -> None:
    readings = [
        OwnedReading({SERVER: 100.0, ENGINE: 5_000.0, SIDECAR: 50.0, ANOTHER: 700.0}),
        OwnedReading({SERVER: 100.0, ENGINE: 6_000.0, ANOTHER: 900.0}),
        OwnedReading({SERVER: 100.0, ENGINE: 5_500.0, SIDECAR: 300.0, ANOTHER: 800.0}),
    ]

    mine, other = tenants(readings)

    assert (mine.pod, mine.containers) == (POD, ("a", "b"))
    assert [(it.pid, it.name, it.container) for it in mine.processes] == [
        (10, "vllm", "a"),
        (11, "VLLM::EngineCor", "a"),
        (12, "python3", "b"),
    ]
    assert (mine.least_mib, mine.most_mib, mine.memory_mib) == (5_150, 6_100, (5_150, 6_100, 5_900))
    assert (other.pod, other.containers, other.least_mib, other.most_mib) == (OTHER_POD, ("c",), 700, 900)


def test_what_is_no_pods_is_the_containers_or_the_nodes() -> None:
    found = tenants([OwnedReading({XORG: 60.0, DOCKER: 512.0})])

    assert [(it.pod, it.containers, it.most_mib) for it in found] == [("", ("d",), 512), ("", (), 60)]


def test_who_comes_or_goes_within_the_window_has_held_nothing_for_a_while() -> None:
    [found] = tenants([OwnedReading({}), OwnedReading({ANOTHER: 512.0}), OwnedReading({})])

    assert (found.least_mib, found.most_mib, found.memory_mib) == (0, 512, (0, 512, 0))


def test_a_long_window_is_told_in_parts_with_the_most_of_each() -> None:
    [found] = tenants([OwnedReading({ANOTHER: float(it)}) for it in range(6_000)])

    assert len(found.memory_mib) == LONGEST_SERIES
    assert found.memory_mib[:2] == (9, 19)
    assert found.memory_mib[-1] == found.most_mib == 5_999


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([OwnedReading({SERVER: 1.0}, frozenset({99}))], (99,)),
        ([OwnedReading({}, frozenset({10})), OwnedReading({SERVER: 1.0})], ()),
        ([OwnedReading({SERVER: 1.0})], ()),
    ],
)
def test_only_who_was_never_known_is_lost(readings: list[OwnedReading], expected: tuple[int, ...]) -> None:
    assert lost(readings) == expected
