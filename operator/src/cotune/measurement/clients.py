"""One request to a service, by protocol: returns at the last byte of a good answer, raises on any other.

Nothing is sent a second time: a request that is refused or cut is an error, whatever another try would have brought.
"""

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, cast

import aiohttp

from cotune.measurement.corpus import Clip
from cotune.measurement.prompts import prompt
from cotune.measurement.quality import Reply
from cotune.measurement.requests import Request, Sample
from cotune.measurement.word_error_rate import Heard

_MODELS = "/v1/models"
_MODELS_TIMEOUT = aiohttp.ClientTimeout(total=30)
GIVEN_UP = {"abort", "error"}
"""What vLLM gives as the reason to end where it gave a request up."""
_EVENT_STREAM, _JSON = "text/event-stream", "application/json"


class ErrorKind(StrEnum):
    """Why a request counts as an error."""

    STATUS = "Status"
    """Not 2xx, but for those that ask for less load."""
    REFUSED = "Refused"
    """429 or 503: the server asks for less load."""
    ERROR_BODY = "ErrorBody"
    """2xx, and the body says that it failed or is something else than was asked for."""
    TRUNCATED = "Truncated"
    """The answer ended before its end."""
    EMPTY = "Empty"
    """2xx, and no text."""
    TIMEOUT = "Timeout"
    CONNECTION = "Connection"
    """No connection, or it broke."""
    PROBE = "Probe"
    """The probe itself failed: none of the above."""


class AnswerError(Exception):
    """An answer that is none: a status that is not 2xx, a stream that was cut, a body that makes no sense."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.ERROR_BODY) -> None:
        super().__init__(message)
        self.kind = kind


def error_kind(error: BaseException) -> ErrorKind:
    """The kind of whatever a client raised."""
    match error:
        case AnswerError():
            return error.kind
        case TimeoutError():
            return ErrorKind.TIMEOUT
        case aiohttp.ClientPayloadError():
            return ErrorKind.TRUNCATED
        case aiohttp.ClientError() | OSError():
            return ErrorKind.CONNECTION
        case _:
            return ErrorKind.PROBE


@dataclass
class Answer:
    """What one request measured beside its latency, as far as it has come; moments are those of `time.monotonic()`."""

    first_token: float | None = None
    """When it came."""
    between_tokens: list[float] = field(default_factory=list[float])
    """Seconds."""
    tokens: int | None = None
    """Of the answer, as the server's own `usage` says; None: it does not say."""
    prompt_tokens: int | None = None
    heard: Heard | None = None
    reply: Reply | None = None
    """To a question whose answer is known."""
    audio_seconds: float = 0.0
    processing_seconds: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A request that is ready to be sent: making it takes time that must not fall between its due time and its send."""

    request: Request
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    clip: Clip | None = None


class Client(Protocol):
    """Sends requests to one service. What it sends depends only on the request."""

    def prepare(self, request: Request) -> Prepared:
        """All that can be done before the request is due."""
        ...

    async def send(self, prepared: Prepared, answer: Answer) -> None:
        """One request, to the last byte of its answer.

        Args:
            prepared: from `prepare`.
            answer: filled in on the way, so that a request that is given up still says how far it came.

        Raises:
            AnswerError: the service answered, and not as it should.
            aiohttp.ClientError: there was no answer.
            TimeoutError: the answer took too long.
        """
        ...


@dataclass
class LanguageModelClient:
    """Streamed answers of the OpenAI API, each to a prompt of its own and of exact length."""

    session: aiohttp.ClientSession
    url: str
    chat: bool = False
    """`/v1/chat/completions`, else `/v1/completions`."""
    prefix: str = ""
    """Words that all made-up prompts begin with."""
    dataset: Sequence[Sample] = ()
    """Prompts to be sent in this order, again from the first after the last; empty: prompts are made up."""
    _model: str = ""

    def prepare(self, request: Request) -> Prepared:
        """The prompt of the request."""
        sample = self.dataset[request.number % len(self.dataset)] if self.dataset else Sample()
        if sample.messages is not None:
            content: dict[str, Any] = {"messages": [it.model_dump() for it in sample.messages]}
        else:
            text = sample.prompt or prompt(request.prompt_tokens or 1, request.key, self.prefix)
            content = {"messages": [{"role": "user", "content": text}]} if self.chat else {"prompt": text}
        length = sample.output_tokens or request.output_tokens
        limits = {"max_tokens": length, "min_tokens": length, "ignore_eos": True} if length else {}
        return Prepared(
            request,
            {**content, **limits, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}},
        )

    async def send(self, prepared: Prepared, answer: Answer) -> None:
        """One answer. The first call asks for the name of the served model."""
        if not self._model:
            self._model = (await served_model(self.session, self.url)).name
        path = "/v1/chat/completions" if self.chat else "/v1/completions"
        body = json.dumps({"model": self._model, **prepared.body}).encode()
        async with self.session.post(self.url + path, data=body, headers={"Content-Type": _JSON}) as response:
            await refuse_errors(response)
            if response.content_type != _EVENT_STREAM:
                raise AnswerError(f"{response.content_type} instead of a stream: {(await response.text())[:200]}")
            await _read_stream(response, answer, prepared.body.get("max_tokens"))


@dataclass
class TranscriptionsClient:
    """Transcriptions of the OpenAI API, the clips of a corpus one after the other."""

    session: aiohttp.ClientSession
    url: str
    clips: Sequence[Clip]

    def prepare(self, request: Request) -> Prepared:
        """The clip of the request."""
        return Prepared(request, clip=self.clips[request.number % len(self.clips)])

    async def send(self, prepared: Prepared, answer: Answer) -> None:
        """One transcription."""
        clip = prepared.clip
        if clip is None:
            raise ValueError("a transcription without a clip")
        form = aiohttp.FormData()
        form.add_field("file", clip.audio, filename=clip.name.rpartition("/")[2], content_type="audio/wav")
        form.add_field("model", "whisper-1")
        form.add_field("response_format", "json")
        sent = time.monotonic()
        async with self.session.post(f"{self.url}/v1/audio/transcriptions", data=form) as response:
            await refuse_errors(response)
            found = json_without_error(await response.read())
        text = cast("dict[str, Any]", found).get("text") if isinstance(found, dict) else None
        if not isinstance(text, str):
            raise AnswerError("the transcription has no text")
        if clip.transcript.strip() and not text.strip():
            raise AnswerError(f"the transcription of {clip.name} is empty", ErrorKind.EMPTY)
        answer.heard = Heard(clip.transcript, text, clip.condition)
        answer.audio_seconds, answer.processing_seconds = clip.seconds, time.monotonic() - sent


@dataclass
class HttpClient:
    """Plain GET requests."""

    session: aiohttp.ClientSession
    url: str

    def prepare(self, request: Request) -> Prepared:
        """Nothing: all requests are the same."""
        return Prepared(request)

    async def send(self, prepared: Prepared, answer: Answer) -> None:
        """One request, the body read to its end; an empty one is a good answer, as health checks give it."""
        async with self.session.get(self.url) as response:
            await refuse_errors(response)
            body = await response.read()
        if response.content_type == _JSON and body:
            json_without_error(body)


@dataclass(frozen=True)
class ServedModel:
    """What `/v1/models` says of the first model."""

    name: str
    max_length: int | None
    """Tokens of prompt and answer together; only vLLM says it."""


async def served_model(session: aiohttp.ClientSession, url: str) -> ServedModel:
    """The model that a server of the OpenAI API serves.

    Raises:
        AnswerError: it names none.
    """
    async with session.get(url + _MODELS, timeout=_MODELS_TIMEOUT) as response:
        await refuse_errors(response)
        found = cast("dict[str, Any]", json_without_error(await response.read()))
    try:
        model = cast("dict[str, Any]", found["data"][0])
        return ServedModel(str(model["id"]), model.get("max_model_len"))
    except (KeyError, IndexError, TypeError) as error:
        raise AnswerError(f"{_MODELS} names no model") from error


async def refuse_errors(response: aiohttp.ClientResponse) -> None:
    """Raise `AnswerError` for any status but 2xx."""
    if not 200 <= response.status <= 299:
        text = (await response.text())[:200]
        kind = ErrorKind.REFUSED if response.status in {429, 503} else ErrorKind.STATUS
        raise AnswerError(f"{response.method} {response.url.path}: {response.status} {text}", kind)


def json_without_error(body: bytes) -> object:
    """The JSON of a body that came with 2xx; `AnswerError` where it is none, or says that it failed."""
    try:
        found = cast("object", json.loads(body))
    except ValueError as error:
        raise AnswerError(f"the body is no JSON: {body[:200].decode(errors='replace')}") from error
    said = cast("dict[str, object]", found).get("error") if isinstance(found, dict) else None
    if said:
        raise AnswerError(f"an error with status 200: {str(said)[:200]}")
    return cast("object", found)


async def _read_stream(response: aiohttp.ClientResponse, answer: Answer, expected: int | None) -> None:
    """Server-sent events up to `[DONE]`: without it, without a reason to end or with too few tokens it was cut."""
    latest: float | None = None
    reason: str | None = None
    usage: dict[str, Any] = {}
    async for data, now in _events(response):
        if data == b"[DONE]":
            break
        try:
            event = cast("dict[str, Any]", json.loads(data))
        except ValueError as error:
            raise AnswerError(f"an event is no JSON: {data[:200].decode(errors='replace')}") from error
        if event.get("error"):
            raise AnswerError(str(event["error"])[:200])
        choices = cast("list[dict[str, Any]]", event.get("choices") or [])
        if any(_is_token(it) for it in choices):
            if latest is None:
                answer.first_token = now
            else:
                answer.between_tokens.append(now - latest)
            latest = now
        reason = next((str(it["finish_reason"]) for it in choices if it.get("finish_reason") is not None), reason)
        usage = event.get("usage") or usage
    else:
        raise AnswerError("the stream was cut before its end", ErrorKind.TRUNCATED)
    if latest is None:
        raise AnswerError("the stream ended without a token", ErrorKind.EMPTY)
    if reason is None or reason in GIVEN_UP:
        raise AnswerError(f"the stream was cut: its reason to end is {reason}", ErrorKind.TRUNCATED)
    tokens, prompt_tokens = usage.get("completion_tokens"), usage.get("prompt_tokens")
    if reason != "stop" and tokens is not None and expected is not None and int(tokens) < expected:
        raise AnswerError(f"the stream was cut: {tokens} of {expected} tokens", ErrorKind.TRUNCATED)
    answer.tokens = None if tokens is None else int(tokens)
    answer.prompt_tokens = None if prompt_tokens is None else int(prompt_tokens)


def _is_token(choice: dict[str, Any]) -> bool:
    """Half a character is a token without text; the role that opens a chat and a mere reason to end are none."""
    delta = cast("dict[str, Any]", choice.get("delta") or {})
    if any(delta.get(it) for it in ("content", "reasoning_content", "reasoning", "tool_calls")) or choice.get("text"):
        return True
    return choice.get("finish_reason") is None and "role" not in delta


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[bytes, float]]:
    """The data of each event, and when its last byte came."""
    rest = b""
    async for chunk in response.content.iter_any():
        now = time.monotonic()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip(), now
