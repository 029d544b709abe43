"""How layers that are already unpacked become a node's own."""

import hashlib
import json
from pathlib import Path, PurePosixPath

import pytest
from localcluster.errors import LocalClusterError
from localcluster.shared_layers import chain_identifiers, unpacked_layers, writable_snapshot


def test_a_chain_starts_with_its_lowest_layer() -> None:
    assert chain_identifiers(["sha256:a"]) == ["sha256:a"]


def test_an_upper_layer_is_identified_together_with_those_below() -> None:
    chain = chain_identifiers(["sha256:a", "sha256:b"])
    assert chain[1] == f"sha256:{hashlib.sha256(b'sha256:a sha256:b').hexdigest()}"
    assert chain_identifiers(["sha256:c", "sha256:b"])[1] != chain[1]


def test_folders_of_the_build_storage_are_found_by_digest(tmp_path: Path) -> None:
    (tmp_path / "overlay-layers").mkdir()
    layers = [{"id": "1", "diff-digest": "sha256:a"}, {"id": "unfinished"}]
    (tmp_path / "overlay-layers" / "layers.json").write_text(json.dumps(layers))
    assert unpacked_layers(tmp_path) == {"sha256:a": PurePosixPath("overlay/1/diff")}


def test_without_any_build_no_layer_is_at_hand(tmp_path: Path) -> None:
    assert unpacked_layers(tmp_path) == {}


def test_the_lowest_snapshot_is_a_plain_folder() -> None:
    mounts = [{"Type": "bind", "Source": "/r/snapshots/2/fs", "Options": ["rw", "rbind"]}]
    assert writable_snapshot(json.dumps(mounts)) == "2"


def test_an_upper_snapshot_is_the_writable_folder_of_an_overlay() -> None:
    options = ["index=off", "workdir=/r/snapshots/7/work", "upperdir=/r/snapshots/7/fs", "lowerdir=/r/snapshots/2/fs"]
    assert writable_snapshot(json.dumps([{"Type": "overlay", "Source": "overlay", "Options": options}])) == "7"


def test_mounts_of_another_snapshotter_are_refused() -> None:
    with pytest.raises(LocalClusterError, match="no snapshot folder"):
        writable_snapshot(json.dumps([{"Type": "native", "Source": "/elsewhere", "Options": []}]))
