import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.record import canonical_bytes, digest_of
from cotune.cli.__main__ import main
from support.records import as_resource, record

RECORD = record()
DIGEST = digest_of(canonical_bytes(RECORD))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    DirectoryStore(folder).put(canonical_bytes(RECORD))
    return folder


def dump(tmp_path: Path, kind: str, value: str | None = None) -> Path:
    """What kubectl has written; with `value`, the first measurement was edited."""
    body = as_resource(RECORD)
    if value is not None:
        body["status"]["measurements"][0]["value"] = value
    listed: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [body, {"kind": "ConfigMap", "metadata": {}}],
    }
    file = tmp_path / f"trials.{kind}"
    file.write_text(json.dumps(listed) if kind == "json" else yaml.safe_dump_all([body, None]))
    return file


def test_what_holds_is_said_in_a_table(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--store", str(store)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RECORD", "TRIAL", "PHASE", "RECOMPUTED", "HOLDS"]
    assert lines[1].split() == [DIGEST[7:19], "voice-lab/voice-1", "Succeeded", "11", "yes"]
    assert lines[-1] == "1 records, 11 figures computed again: all holds"


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_an_edited_measurement_fails_and_is_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["verify", "--store", str(store), "-f", str(dump(tmp_path, kind))]) == 0
    assert main(["verify", "--store", str(store), "-f", str(dump(tmp_path, kind, "1"))]) == 1

    said = capsys.readouterr().out
    assert "Differs: GpuTrial voice-lab/voice-1: gpu.freeMiB is 1 of 30 samples, and 7990.333333" in said
    assert said.splitlines()[-1] == "1 records, 11 figures computed again, 1 resources compared: 1 faults"


def test_a_damaged_record_fails_in_json_too(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [file] = store.rglob("*.gz")
    file.write_bytes(b"?")

    assert main(["verify", "--store", str(store), "-o", "json"]) == 1

    said = json.loads(capsys.readouterr().out)
    assert (said["holds"], said["records"]) == (False, [])
    assert [(it["kind"], it["subject"]) for it in said["faults"]] == [("Damaged", DIGEST)]


def test_a_record_that_is_gone_may_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    DirectoryStore(other).put(canonical_bytes(record("voice-2")))
    asked = ["verify", "--store", str(other), "-f", str(dump(tmp_path, "yaml"))]

    assert main(asked) == 1
    assert main([*asked, "--allow-removed"]) == 0
    assert "1 records gone" in capsys.readouterr().out


def test_an_empty_store_holds_nothing_that_could_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--store", str(tmp_path)]) == 1

    assert "there is no record in" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1]", "a: [", "kind: GpuTrial", "x: 1"])
def test_a_file_that_no_cluster_has_written_is_a_wrong_use(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = tmp_path / "trials.yaml"
    file.write_text(content)

    assert main(["verify", "--store", str(store), "-f", str(file)]) == 2
    assert capsys.readouterr().err.startswith("cotune: error: ")


def test_a_store_that_is_not_there_is_a_wrong_use(tmp_path: Path) -> None:
    assert main(["verify", "--store", str(tmp_path / "nowhere")]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["verify"])
    assert ended.value.code == 2
