"""One vLLM server as a process group: started, waited for, loaded, ended."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0
_PROMPT_TOKENS = 256
_OUTPUT_TOKENS = 128

COLD = "cold"
"""`python3 -m vllm.entrypoints.cli.main`, as a container's command does it."""
WARM = "warm"
"""A process that imported vLLM beforehand, and forks its engine."""


class Launcher:
    """Starts servers; keeps processes ready that have imported vLLM while another one is measured."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, ahead: int, module: str = "vllm.entrypoints.cli.main"
    ) -> None:
        self._module = module
        self._environment = dict(environment)
        self._folder = folder
        self._ahead = ahead
        self._warm: list[_WarmProcess] = []
        self._count = 0

    def prepare(self) -> None:
        """Have as many processes importing as are wanted ahead."""
        while len(self._warm) < self._ahead:
            self._count += 1
            self._warm.append(_WarmProcess(self._environment, self._folder / f"warm-{self._count}.log"))

    def start(self, arguments: Sequence[str], method: str) -> "Server":
        """Start a server with the arguments behind `vllm`; a warm one blocks until its imports are done.

        Raises:
            RuntimeError: the imports failed.
        """
        if method == WARM:
            self.prepare()
            warm = self._warm.pop(0)
            warm.tell(arguments)
            self.prepare()
            return Server(warm.process, warm.log)
        self._count += 1
        log = self._folder / f"cold-{self._count}.log"
        command = [sys.executable, "-m", self._module, *arguments]
        return Server(start_process(command, self._environment, log), log)

    def close(self) -> None:
        """End the processes that nothing was asked of."""
        for it in self._warm:
            end_group(it.process)
        self._warm.clear()


class _WarmProcess:
    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._ready, told = os.pipe()
        forking = {**environment, "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
        command = [sys.executable, "-m", "gpu.warm_vllm", str(told)]
        self.process = start_process(command, forking, log, stdin=subprocess.PIPE, pass_fds=(told,))
        os.close(told)

    def tell(self, arguments: Sequence[str]) -> None:
        is_ready = os.read(self._ready, 1) == b"1"
        os.close(self._ready)
        if not is_ready:
            end_group(self.process)
            raise RuntimeError(f"vLLM could not be imported: {self.log.read_text(errors='replace')[-2000:]}")
        assert self.process.stdin
        self.process.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
        self.process.stdin.close()


def start_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process in a session of its own; everything it says goes to the log."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )


def end_group(process: subprocess.Popen[bytes], grace_seconds: float = _GRACE_SECONDS) -> None:
    """SIGTERM to the process, then SIGKILL to whatever is left of its group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


@dataclass(frozen=True)
class Throughput:
    """A few seconds of load."""

    seconds: float
    tokens: int
    """Generated in requests that finished."""
    requests: int
    errors: "list[str]"

    @property
    def tokens_per_second(self) -> float:
        """Rough: what was under way at the end is not counted."""
        return self.tokens / self.seconds


class Server:
    """A server that was started on 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def wait_until_healthy(self, port: int, limit_seconds: float, meanwhile: Callable[[], None]) -> bool:
        """True when it answers /health; False when it ended before. `meanwhile` runs at every look.

        Raises:
            TimeoutError: neither within the limit.
        """
        deadline = time.monotonic() + limit_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            meanwhile()
            try:
                self.get(port, "/health", 2)
            except OSError:
                time.sleep(_POLL_SECONDS)
            else:
                return True
        raise TimeoutError(f"neither healthy nor ended after {limit_seconds:.0f} s")

    def get(self, port: int, path: str, timeout: float = 10) -> str:
        """The body of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.read().decode()

    def load(self, port: int, streams: int, seconds: float) -> Throughput:
        """Closed loop: so many streams, each with one request after the other (256 tokens in, 128 out)."""
        begin = time.monotonic()
        results: list[list[int]] = [[] for _ in range(streams)]
        errors: list[str] = []

        def stream(number: int) -> None:
            turn = 0
            while time.monotonic() - begin < seconds and not errors:
                turn += 1
                try:
                    results[number].append(_complete(port, seed=1000 * number + turn))
                except OSError as error:
                    body = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
                    errors.append(f"{error} {body}"[:500])

        threads = [threading.Thread(target=stream, args=(it,), daemon=True) for it in range(streams)]
        for it in threads:
            it.start()
        for it in threads:
            it.join(seconds + 60)
        finished = [tokens for it in results for tokens in it]
        return Throughput(time.monotonic() - begin, sum(finished), len(finished), errors[:3])

    def end(self) -> None:
        """End it and every process it started."""
        end_group(self.process)


def _complete(port: int, seed: int) -> int:
    prompt = [100 + (seed * 7919 + position * 31) % 30000 for position in range(_PROMPT_TOKENS)]
    body: dict[str, Any] = {"model": "llm", "prompt": prompt, "max_tokens": _OUTPUT_TOKENS, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["usage"]["completion_tokens"]
