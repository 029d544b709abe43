"""The simulated servers as processes of their own, listening on a free port."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Answer:
    """What an HTTP request got."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class RunningServer:
    """A server that has said that it is ready."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Answer:
        return _answer(urllib.request.Request(self.url + path))

    def post(self, path: str, body: object) -> Answer:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return _answer(urllib.request.Request(self.url + path, data, headers))

    def post_form(self, path: str, **fields: str | bytes) -> Answer:
        """A multipart form; bytes are sent as a file."""
        boundary = "a-boundary-of-this-form"
        parts: list[bytes] = []
        for name, value in fields.items():
            kind = '; filename="clip.wav"' if isinstance(value, bytes) else ""
            content = value if isinstance(value, bytes) else value.encode()
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'
            parts.append(head.encode() + content + b"\r\n")
        data = b"".join(parts) + f"--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return _answer(urllib.request.Request(self.url + path, data, headers))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return cast("int", listening.getsockname()[1])


@contextmanager
def running_server(
    environment: Mapping[str, str], module: str, *arguments: str, at: int | None = None, **variables: str
) -> Generator[RunningServer]:
    """`python -m module`, with `PORT` for the port in arguments and variables; ended afterwards.

    The port is `at` where somebody has to know it before the server is there.
    """
    port = at or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *(argument.replace("PORT", str(port)) for argument in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment, "COTUNE_SIMULATION_STARTUP_SCALE": "0", "PORT": str(port), **variables},
    )
    try:
        _wait_until_healthy(process, port)
        yield RunningServer(port, process)
    finally:
        process.kill()
        process.communicate()


def ended_server(
    environment: Mapping[str, str], module: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The same for a server that is expected to end by itself; its output is one text."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=20,
        env={**os.environ, **environment, "COTUNE_SIMULATION_STARTUP_SCALE": "0", **variables},
    )


def _wait_until_healthy(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {process.communicate()[0]}")
        assert time.monotonic() < deadline, "the server did not become healthy"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except ConnectionError:
            time.sleep(0.02)


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
