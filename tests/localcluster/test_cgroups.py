"""Control groups on machines of both versions."""

from pathlib import Path

from localcluster.cgroups import Hierarchy, InstanceGroup, parse_mounts

VERSION_1 = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""


def test_a_machine_with_version_1_has_a_hierarchy_per_controller() -> None:
    hierarchies = parse_mounts(VERSION_1)
    assert [(it.mount.name, it.version) for it in hierarchies] == [("cpuset", 1), ("pids", 1), ("unified", 2)]
    assert "pids" in hierarchies[1].controllers


def test_a_machine_with_version_2_has_one() -> None:
    assert parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == [
        Hierarchy(Path("/sys/fs/cgroup"), 2, frozenset())
    ]


def test_processes_of_all_inner_groups_are_found(tmp_path: Path) -> None:
    pod = tmp_path / "cotune-x" / "lab" / "kubepods" / "pod1"
    pod.mkdir(parents=True)
    (pod / "cgroup.procs").write_text("11\n12\n")
    (tmp_path / "cotune-x" / "cgroup.procs").write_text("10\n")
    (tmp_path / "cotune-other").mkdir()
    (tmp_path / "cotune-other" / "cgroup.procs").write_text("99\n")
    group = InstanceGroup("cotune-x", [Hierarchy(tmp_path, 1, frozenset({"pids"}))])
    assert group.processes() == {10, 11, 12}


def test_pods_together_weigh_more_than_a_thread_of_a_daemon(tmp_path: Path) -> None:
    InstanceGroup("cotune-x", [Hierarchy(tmp_path, 1, frozenset({"cpu"}))]).create(["lab"])

    assert int((tmp_path / "cotune-x" / "cpu.shares").read_text()) > 1024
    assert not (tmp_path / "cotune-x" / "lab" / "cpu.shares").exists()


def test_an_instance_that_never_ran_has_no_processes_and_is_removed(tmp_path: Path) -> None:
    group = InstanceGroup("cotune-x", [Hierarchy(tmp_path, 1, frozenset({"pids"}))])
    assert group.processes() == set()
    group.kill()
    group.remove()
