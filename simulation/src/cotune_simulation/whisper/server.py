"""OpenAI's interface for transcriptions."""

from aiohttp import BodyPartReader, web

from cotune_simulation.clips import read_clip
from cotune_simulation.faults import NOBODY_SAID, Fault, has
from cotune_simulation.whisper.transcriber import Transcriber

_FORMATS = ("json", "text", "verbose_json")


class Api:
    """Routes of one server."""

    def __init__(self, transcriber: Transcriber, size: str) -> None:
        self._transcriber = transcriber
        self._size = size

    def application(self) -> web.Application:
        """The routes as an aiohttp application."""
        application = web.Application(client_max_size=32 * 1024**2)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.post("/v1/audio/transcriptions", self._transcriptions),
            ]
        )
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": self._size})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._size, "object": "model", "owned_by": "simulation"}
        return web.json_response({"object": "list", "data": [model]})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        fields = await _form(request)
        response_format = fields.get("response_format", b"json").decode(errors="replace")
        if "file" not in fields:
            return _refused("[file]: Field required")
        if response_format not in _FORMATS:
            return _refused(f"response_format: choose from {', '.join(_FORMATS)}")
        try:
            clip = read_clip(fields["file"])
        except ValueError as error:
            return _refused(str(error))
        text = await self._transcriber.transcribe(clip)
        if has(request, Fault.WRONG_TRANSCRIPT):
            text = NOBODY_SAID
        if response_format == "text":
            return web.Response(text=f"{text}\n")
        if response_format == "json":
            return web.json_response({"text": text})
        segments = [{"id": 0, "start": 0.0, "end": clip.seconds, "text": text}] if text else []
        verbose = {"task": "transcribe", "language": "english", "duration": clip.seconds, "text": text}
        return web.json_response({**verbose, "segments": segments})


async def _form(request: web.Request) -> dict[str, bytes]:
    if not request.content_type.startswith("multipart/"):
        return {}
    fields: dict[str, bytes] = {}
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name:
            fields[part.name] = bytes(await part.read())
    return fields


def _refused(reason: str) -> web.Response:
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=400)
