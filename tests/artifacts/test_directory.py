"""The directory store: whole or not at all, and never a wrong answer."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.record import digest_of
from cotune.artifacts.store import DamagedError, Entry, NotStoredError, StoreError
from support.small_disk import small_disk

CONTENT = b"what was measured"
DIGEST = digest_of(CONTENT)


def file(root: Path) -> Path:
    return root / DIGEST[7:9] / f"{DIGEST[7:]}.json.gz"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def test_what_was_stored_is_there(store: DirectoryStore) -> None:
    assert store.put(CONTENT) == DIGEST
    assert store.get(DIGEST) == CONTENT
    assert list(store.list()) == [Entry(DIGEST, len(CONTENT))]


def test_sha256sum_gives_the_name_of_the_file(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(CONTENT)

    said = subprocess.run(["sha256sum", file(tmp_path)], capture_output=True, text=True, check=True).stdout

    assert f"sha256:{said.split()[0]}" == DIGEST


def test_storing_twice_writes_once(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(CONTENT)
    before = file(tmp_path).stat()
    store.put(CONTENT)

    assert file(tmp_path).stat() == before


def test_another_process_finds_it_again(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(CONTENT)

    assert DirectoryStore(tmp_path).get(DIGEST) == CONTENT


def test_what_was_deleted_is_gone_and_deleting_it_again_is_no_error(store: DirectoryStore) -> None:
    store.put(CONTENT)
    store.delete(DIGEST)
    store.delete(DIGEST)

    assert list(store.list()) == []
    with pytest.raises(NotStoredError):
        store.get(DIGEST)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../../etc/passwd", "sha256:" + "g" * 64, "md5:0"])
def test_what_is_no_digest_is_nothing_that_was_stored(store: DirectoryStore, digest: str) -> None:
    with pytest.raises(NotStoredError):
        store.get(digest)


def test_what_has_changed_is_not_given(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(CONTENT)
    file(tmp_path).write_bytes(CONTENT[:-1] + b"?")

    with pytest.raises(DamagedError):
        store.get(DIGEST)


def test_what_has_changed_is_put_right_when_it_is_stored_again(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(CONTENT)
    file(tmp_path).write_bytes(b"")
    store.put(CONTENT)

    assert store.get(DIGEST) == CONTENT


def test_a_half_written_file_of_a_crash_is_nothing_and_is_overwritten(store: DirectoryStore, tmp_path: Path) -> None:
    file(tmp_path).parent.mkdir()
    file(tmp_path).with_suffix(".partial").write_bytes(CONTENT[:4])

    assert list(store.list()) == []
    store.put(CONTENT)
    assert [it.name for it in file(tmp_path).parent.iterdir()] == [file(tmp_path).name]


def test_what_others_keep_in_the_directory_is_passed_over(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / f"{DIGEST[7:]}.json.gz").write_bytes(CONTENT)
    (tmp_path / "notes.txt").write_text("mine")

    assert list(store.list()) == []


def test_a_volume_that_is_not_mounted_is_not_written_beside(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(StoreError, match="is no directory"):
        DirectoryStore(missing).put(CONTENT)

    assert not missing.exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", kib=64) as mount:
        yield mount


def test_a_full_disk_is_told_leaves_nothing_half_written_and_serves_again_when_there_is_room(disk: Path) -> None:
    store = DirectoryStore(disk)
    kept = store.put(os.urandom(40 * 1024))
    large = os.urandom(40 * 1024)
    with pytest.raises(StoreError, match="No space left on device"):
        store.put(large)

    assert [it.digest for it in store.list()] == [kept]
    assert [it.suffix for it in disk.rglob("*") if it.is_file()] == [".gz"]
    store.delete(kept)
    assert store.get(store.put(large)) == large


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_whatever_the_disk_refuses_is_told_and_nothing_seems_stored(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    else:
        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        store.put(CONTENT)

    assert list(store.list()) == []
    assert not [it for it in tmp_path.rglob("*") if it.is_file()]
