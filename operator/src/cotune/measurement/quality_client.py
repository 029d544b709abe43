"""Asking a question whose answer is known: whole answers, and as deterministic as a server can be."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from cotune.measurement.clients import (
    GIVEN_UP,
    Answer,
    AnswerError,
    ErrorKind,
    Prepared,
    json_without_error,
    refuse_errors,
    served_model,
)
from cotune.measurement.quality import SHOWN_TOKENS, AnsweredToken, Question, Reply
from cotune.measurement.requests import Request

_DETERMINISTIC: Mapping[str, Any] = {"temperature": 0, "seed": 0, "n": 1, "stream": False}


@dataclass
class QualityClient:
    """Questions of the OpenAI API, each once; the request's number is the question's."""

    session: aiohttp.ClientSession
    url: str
    questions: Sequence[Question]
    chat: bool = False
    """`/v1/chat/completions`, else `/v1/completions`."""
    _model: str = ""

    def prepare(self, request: Request) -> Prepared:
        """The question."""
        return Prepared(request, self.body(self.questions[request.number]))

    async def send(self, prepared: Prepared, answer: Answer) -> None:
        """One question. The first call asks for the name of the served model."""
        answer.reply = await self.ask(self.questions[prepared.request.number], prepared.body)

    def body(self, question: Question, *, shows_tokens: bool = False) -> dict[str, Any]:
        """What is sent.

        Args:
            question: what is asked.
            shows_tokens: log-probabilities are wanted even where none are recorded.
        """
        if self.chat:
            messages = [it.model_dump() for it in question.messages or ()]
            content: dict[str, Any] = {"messages": messages or [{"role": "user", "content": question.prompt}]}
            shown: dict[str, Any] = {"logprobs": True, "top_logprobs": SHOWN_TOKENS}
        else:
            content, shown = {"prompt": question.prompt}, {"logprobs": SHOWN_TOKENS}
        wanted = shown if question.logprobs or shows_tokens else {}
        return {**content, **_DETERMINISTIC, "max_tokens": question.asked_tokens, **wanted}

    async def ask(self, question: Question, body: Mapping[str, Any]) -> Reply:
        """The whole answer.

        Raises:
            AnswerError: there is none, it was cut short, or what was asked for is missing in it.
        """
        if not self._model:
            self._model = (await served_model(self.session, self.url)).name
        path = "/v1/chat/completions" if self.chat else "/v1/completions"
        data = json.dumps({"model": self._model, **body}).encode()
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            await refuse_errors(response)
            found = cast("dict[str, Any]", json_without_error(await response.read()))
        try:
            choice = cast("dict[str, Any]", found["choices"][0])
            text = choice["message"].get("content") if self.chat else choice["text"]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise AnswerError(f"the answer has no text: {str(found)[:200]}") from error
        _refuse_cut(choice, found.get("usage") or {}, int(body["max_tokens"]))
        tokens = _chat_tokens(choice) if self.chat else _completion_tokens(choice)
        if "logprobs" in body and not tokens:
            raise AnswerError("the server shows no log-probabilities")
        return Reply(question, str(text or ""), tokens)


def _refuse_cut(choice: Mapping[str, Any], usage: Mapping[str, Any], expected: int) -> None:
    reason, tokens = choice.get("finish_reason"), usage.get("completion_tokens")
    if reason is None or reason in GIVEN_UP:
        raise AnswerError(f"the answer was cut short: its reason to end is {reason}", ErrorKind.TRUNCATED)
    if reason == "length" and tokens is not None and int(tokens) < expected:
        raise AnswerError(f"the answer was cut short: {tokens} of {expected} tokens", ErrorKind.TRUNCATED)


def _completion_tokens(choice: Mapping[str, Any]) -> tuple[AnsweredToken, ...]:
    shown = cast("dict[str, Any]", choice.get("logprobs") or {})
    tokens = cast("list[str]", shown.get("tokens") or [])
    values = cast("list[float | None]", shown.get("token_logprobs") or [])
    others = cast("list[dict[str, float] | None]", shown.get("top_logprobs") or [None] * len(tokens))
    return tuple(
        AnsweredToken(token, value, other or {})
        for token, value, other in zip(tokens, values, others, strict=False)
        if value is not None
    )


def _chat_tokens(choice: Mapping[str, Any]) -> tuple[AnsweredToken, ...]:
    logprobs = cast("dict[str, Any]", choice.get("logprobs") or {})
    shown = cast("list[dict[str, Any]]", logprobs.get("content") or [])
    return tuple(
        AnsweredToken(
            str(it["token"]),
            float(it["logprob"]),
            {str(other["token"]): float(other["logprob"]) for other in it.get("top_logprobs") or ()},
        )
        for it in shown
    )
