from pathlib import Path

import pytest
from cotune.measurement.agent.contract import OutOfMemoryKills
from cotune.measurement.agent.oom_kills import kills_in, oom_kills

ID, OTHER = "a" * 64, "b" * 64
UID = "0b5cbb7e-6f4e-4d2e-9a3b-1c2d3e4f5a6b"
SLICE = f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice"


def put(root: Path, group: str, file: str, text: str) -> None:
    (root / group).mkdir(parents=True, exist_ok=True)
    (root / group / file).write_text(text)


def events(kills: int, groups: int = 0) -> str:
    return f"low 0\nhigh 0\nmax 31\noom 2\noom_kill {kills}\noom_group_kill {groups}\n"


def control(kills: int) -> str:
    return f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"


def test_version_2_counts_for_each_container_and_all_groups_in_it(tmp_path: Path) -> None:
    put(tmp_path, SLICE, "memory.events", events(2))
    put(tmp_path, f"{SLICE}/cri-containerd-{ID}.scope", "memory.events", events(2))
    put(tmp_path, f"{SLICE}/cri-containerd-{ID}.scope/worker", "memory.events", events(2))
    put(tmp_path, f"{SLICE}/cri-containerd-{OTHER}.scope", "memory.events", events(0))

    assert oom_kills(tmp_path) == (OutOfMemoryKills(container=ID, pod=UID, kills=2),)


def test_version_1_counts_for_each_group(tmp_path: Path) -> None:
    pod = f"memory/kubepods/burstable/pod{UID}"
    put(tmp_path, pod, "memory.oom_control", control(0))
    put(tmp_path, f"{pod}/{ID}", "memory.oom_control", control(1))
    put(tmp_path, f"{pod}/{ID}/docker/{OTHER}", "memory.oom_control", control(2))

    found = oom_kills(tmp_path)

    assert found is not None
    assert {(it.container, it.pod) for it in found} == {(ID, UID)}
    assert sum(it.kills for it in found) == 3


def test_without_kills_there_are_none_and_without_counters_it_is_not_known(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
    put(tmp_path, "user.slice", "memory.events", events(7))
    assert oom_kills(tmp_path) is None, "not a container's"

    put(tmp_path, f"{SLICE}/crio-{ID}.scope", "memory.events", events(0))

    assert oom_kills(tmp_path) == ()


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        (events(3), 3),
        (events(3, groups=1), 1),
        ("low 0\noom 1\noom_kill 1\n", 1),
        (control(4), 4),
        ("oom_kill_disable 0\nunder_oom 0\n", None),
        ("", None),
    ],
)
def test_a_group_that_was_killed_as_a_whole_is_one_event(counters: str, expected: int | None) -> None:
    assert kills_in(counters) == expected
