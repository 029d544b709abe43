"""`python -m cotune_bench.load_server PORT`: answers of the OpenAI API at fixed times, for `make bench-load`.

Every answer begins `TTFT_SECONDS` after its request has come and goes on with a token every `ITL_SECONDS`, however many
are asked at once. Nothing is computed and nothing waits for anything else, so that two load generators meet one and the
same server. It writes down when each request came: the schedule error as seen from outside of whoever claims it.
"""

import asyncio
import json
import re
import sys
import time

TTFT_SECONDS = 0.040
ITL_SECONDS = 0.010

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(body: object) -> bytes:
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _choice(finish: str | None) -> dict[str, object]:
    return {"index": 0, "text": " word", "logprobs": None, "finish_reason": finish}


def _completion(choices: list[dict[str, object]], **more: object) -> bytes:
    return _event(
        {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "llm", "choices": choices, **more}
    )


_TOKEN, _LAST = _completion([_choice(None)]), _completion([_choice("length")])
_DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One client's connection; requests are answered one after the other."""

    arrivals: "list[float]"
    transport: asyncio.Transport

    def __init__(self, arrivals: "list[float]") -> None:
        self.arrivals = arrivals
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        match path:
            case "/v1/completions":
                now = self._loop.time()
                self.arrivals.append(time.monotonic())
                asked = json.loads(body)
                self.transport.write(_HEAD)
                self._loop.call_at(now + TTFT_SECONDS, self._token, now, 1, int(asked["max_tokens"]))
            case "/v1/models":
                self._json({"object": "list", "data": [{"id": "llm", "object": "model", "max_model_len": 32768}]})
            case "/arrivals":
                self._json(self.arrivals)
                self.arrivals.clear()
            case "/count":
                self._json(len(self.arrivals))
            case _:
                self._json({"error": f"no {path}"}, "404 Not Found")

    def _token(self, begin: float, number: int, length: int) -> None:
        if self.transport.is_closing():
            return
        if number < length:
            self.transport.write(_TOKEN)
            due = begin + TTFT_SECONDS + number * ITL_SECONDS
            self._loop.call_at(due, self._token, begin, number + 1, length)
            return
        usage = {"prompt_tokens": 1, "completion_tokens": length, "total_tokens": 1 + length}
        self.transport.write(_LAST + _completion([], usage=usage) + _DONE)

    def _json(self, body: object, status: str = "200 OK") -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.transport.write(head.encode() + data)


async def serve(port: int) -> None:
    """Listen on loopback until the process ends."""
    arrivals: list[float] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(arrivals), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
