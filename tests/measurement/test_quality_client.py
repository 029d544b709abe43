"""Questions to servers that answer well, wrongly, or not to the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cotune.measurement.clients import AnswerError, ErrorKind
from cotune.measurement.contract import ErrorCount
from cotune.measurement.examination import Examination
from cotune.measurement.load import Target
from cotune.measurement.quality import AnsweredToken, ChosenToken, Question
from cotune.measurement.quality_client import QualityClient
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.requests import Message
from cotune.measurement.results import quality_measurement, quality_report

Answering = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]
QUESTION = Question(prompt="2 + 2 =", expect="4", max_tokens=3)
RECORDED = Question(prompt="2 + 2 =", logprobs=(ChosenToken(token=" 4", logprob=-0.1),))


async def asked(
    answering: Answering, questions: list[Question], chat: bool = False
) -> tuple[list[dict[str, Any]], list[Any]]:
    """The bodies that the server got, and reply or error for each question."""
    bodies: list[dict[str, Any]] = []

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "qwen"}]})

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await answering(bodies[-1])

    application = web.Application()
    application.router.add_get("/v1/models", models)
    application.router.add_post("/v1/chat/completions" if chat else "/v1/completions", handle)
    async with TestServer(application) as server, ClientSession() as session:
        client = QualityClient(session, str(server.make_url("")).rstrip("/"), questions, chat)
        found: list[Any] = []
        for it in questions:
            try:
                found.append(await client.ask(it, client.body(it)))
            except AnswerError as error:
                found.append(error)
        return bodies, found


def saying(choice: dict[str, Any], **more: Any) -> Answering:
    async def answer(_: dict[str, Any]) -> web.Response:
        return web.json_response({"choices": [choice], **more})

    return answer


def test_a_question_is_sent_whole_and_deterministic() -> None:
    choice = {"text": " 4", "finish_reason": "length", "logprobs": None}

    (body,), (reply,) = asyncio.run(asked(saying(choice, usage={"completion_tokens": 3}), [QUESTION]))

    assert body == {
        "model": "qwen",
        "prompt": "2 + 2 =",
        "temperature": 0,
        "seed": 0,
        "n": 1,
        "stream": False,
        "max_tokens": 3,
    }
    assert (reply.text, reply.tokens) == (" 4", ())


def test_a_chat_is_asked_with_its_messages_or_with_the_prompt_as_one() -> None:
    question = Question(messages=(Message(role="user", content="Yes?"),), expect="yes")
    choice = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}

    bodies, replies = asyncio.run(asked(saying(choice), [question, QUESTION], chat=True))

    assert [it["messages"] for it in bodies] == [
        [{"role": "user", "content": "Yes?"}],
        [{"role": "user", "content": "2 + 2 ="}],
    ]
    assert [it.text for it in replies] == ["yes", "yes"]


def test_the_chosen_tokens_of_both_interfaces_are_read() -> None:
    old = {"tokens": [" 4"], "token_logprobs": [-0.2], "top_logprobs": [{" 4": -0.2, " 5": -2.0}]}
    others = [{"token": " 4", "logprob": -0.2}, {"token": " 5", "logprob": -2.0}]
    new = {"content": [{"token": " 4", "logprob": -0.2, "top_logprobs": others}]}

    (plain,), (completion,) = asyncio.run(
        asked(saying({"text": " 4", "finish_reason": "length", "logprobs": old}), [RECORDED])
    )
    (chatted,), (chat,) = asyncio.run(
        asked(saying({"message": {"content": "4"}, "finish_reason": "stop", "logprobs": new}), [RECORDED], chat=True)
    )

    assert (plain["logprobs"], plain["max_tokens"]) == (5, 1)
    assert (chatted["logprobs"], chatted["top_logprobs"], chatted["max_tokens"]) == (True, 5, 1)
    assert completion.tokens == chat.tokens == (AnsweredToken(" 4", -0.2, {" 4": -0.2, " 5": -2.0}),)


@pytest.mark.parametrize(
    ("choice", "more", "kind", "words"),
    [
        ({"text": " 4", "finish_reason": None}, {}, ErrorKind.TRUNCATED, "reason to end is None"),
        ({"text": " 4", "finish_reason": "abort"}, {}, ErrorKind.TRUNCATED, "reason to end is abort"),
        (
            {"text": " 4", "finish_reason": "length"},
            {"usage": {"completion_tokens": 1}},
            ErrorKind.TRUNCATED,
            "1 of 3 tokens",
        ),
        ({}, {}, ErrorKind.ERROR_BODY, "no text"),
        ({"text": " 4", "finish_reason": "stop"}, {"error": "no memory"}, ErrorKind.ERROR_BODY, "no memory"),
    ],
)
def test_an_answer_that_is_cut_short_or_none_is_an_error(
    choice: dict[str, Any], more: dict[str, Any], kind: ErrorKind, words: str
) -> None:
    _, (error,) = asyncio.run(asked(saying(choice, **more), [QUESTION]))

    assert isinstance(error, AnswerError)
    assert (error.kind, words in str(error)) == (kind, True), error


def test_a_server_that_shows_no_log_probabilities_is_an_error() -> None:
    _, (error,) = asyncio.run(asked(saying({"text": " 4", "finish_reason": "stop", "logprobs": None}), [RECORDED]))

    assert "shows no log-probabilities" in str(error)


def test_wrong_refused_and_cut_answers_all_lower_the_quality_and_are_told_apart() -> None:
    answers: dict[str, Any] = {
        "right": {"text": "4", "finish_reason": "stop"},
        "wrong": {"text": "5", "finish_reason": "stop"},
        "declined": {"text": "I cannot help with that.", "finish_reason": "stop"},
        "cut": {"text": "4", "finish_reason": None},
    }

    async def answer(body: dict[str, Any]) -> web.Response:
        if body["prompt"] == "busy":
            return web.Response(status=429)
        return web.json_response({"choices": [answers[body["prompt"]]]})

    async def run() -> StreamRecord:
        async def models(_: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": "qwen"}]})

        async def handle(request: web.Request) -> web.Response:
            return await answer(await request.json())

        application = web.Application()
        application.router.add_get("/v1/models", models)
        application.router.add_post("/v1/completions", handle)
        async with TestServer(application) as server, ClientSession() as session:
            questions = [Question(prompt=it, expect="4") for it in (*answers, "busy")]
            client = QualityClient(session, str(server.make_url("")).rstrip("/"), questions)
            window = Window(asyncio.get_running_loop().time() + 0.1, 5.0, 5.0)
            return await Examination("judge", 0, questions, Target(client, 5.0)).run(window)

    record = asyncio.run(run())
    measured = quality_measurement("judge", [record])
    report = quality_report("judge", 0, record)

    assert measured is not None
    assert (measured.metric, measured.value, measured.samples) == ("judge.quality", "0.2", 5)
    assert (report.asked, report.answered, report.goodness) == (5, 3, 1.0)
    assert report.wrong == ("wrong: '5'", "declined: 'I cannot help with that.'")
    assert report.errors == (ErrorCount(kind="Refused", count=1), ErrorCount(kind="Truncated", count=1))
    assert quality_measurement("judge", []) is None


def test_one_without_an_answer_at_the_end_counts_as_wrong() -> None:
    window = Window(100.0, 10.0, 1.0)
    record = StreamRecord(window)
    record.sent(105.0, 105.0, scheduled=True)

    measured = quality_measurement("judge", [record])

    assert measured is not None
    assert (measured.value, measured.samples) == ("0", 1)
