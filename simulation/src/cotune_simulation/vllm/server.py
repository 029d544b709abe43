"""vLLM's HTTP interface: the parts of OpenAI's API that it serves, and `/health` and `/metrics`."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from cotune_simulation.faults import Fault, has
from cotune_simulation.vllm.answers import Token, answer
from cotune_simulation.vllm.engine import Engine
from cotune_simulation.vllm.metrics import EngineMetrics
from cotune_simulation.vllm.text import count_tokens, generated_text

_CHAT_ANSWER_TOKENS = 64
"""Where a chat's request states no limit, a real model stops by itself; this one after so many tokens."""

_COMPLETION_DEFAULT_TOKENS = 16
"""OpenAI's and vLLM's default of `max_tokens` for completions."""


class BadRequestError(Exception):
    """The request is refused, with vLLM's words."""


@dataclass(frozen=True)
class Completion:
    """A request for a completion, whichever of the two interfaces it came by."""

    chat: bool
    model: str
    prompt_tokens: int
    max_tokens: int
    finish_reason: str
    stream: bool
    include_usage: bool
    answer: Sequence[Token] | None = None
    """Of a question that is known to have one; else the text is made up."""
    shows_tokens: bool = False
    """With their log-probabilities."""

    def text(self, first: int, last: int) -> str:
        """The text of the generated tokens number `first` to `last` (from 1, both included)."""
        if self.answer is None:
            return generated_text(first, last)
        return "".join(it.text for it in self.answer[first - 1 : last])

    def usage(self, generated: int) -> dict[str, object]:
        """OpenAI's `usage` field."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + generated,
            "completion_tokens": generated,
            "prompt_tokens_details": None,
        }


class Api:
    """Routes of one server."""

    def __init__(
        self,
        engine: Engine,
        metrics: EngineMetrics,
        model_names: tuple[str, ...],
        max_model_len: int,
        damage: float = 0.0,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._names = model_names
        self._max_model_len = max_model_len
        self._damage = damage
        self._created = int(time.time())

    def application(self) -> web.Application:
        """The routes as an aiohttp application."""
        application = web.Application(client_max_size=16 * 1024**2)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat_completions),
            ]
        )
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _models(self, _: web.Request) -> web.Response:
        models = [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "simulation",
                "root": self._names[0],
                "parent": None,
                "max_model_len": self._max_model_len,
            }
            for name in self._names
        ]
        return web.json_response({"object": "list", "data": models})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            completion = self._parse(await _json_object(request), chat=chat)
        except web.HTTPNotFound as error:
            return _error(404, "NotFoundError", error.text or "")
        except BadRequestError as error:
            return _error(400, "BadRequestError", str(error))
        identity = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        # The generator is ended at once when the client goes away, so that the engine forgets the request.
        async with aclosing(self._engine.generate(completion.prompt_tokens, completion.max_tokens)) as counts:
            if completion.stream:
                response = await self._stream(request, identity, completion, counts)
            else:
                response = await self._whole(identity, completion, counts)
        self._metrics.succeeded(completion.finish_reason)
        return response

    def _parse(self, body: dict[str, object], *, chat: bool) -> Completion:
        model = body.get("model") or self._names[0]
        if model not in self._names:
            raise web.HTTPNotFound(text=f"The model `{model}` does not exist.")
        prompt_tokens = _chat_tokens(body) if chat else _prompt_tokens(body)
        room = self._max_model_len - prompt_tokens
        wanted = body.get("max_completion_tokens") or body.get("max_tokens")
        if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
            raise BadRequestError(f"max_tokens must be at least 1, got {wanted}.")
        if room < 1 or (wanted is not None and wanted > room):
            raise BadRequestError(
                f"This model's maximum context length is {self._max_model_len} tokens. However, you requested "
                f"{prompt_tokens + (wanted or 0)} tokens ({prompt_tokens} in the messages, {wanted or 0} in the "
                "completion). Please reduce the length of the messages or completion."
            )
        options = body.get("stream_options")
        include_usage = isinstance(options, dict) and bool(cast("dict[str, object]", options).get("include_usage"))
        default = _CHAT_ANSWER_TOKENS if chat else _COMPLETION_DEFAULT_TOKENS
        max_tokens = wanted or min(default, room)
        # A prompt's sum is answered; whoever wants tokens beyond the end of it gets made-up ones, as ever.
        known = None if body.get("ignore_eos") else answer(_text(body, chat=chat), self._damage)
        is_stopped = (known is not None and len(known) <= max_tokens) or (chat and wanted is None)
        return Completion(
            chat=chat,
            model=str(model),
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens if known is None else min(max_tokens, len(known)),
            finish_reason="stop" if is_stopped else "length",
            stream=bool(body.get("stream")),
            include_usage=include_usage,
            answer=known,
            shows_tokens=body.get("logprobs") not in {None, False},
        )

    async def _whole(self, identity: str, completion: Completion, counts: AsyncIterator[int]) -> web.Response:
        generated = 0
        async for count in counts:
            generated = count
        text = completion.text(1, generated)
        choice: dict[str, object] = {
            "index": 0,
            "logprobs": _shown(completion) if completion.shows_tokens else None,
            "finish_reason": completion.finish_reason,
        }
        if completion.chat:
            choice["message"] = {"role": "assistant", "content": text.lstrip()}
        else:
            choice["text"] = text
        body = self._envelope(identity, completion, [choice], chunk=False)
        return web.json_response({**body, "usage": completion.usage(generated)})

    async def _stream(
        self, request: web.Request, identity: str, completion: Completion, counts: AsyncIterator[int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def event(choices: list[dict[str, object]], **more: object) -> None:
            body = self._envelope(identity, completion, choices, chunk=True)
            await response.write(f"data: {json.dumps({**body, **more})}\n\n".encode())

        if completion.chat:
            await event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        generated = 0
        async for count in counts:
            text = completion.text(generated + 1, count)
            generated = count
            finish = completion.finish_reason if count == completion.max_tokens else None
            choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish}
            if completion.chat:
                choice["delta"] = {"content": text}
            else:
                choice["text"] = text
            await event([choice])
            if has(request, Fault.TRUNCATED) and 2 * count >= completion.max_tokens:
                await response.write_eof()
                return response
        if completion.include_usage:
            await event([], usage=completion.usage(generated))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _envelope(
        self, identity: str, completion: Completion, choices: list[dict[str, object]], *, chunk: bool
    ) -> dict[str, object]:
        kind = "text_completion" if not completion.chat else f"chat.completion{'.chunk' if chunk else ''}"
        created = int(time.time())
        return {"id": identity, "object": kind, "created": created, "model": completion.model, "choices": choices}


async def _json_object(request: web.Request) -> dict[str, object]:
    try:
        body: object = await request.json()
    except ValueError as error:
        raise BadRequestError(f"Invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("Input should be a valid dictionary")
    return cast("dict[str, object]", body)


def _prompt_tokens(body: dict[str, object]) -> int:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return count_tokens(prompt)
    if isinstance(prompt, list) and prompt:
        parts = cast("list[object]", prompt)
        if all(isinstance(part, int) for part in parts):
            return len(parts)
        if len(parts) == 1 and isinstance(parts[0], str):
            return count_tokens(parts[0])
        raise BadRequestError("The simulation completes one prompt per request.")
    raise BadRequestError("You must provide a prompt.")


def _chat_tokens(body: dict[str, object]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages: Field required")
    # A role and its marks take about four tokens a message in Qwen's template.
    return sum(4 + count_tokens(_content(message)) for message in cast("list[object]", messages))


def _text(body: dict[str, object], *, chat: bool) -> str:
    if chat:
        return _content(cast("list[object]", body["messages"])[-1])
    prompt = body["prompt"]
    parts = cast("list[object]", prompt) if isinstance(prompt, list) else [prompt]
    return parts[0] if isinstance(parts[0], str) else ""


def _shown(completion: Completion) -> dict[str, object] | None:
    """Log-probabilities as the two interfaces have them; there are none of a text that is made up."""
    tokens = (completion.answer or ())[: completion.max_tokens]
    if not tokens:
        return None
    if completion.chat:
        return {
            "content": [
                {
                    "token": it.text,
                    "logprob": it.logprob,
                    "bytes": list(it.text.encode()),
                    "top_logprobs": [
                        {"token": text, "logprob": value, "bytes": list(text.encode())}
                        for text, value in ((it.text, it.logprob), it.instead)
                    ],
                }
                for it in tokens
            ]
        }
    return {
        "tokens": [it.text for it in tokens],
        "token_logprobs": [it.logprob for it in tokens],
        "top_logprobs": [{it.text: it.logprob, it.instead[0]: it.instead[1]} for it in tokens],
        "text_offset": [sum(len(it.text) for it in tokens[:place]) for place in range(len(tokens))],
    }


def _content(message: object) -> str:
    content = cast("dict[str, object]", message).get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = cast(
            "list[dict[str, object]]", [part for part in cast("list[object]", content) if isinstance(part, dict)]
        )
        return " ".join(str(part.get("text", "")) for part in parts)
    return content if isinstance(content, str) else ""


def _error(status: int, kind: str, message: str) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
