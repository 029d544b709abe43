"""`cotune report` as it is called."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
import yaml
from cotune.cli.__main__ import main
from support.command_line import cotune
from support.played_experiment import Played

DATA = Path(__file__).parents[1] / "data" / "report"


def test_both_files_are_written_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts = str(DATA / "artifacts")

    code = main(
        ["report", "voice", "-f", str(DATA / "voice.yaml"), "--artifacts", artifacts, "--output", str(tmp_path)]
    )

    assert code == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "voice-report.html"), str(tmp_path / "voice-report.md")]
    assert "with the raw results of 14 of 14 compared runs" in (tmp_path / "voice-report.md").read_text()


def test_one_format_is_written_into_the_file_that_is_named(voice: Played, tmp_path: Path) -> None:
    dump, page = tmp_path / "dump.json", tmp_path / "page.html"
    dump.write_text(json.dumps({"kind": "List", "items": voice.bodies}))

    assert main(["report", "voice", "-f", str(dump), "-o", "html", "--output", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")


def test_documents_of_a_file_are_read_one_by_one(voice: Played, tmp_path: Path) -> None:
    dump = tmp_path / "dump.yaml"
    dump.write_text(yaml.safe_dump_all(voice.bodies))

    assert main(["report", "voice", "-f", str(dump), "-o", "markdown", "--output", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "voice"], "give --namespace, or --filename"),
        (["report", "voice", "-f", "x", "--output", "/nowhere/at.all"], "is no folder, and two files are written"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "/nowhere.yaml"], "/nowhere.yaml"),
        (["-f", str(DATA / "voice.yaml"), "-n", "elsewhere"], "0 GpuAllocationExperiments"),
        (["-f", str(DATA / "voice.yaml"), "--artifacts", "/nowhere"], "/nowhere is no folder"),
    ],
)
def test_what_cannot_be_read_is_1_and_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "voice", *arguments, "--output", str(tmp_path)]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cotune: error: ")
    assert words in line


def test_without_a_cluster_to_ask_it_is_1_and_one_line(tmp_path: Path) -> None:
    found = cotune("report", "voice", "-n", "voice-lab", KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))

    assert found.returncode == 1
    assert "cotune: error: no cluster to ask" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "damage",
    [b"not gzip", gzip.compress(b"not JSON"), gzip.compress(b"[]"), gzip.compress(b'{"result": {}}')],
    ids=["gzip", "JSON", "object", "result"],
)
def test_a_raw_result_that_is_none_is_1(
    voice: Played, tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(damage).hexdigest()
    (tmp_path / f"{digest}.json.gz").write_bytes(damage)

    assert _with_artifact(voice, tmp_path, digest) == 1
    assert "is no raw result" in capsys.readouterr().err


def test_a_raw_result_that_has_changed_since_is_not_believed(
    voice: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest, content = next(iter(voice.records.items()))
    (tmp_path / f"{digest.removeprefix('sha256:')}.json.gz").write_bytes(content + b"\0")

    assert _with_artifact(voice, tmp_path, digest.removeprefix("sha256:")) == 1
    assert "has changed since it was stored" in capsys.readouterr().err


def _with_artifact(voice: Played, folder: Path, digest: str) -> int:
    """The report of a dump whose confirming runs all name this one."""
    dump = folder / "dump.yaml"
    text = voice.dump()
    for known in voice.records:
        text = text.replace(known, f"sha256:{digest}")
    dump.write_text(text)
    return main(["report", "voice", "-f", str(dump), "--artifacts", str(folder), "--output", str(folder)])
