"""The simulated vLLM server starts, fails and serves as the public report says of the real one."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cotune.trials.root_cause import Cause, root_cause
from support.simulated_card import RunningCard

MODEL = "Qwen/Qwen2.5-7B-Instruct-AWQ"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def command(utilization: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "cotune_simulation.vllm", "serve", MODEL),
        *("--gpu-memory-utilization", utilization, "--max-model-len", "2048"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


def environment(card: RunningCard) -> dict[str, str]:
    return card.environment() | {"COTUNE_SIMULATION_STARTUP_SCALE": "0.01"}


def wait_until_healthy(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        assert time.monotonic() < deadline, "the server did not become healthy"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)


@pytest.mark.parametrize("utilization", ["0.40", "0.45"])
def test_a_budget_below_the_weights_ends_with_vllms_own_message(card: RunningCard, utilization: str) -> None:
    ended = subprocess.run(
        command(utilization, free_port()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env=environment(card),
    )

    assert ended.returncode == 1
    assert "SIMULATION" in ended.stdout.splitlines()[0]
    assert root_cause(ended.stdout).cause is Cause.NO_CACHE_BLOCKS
    assert "RuntimeError: Engine core initialization failed. See root cause above." in ended.stdout


def test_at_one_half_it_has_the_cache_of_the_report_and_serves(card: RunningCard, tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command("0.50", port), stdout=output, stderr=subprocess.STDOUT, env=environment(card))
    try:
        wait_until_healthy(server, port)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            data=f'{{"model": "{MODEL}", "prompt": "hello", "max_tokens": 4}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert b'"completion_tokens": 4' in answer.read()
    finally:
        server.terminate()
        server.wait(timeout=10)

    text = log.read_text()
    assert "Available KV cache memory: 0.37 GiB" in text
    assert "GPU KV cache size: 6,976 tokens" in text
    assert "Maximum concurrency for 2,048 tokens per request: 3.41x" in text
