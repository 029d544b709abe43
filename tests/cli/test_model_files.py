"""What `cotune plan` finds of a model on this machine, and what it does with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from cotune.cli.__main__ import main
from cotune.cli.model_files import NoModelError, model_folder, named_model, read_model_folder
from cotune.planning.model_config import ModelConfigError
from support.examples import EXAMPLES, documents

NAME = "Qwen/Qwen2.5-7B-Instruct-AWQ"
CONFIG = documents("voice-stack.yaml")[0]["data"]["qwen2.5-7b-instruct-awq.json"]


def published(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(CONFIG)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def cached(root: Path, revision: str, name: str = NAME) -> Path:
    return root / f"models--{name.replace('/', '--')}" / "snapshots" / revision


def safetensors(**shapes: int) -> bytes:
    """A file with tensors of so many bytes, without the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in shapes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["vllm", "serve", NAME, "--port=1"], NAME),
        (["python", "-m", "x", "--model", NAME], NAME),
        ([f"--model={NAME}"], NAME),
        (["vllm", "serve", "--port=1"], None),
        ([], None),
    ],
)
def test_the_model_of_a_command_line_is_found(words: list[str], model: str | None) -> None:
    assert named_model(words) == model


def test_the_hubs_cache_is_where_its_variables_say_and_main_comes_first(tmp_path: Path) -> None:
    main_one = published(cached(tmp_path / "hub", "bbb"))
    published(cached(tmp_path / "hub", "aaa"))
    refs = main_one.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("bbb\n")

    assert model_folder(NAME, {"HF_HOME": str(tmp_path)}) == main_one
    assert model_folder(NAME, {"HF_HUB_CACHE": str(tmp_path / "hub")}) == main_one
    assert model_folder(str(main_one), {}) == main_one
    with pytest.raises(NoModelError, match="none in the hub's cache"):
        model_folder("some/other", {"HF_HOME": str(tmp_path)})


def test_a_folders_weights_are_what_its_index_says_else_what_its_files_headers_say(tmp_path: Path) -> None:
    index = json.dumps({"metadata": {"total_size": 5_000}, "weight_map": {}})
    files: dict[str, str | bytes] = {
        "a.safetensors": safetensors(x=100, y=20),
        "b.safetensors": safetensors(z=3),
    }

    assert read_model_folder(published(tmp_path / "none")).stored_bytes is None
    assert read_model_folder(published(tmp_path / "files", **files)).stored_bytes == 123
    both = published(tmp_path / "both", **files, **{"model.safetensors.index.json": index})
    assert read_model_folder(both).stored_bytes == 5_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors.index.json", "{}"),
        ("model.safetensors", b"\x00"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]"),
    ],
)
def test_files_that_are_not_what_their_names_say_are_refused(tmp_path: Path, name: str, content: str | bytes) -> None:
    with pytest.raises(ModelConfigError, match="safetensors"):
        read_model_folder(published(tmp_path / "model", **{name: content}))


def without_config_map(folder: Path) -> Path:
    file = folder / "experiment.yaml"
    file.write_text("---".join(["", *(EXAMPLES / "voice-stack.yaml").read_text().split("\n---\n")[1:]]))
    return file


def tokens(said: str) -> list[int]:
    return [it["languageModels"]["judge"]["kvCacheTokens"] for it in json.loads(said)["candidates"]]


def test_without_a_config_map_the_model_is_looked_for_where_the_server_would_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = without_config_map(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(["plan", "-f", str(file)]) == 1
    assert "judge: " in (error := capsys.readouterr().err)
    assert "none in the hub's cache" in error

    published(cached(tmp_path / "hub", "abc"))
    assert main(["plan", "-f", str(file), "-o", "json"]) == 0
    found = tokens(capsys.readouterr().out)
    assert main(["plan", "-f", str(EXAMPLES / "voice-stack.yaml"), "-o", "json"]) == 0
    assert found == tokens(capsys.readouterr().out)


def test_a_folder_that_is_named_wins_and_its_files_say_what_the_weights_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = json.dumps({"metadata": {"total_size": 5_600_000_000}})
    folder = published(tmp_path / "model", **{"model.safetensors.index.json": index})

    arguments = ["plan", "-f", str(EXAMPLES / "voice-stack.yaml"), "-o", "json", "--model", f"judge={folder}"]
    assert main(arguments) == 0

    judge = json.loads(capsys.readouterr().out)["candidates"][-1]["languageModels"]["judge"]
    assert judge["weightsGiB"] == pytest.approx(5_600_000_000 / 2**30, abs=0.06)


def test_what_the_log_of_the_baseline_said_corrects_every_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    """The public report: 0.37 GiB at 50 % of the card, 6,976 tokens, 436 blocks, 3.41 requests of 2,048."""
    arguments = ["plan", "-f", str(EXAMPLES / "voice-stack.yaml"), "-o", "json", "--observed", "judge=0.3726"]

    assert main(arguments) == 0

    found = {it["parameters"]["judgeMemory"]: it for it in json.loads(capsys.readouterr().out)["candidates"]}
    judge = found["0.50"]["languageModels"]["judge"]
    assert (judge["kvCacheGiB"], judge["kvCacheTokens"], judge["kvCacheBlocks"]) == (0.3726, 6976, 436)
    assert (judge["concurrency"], judge["kvBlockBytes"], judge["kvBlockTokens"]) == (3.41, 57_344 * 16, 16)
    assert found["0.55"]["languageModels"]["judge"]["kvCacheGiB"] == pytest.approx(0.3726 + 0.6, abs=1e-4)
    assert not found["0.45"]["fits"]


def test_what_others_hold_and_how_the_card_is_divided_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(EXAMPLES / "voice-stack.yaml")
    assert main(["plan", "-f", file, "-o", "json"]) == 0
    alone = json.loads(capsys.readouterr().out)["candidates"][-1]
    assert main(["plan", "-f", file, "-o", "json", "--taken", "512"]) == 0
    beside = json.loads(capsys.readouterr().out)["candidates"][-1]

    assert alone["freeGiB"] - beside["freeGiB"] == pytest.approx(0.5)
    assert beside["parts"][0] == {"component": "others", "what": "held", "GiB": 0.5}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--model", "stt=/models"], "--model: no component stt with memory.model VLLM"),
        (["--observed", "stt=1"], "--observed: the plan of the baseline has no language model stt"),
        (["--model", "judge=/nowhere"], "/nowhere: no config.json"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_line(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-f", str(EXAMPLES / "voice-stack.yaml"), *arguments]) == 1
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--model", "judge"], ["--observed", "judge=much"]])
def test_an_option_that_cannot_be_read_is_a_matter_of_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "-f", "x", *arguments])
