from pathlib import Path

import pytest
from cotune.measurement.agent.ownership import Owner, Ownership, Process, owner

ID = "3f2a9c01b4d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2"
INNER = "0" * 64
UID = "0b5cbb7e-6f4e-4d2e-9a3b-1c2d3e4f5a6b"
SPELT_BY_SYSTEMD = UID.replace("-", "_")
SLICES = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SPELT_BY_SYSTEMD}.slice"


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/kubepods/burstable/pod{UID}/{ID}\n",
        f"0::/kubepods/besteffort/pod{UID}/{ID}\n",
        f"0::/kubepods/pod{UID}/{ID}\n",
        f"0::{SLICES}/cri-containerd-{ID}.scope\n",
        f"0::{SLICES}/crio-{ID}.scope\n",
        f"0::{SLICES}/crio-{ID}.scope/container\n",
        f"0::{SLICES}/docker-{ID}.scope\n",
        f"0::/kubepods.slice/kubepods-pod{SPELT_BY_SYSTEMD}.slice/cri-containerd-{ID}.scope\n",
        # As a process in a control group namespace of its own sees a stranger.
        f"0::/../../kubepods-burstable-pod{SPELT_BY_SYSTEMD}.slice/cri-containerd-{ID}.scope\n",
        f"0::/../../pod{UID}/{ID}\n",
        # A node in a container: kind, and the local cluster of this repository.
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SPELT_BY_SYSTEMD}.slice/cri-containerd-{ID}.scope\n",
        f"0::/docker/{INNER}/kubelet/kubepods/burstable/pod{UID}/{ID}\n",
        f"0::/cotune-local/lab/kubepods/burstable/pod{UID}/{ID}\n",
        # containerd's driver is cgroupfs, the kubelet's is systemd.
        f"0::/system.slice/kubepods-burstable-pod{SPELT_BY_SYSTEMD}.slice:cri-containerd:{ID}\n",
        # The container runs containers.
        f"0::/kubepods/burstable/pod{UID}/{ID}/docker/{INNER}\n",
        # Version 1: a line for each hierarchy, in any order; not all of them have groups.
        f"11:cpuset:/\n9:name=systemd:/\n4:memory:/kubepods/burstable/pod{UID}/{ID}\n0::/\n",
        f"12:pids:{SLICES}/cri-containerd-{ID}.scope\n1:name=systemd:{SLICES}/cri-containerd-{ID}.scope\n0::/init.scope\n",
        f"3:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n2:memory:/system.slice/containerd.service\n",
    ],
)
def test_a_process_of_a_pod_is_its_containers(cgroup: str) -> None:
    assert owner(cgroup) == Owner(ID, UID)


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/docker/{ID}\n",
        f"0::/machine.slice/libpod-{ID}.scope/container\n",
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n",
    ],
)
def test_a_container_without_a_kubelet_has_no_pod(cgroup: str) -> None:
    assert owner(cgroup) == Owner(ID, "")


@pytest.mark.parametrize(
    "cgroup",
    [
        "0::/\n",
        "",
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        "0::/system.slice/containerd.service\n",
        "4:memory:/system.slice/gdm.service\n0::/system.slice/gdm.service\n",
        f"0::/machine.slice/libpod-conmon-{ID}.scope\n",
        "0::/kubepods.slice/kubepods-podsomething.slice\n",
        f"0::/user.slice/{ID[:40]}\n",
    ],
)
def test_a_process_of_the_node_is_nobodys(cgroup: str) -> None:
    assert owner(cgroup) == Owner()


def test_the_monitor_of_a_container_is_the_pods_and_not_the_containers() -> None:
    assert owner(f"0::{SLICES}/crio-conmon-{ID}.scope\n") == Owner("", UID)


def test_a_static_pods_uid_has_no_dashes() -> None:
    assert owner(f"0::/kubepods/burstable/pod{UID.replace('-', '')}/{ID}\n") == Owner(ID, UID.replace("-", ""))


def put(proc: Path, pid: int, started: int, cgroup: str, name: str = "python3") -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    rest = " ".join(str(it) for it in range(4, 22))
    (folder / "stat").write_text(f"{pid} (a (name) of) S {rest} {started} 0 0\n")
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cgroup").write_text(cgroup)


def end(proc: Path, pid: int) -> None:
    for it in (proc / str(pid)).iterdir():
        it.unlink()
    (proc / str(pid)).rmdir()


def test_a_process_that_has_ended_is_still_who_it_was(tmp_path: Path) -> None:
    put(tmp_path, 7, 100, f"0::/kubepods/pod{UID}/{ID}\n")
    ownership = Ownership(tmp_path)
    expected = Process(7, "python3", Owner(ID, UID))
    assert ownership.of(7) == expected

    end(tmp_path, 7)

    assert ownership.of(7) == expected
    assert Ownership(tmp_path).of(7) is None, "nobody has read it before"


def test_a_number_that_is_given_to_another_process_is_another_process(tmp_path: Path) -> None:
    put(tmp_path, 7, 100, f"0::/kubepods/pod{UID}/{ID}\n")
    ownership = Ownership(tmp_path)
    ownership.of(7)

    put(tmp_path, 7, 200, "0::/user.slice\n", name="miner")

    assert ownership.of(7) == Process(7, "miner", Owner())


def test_this_process_is_found_in_the_real_proc() -> None:
    pid = int(Path("/proc/self").readlink().name)
    found = Ownership().of(pid)

    assert found is not None
    assert found.name == Path("/proc/self/comm").read_text().strip()
