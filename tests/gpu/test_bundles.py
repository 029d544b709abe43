"""What travels arrives: weights, digests, Debian's files."""

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from gpu.bundle import pack, write_manifest
from gpu.cluster_bundle import kept, merged
from gpu.cluster_files import add_missing
from gpu.install import BundleError, folder_of, install, installed
from gpu.stack_bundle import weight_files
from gpu.whisper_models import read_state


def test_weights_come_back_within_half_a_step_of_their_rows_scale(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    state = {
        "decoder.ln.weight": random.standard_normal(8).astype(np.float16),
        "decoder.blocks.0.mlp.0.weight": random.standard_normal((8, 4)).astype(np.float16),
        "encoder.conv1.weight": random.standard_normal((8, 4, 3)).astype(np.float16),
    }
    for name, content in weight_files("tiny.en", {"n_mels": 80}, state).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    dimensions, found = read_state(tmp_path / "tiny.en")

    assert dimensions == {"n_mels": 80}
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found["decoder.ln.weight"], state["decoder.ln.weight"])
    for name, value in state.items():
        step = np.abs(value.astype(np.float32)).max() / 127
        assert np.abs(found[name].astype(np.float32) - value.astype(np.float32)).max() <= 0.6 * step, name


def test_bundles_are_unpacked_one_after_the_other_into_one_folder(tmp_path: Path) -> None:
    for number, (part, files) in enumerate(
        {"packages": {"one.py": b"1"}, "whisper-1": {"tiny.en/x.npy": b"2"}}.items()
    ):
        bundle = tmp_path / f"bundle-{number}"
        bundle.mkdir()
        pack(files, bundle / f"{part}.tar.xz")
        write_manifest(bundle, [f"wheel-{number}"])
        install([bundle], tmp_path / "into")

    assert (tmp_path / "into" / "site" / "one.py").read_bytes() == b"1"
    assert (tmp_path / "into" / "weights" / "tiny.en" / "x.npy").read_bytes() == b"2"
    assert installed(tmp_path / "into") == ["wheel-0"]  # Only what came with packages.


def test_a_part_that_was_changed_on_the_way_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    pack({"one.py": b"1"}, bundle / "packages.tar.xz")
    write_manifest(bundle, [])
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["parts"]["packages.tar.xz"]["sha256"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match="packages"):
        install([bundle], tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("part", "folder"),
    [
        ("vllm.tar.xz", "site"),
        ("operator.tar.xz", "site"),
        ("whisper-2.tar.xz", "weights"),
        ("cluster-node.tar.xz", "cluster"),
        ("speech.tar.xz", "speech"),
    ],
)
def test_a_parts_name_says_where_it_goes(part: str, folder: str) -> None:
    assert folder_of(part) == folder


def test_what_the_machine_has_already_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source / "usr/sbin", target / "usr/sbin"):
        folder.mkdir(parents=True)
    (source / "usr/sbin/ip").write_text("Debian's")
    (source / "usr/sbin/runc").symlink_to("ip")
    (target / "usr/sbin/ip").write_text("the machine's")

    assert add_missing(source, target) == ["usr/sbin/runc"]
    assert (target / "usr/sbin/ip").read_text() == "the machine's"
    assert add_missing(source, target) == []


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [
        ("bin/ip", True),
        ("sbin/iptables-restore", True),
        ("sbin/bridge", False),
        ("usr/lib/cni/ptp", True),
        ("usr/lib/cni/vlan", False),
        ("lib/x86_64-linux-gnu/libelf-0.188.so", True),
        ("usr/lib/x86_64-linux-gnu/libmnl.so.0", True),
        ("usr/lib/x86_64-linux-gnu/xtables/libxt_mark.so", True),
        ("usr/share/doc/runc/copyright", False),
    ],
)
def test_of_debians_packages_programs_plugins_and_libraries_are_kept(path: str, is_kept: bool) -> None:
    assert kept(merged(PurePosixPath(path))) is is_kept
