"""OpenAI's interface for transcriptions, health and metrics."""

import asyncio
import sys
import time
from collections.abc import Mapping

from aiohttp import BodyPartReader, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cotune_servers.stt.audio import SAMPLE_RATE, AudioError, decode
from cotune_servers.stt.transcriber import BusyError, Transcriber

_FORMATS = ("json", "text", "verbose_json")
_LARGEST_BYTES = 32 * 1024**2
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 1.0)
_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Api:
    """The routes of one server."""

    def __init__(self, transcriber: Transcriber, size: str) -> None:
        self._transcriber = transcriber
        self._size = size
        self._registry = CollectorRegistry()
        self._requests = Counter("stt_requests", "Requests by status.", ["status"], registry=self._registry)
        self._out_of_memory = Counter(
            "stt_out_of_memory", "Requests for which the card had no room.", registry=self._registry
        )
        self._audio = Counter("stt_audio_seconds", "Seconds of speech transcribed.", registry=self._registry)
        self._seconds = Histogram(
            "stt_request_seconds", "From the read request to the text.", buckets=_BUCKETS, registry=self._registry
        )
        self._engines = Counter(
            "stt_answers",
            "Answers by whose text it is; only where two have heard.",
            ["engine"],
            registry=self._registry,
        )
        self._similarity = Histogram(
            "stt_similarity", "Of what the two have heard.", buckets=_SHARES, registry=self._registry
        )
        present = Gauge("stt_requests_present", "Requests in work or waiting.", registry=self._registry)
        present.set_function(lambda: transcriber.present)

    def application(self) -> web.Application:
        """The routes as an aiohttp application."""
        application = web.Application(client_max_size=_LARGEST_BYTES)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/audio/transcriptions", self._transcriptions),
            ]
        )
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": self._size})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._size, "object": "model", "owned_by": "openai-whisper"}
        return web.json_response({"object": "list", "data": [model]})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        response = await self._answer(request)
        self._requests.labels(status=str(response.status)).inc()
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        fields = await _form(request)
        response_format = fields.get("response_format", b"json").decode(errors="replace")
        if "file" not in fields:
            return _refused(400, "[file]: Field required")
        if response_format not in _FORMATS:
            return _refused(400, f"response_format: choose from {', '.join(_FORMATS)}")
        began = time.monotonic()
        try:
            audio = await asyncio.to_thread(decode, fields["file"])
            heard = await self._transcriber.transcribe(audio)
        except AudioError as error:
            return _refused(400, str(error))
        except BusyError as error:
            return _refused(429, str(error), {"Retry-After": str(error.retry_seconds)})
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, and torch is only in the server's image.
                raise
            self._out_of_memory.inc()
            print(f"torch.OutOfMemoryError: {error}", file=sys.stderr, flush=True)
            return _refused(500, "the card has no room for this recording")
        seconds = len(audio) / SAMPLE_RATE
        self._seconds.observe(time.monotonic() - began)
        self._audio.inc(seconds)
        if heard.engine is not None and heard.similarity is not None:
            self._engines.labels(engine=heard.engine).inc()
            self._similarity.observe(heard.similarity)
        match response_format:
            case "text":
                return web.Response(text=f"{heard.text}\n")
            case "verbose_json":
                more = {"engine": heard.engine, "similarity": heard.similarity} if heard.engine is not None else {}
                return web.json_response({"task": "transcribe", "duration": seconds, "text": heard.text, **more})
            case _:
                return web.json_response({"text": heard.text})


async def _form(request: web.Request) -> dict[str, bytes]:
    if not request.content_type.startswith("multipart/"):
        return {}
    fields: dict[str, bytes] = {}
    size = 0
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name:
            content = bytearray()
            while chunk := await part.read_chunk():
                size += len(chunk)
                if size > _LARGEST_BYTES:
                    raise web.HTTPRequestEntityTooLarge(max_size=_LARGEST_BYTES, actual_size=size)
                content += chunk
            fields[part.name] = bytes(content)
    return fields


def _refused(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"message": reason, "type": kind, "param": None, "code": None}
    return web.json_response({"error": error}, status=status, headers=headers)
