"""A reference recorded of a server that is well, and held against it and against one that is not."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession
from cotune.measurement.quality import goodness, read_questions
from cotune.measurement.quality_client import QualityClient
from support.simulated_card import REPOSITORY, start
from support.simulated_server import running_server

SUMS = ["What is 17 + 25?", "12 * 12 =", "900 - 1"]
VLLM = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization", "0.5", "--max-model-len", "2048")


def record(url: str, file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cotune.measurement.record_reference", url, str(file), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "operator" / "src")},
    )


async def goodness_of(url: str, reference: Path, *, chat: bool) -> list[float]:
    questions = read_questions(reference)
    async with ClientSession() as session:
        client = QualityClient(session, url, questions, chat)
        return [goodness(await client.ask(it, client.body(it))) for it in questions]


@pytest.mark.parametrize("chat", [False, True])
def test_the_server_that_was_recorded_is_like_its_reference_and_a_broken_one_is_not(chat: bool, tmp_path: Path) -> None:
    file, reference = tmp_path / "questions.jsonl", tmp_path / "reference.jsonl"
    prompts = [{"messages": [{"role": "user", "content": it}]} if chat else {"prompt": it} for it in SUMS]
    file.write_text("\n".join(json.dumps(it | {"maxTokens": 8}) for it in prompts))
    card = start(tmp_path / "card.sock")
    try:
        for dtype in ("auto", "fp8_e5m2"):
            arguments = (*VLLM, "--kv-cache-dtype", dtype, "--port", "PORT")
            with running_server(card.environment(), "cotune_simulation.vllm", *arguments) as server:
                if dtype == "auto":
                    done = record(server.url, file, *(["--chat"] if chat else []))
                    assert done.returncode == 0, done.stderr
                    reference.write_text(done.stdout)
                    assert asyncio.run(goodness_of(server.url, reference, chat=chat)) == pytest.approx([1, 1, 1])
                else:
                    found = asyncio.run(goodness_of(server.url, reference, chat=chat))
                    assert all(it < 0.9 for it in found), found
    finally:
        card.stop()


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ('{"prompt": "?"}', 1, "record: error: Cannot connect"),
        ('{"maxTokens": 3}', 2, "either prompt or messages"),
        ('{"messages": [{"role": "user", "content": "?"}]}', 2, "messages are for --chat"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(lines: str, code: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "q").write_text(lines)

    done = record("http://127.0.0.1:9", tmp_path / "q")

    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert words in line
