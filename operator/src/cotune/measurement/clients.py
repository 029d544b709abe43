"""One request to a service, by protocol: returns at the last byte of a good answer, raises on any other."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import aiohttp

from cotune.measurement.corpus import Clip
from cotune.measurement.prompts import prompt

_MODELS = "/v1/models"


class AnswerError(Exception):
    """An answer that is none: a status that is not 2xx, a stream that was cut, a body that makes no sense."""


@dataclass
class Answer:
    """What one request measured beside its latency, as far as it has come; times in seconds."""

    first_token: float | None = None
    """Of a request that was given up before its first token: at least so long."""
    between_tokens: list[float] = field(default_factory=list[float])
    tokens: int = 0
    heard: tuple[str, str] | None = None
    """Reference and transcription."""
    audio_seconds: float = 0.0
    processing_seconds: float = 0.0


class Client(Protocol):
    """Sends requests to one service. What it sends next depends only on how often it was asked."""

    async def send(self, answer: Answer) -> None:
        """One request, to the last byte of its answer.

        Args:
            answer: filled in on the way, so that a request that is given up still says how far it came.

        Raises:
            AnswerError: the service answered, and not as it should.
            aiohttp.ClientError: there was no answer.
            TimeoutError: the answer took too long.
        """
        ...


@dataclass
class CompletionsClient:
    """Streamed completions of the OpenAI API, each with a prompt of its own and an answer of exact length."""

    session: aiohttp.ClientSession
    url: str
    prompt_tokens: int
    output_tokens: int
    seed: int
    _model: str = ""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def send(self, answer: Answer) -> None:
        """One completion. The first call asks for the name of the served model."""
        sent = time.monotonic()
        try:
            await self._complete(answer, sent)
        except asyncio.CancelledError:
            if answer.first_token is None:
                answer.first_token = time.monotonic() - sent
            raise

    async def _complete(self, answer: Answer, sent: float) -> None:
        if not self._model:
            self._model = (await served_model(self.session, self.url)).name
        body = {
            "model": self._model,
            "prompt": prompt(self.prompt_tokens, self.seed + next(self._numbers)),
            "max_tokens": self.output_tokens,
            "min_tokens": self.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self.session.post(f"{self.url}/v1/completions", json=body) as response:
            await _refuse_errors(response)
            await _read_stream(response, answer, sent)


@dataclass
class TranscriptionsClient:
    """Transcriptions of the OpenAI API, the clips of a corpus one after the other."""

    session: aiohttp.ClientSession
    url: str
    clips: Sequence[Clip]
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def send(self, answer: Answer) -> None:
        """One transcription."""
        clip = self.clips[next(self._numbers) % len(self.clips)]
        form = aiohttp.FormData()
        form.add_field("file", clip.audio, filename=clip.name, content_type="audio/wav")
        form.add_field("model", "whisper-1")
        form.add_field("response_format", "json")
        sent = time.monotonic()
        async with self.session.post(f"{self.url}/v1/audio/transcriptions", data=form) as response:
            await _refuse_errors(response)
            text = cast("dict[str, Any]", await response.json()).get("text")
        if not isinstance(text, str):
            raise AnswerError("the transcription has no text")
        answer.heard = (clip.transcript, text)
        answer.audio_seconds, answer.processing_seconds = clip.seconds, time.monotonic() - sent


@dataclass
class HttpClient:
    """Plain GET requests."""

    session: aiohttp.ClientSession
    url: str

    async def send(self, answer: Answer) -> None:
        """One request, the body read to its end."""
        async with self.session.get(self.url) as response:
            await _refuse_errors(response)
            await response.read()


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
    async with session.get(url + _MODELS) as response:
        await _refuse_errors(response)
        found = cast("dict[str, Any]", await response.json())
    try:
        model = cast("dict[str, Any]", found["data"][0])
        return ServedModel(str(model["id"]), model.get("max_model_len"))
    except (KeyError, IndexError, TypeError) as error:
        raise AnswerError(f"{_MODELS} names no model") from error


async def _refuse_errors(response: aiohttp.ClientResponse) -> None:
    if not 200 <= response.status <= 299:
        text = (await response.text())[:200]
        raise AnswerError(f"{response.method} {response.url.path}: {response.status} {text}")


async def _read_stream(response: aiohttp.ClientResponse, answer: Answer, sent: float) -> None:
    """Server-sent events up to `[DONE]`: without it the stream was cut."""
    latest: float | None = None
    usage: dict[str, Any] | None = None
    async for line in response.content:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            if latest is None:
                raise AnswerError("the stream ended without a token")
            answer.tokens = int(usage["completion_tokens"]) if usage else 1 + len(answer.between_tokens)
            return
        event = cast("dict[str, Any]", json.loads(data))
        if "error" in event:
            raise AnswerError(str(event["error"])[:200])
        # Half a character is a token without text; an event that only says why the answer ended is none.
        if any(it.get("text") or it.get("finish_reason") is None for it in event.get("choices") or ()):
            now = time.monotonic()
            if latest is None:
                answer.first_token = now - sent
            else:
                answer.between_tokens.append(now - latest)
            latest = now
        usage = event.get("usage") or usage
    raise AnswerError("the stream was cut before its end")
