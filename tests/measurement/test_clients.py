"""The clients against servers that answer well, badly, or not to the end."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from cotune.measurement.clients import (
    Answer,
    AnswerError,
    ErrorKind,
    HttpClient,
    LanguageModelClient,
    TranscriptionsClient,
)
from cotune.measurement.corpus import Clip
from cotune.measurement.prompts import prompt
from cotune.measurement.requests import Message, Request, Sample
from cotune.measurement.vllm_metrics import CacheFacts, cache_facts
from cotune.measurement.word_error_rate import Heard

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MODELS = {"data": [{"id": "qwen", "max_model_len": 2048}]}
CACHE = 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="436"} 1.0\n'


@asynccontextmanager
async def serving(**handlers: Handler) -> AsyncGenerator[tuple[ClientSession, str]]:
    """A session and the address of a server; `v1_completions` answers `/v1/completions` and so on."""
    application = web.Application()
    for name, handler in handlers.items():
        application.router.add_route("*", "/" + name.replace("_", "/"), handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with ClientSession(timeout=ClientTimeout(total=10)) as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(body: object, status: int = 200) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status) if isinstance(body, str) else web.json_response(body)

    return handle


def streaming(*events: object, seen: list[Any] | None = None) -> Handler:
    """Server-sent events; what is no string is sent as JSON."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            await response.write(f"data: {data}\n\n".encode())
        return response

    return handle


def token(text: str, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"text": text, "finish_reason": finish}]}


ENDED = token("", "length")


def usage(tokens: int) -> dict[str, object]:
    return {"choices": [], "usage": {"completion_tokens": tokens}}


def request(number: int = 0) -> Request:
    return Request(key=1 + number, number=number, prompt_tokens=8, output_tokens=3)


def completed(handler: Handler, times: int = 1, give_up: float | None = None) -> Answer:
    """The last answer of a completions client; given up after so many seconds."""

    async def run() -> Answer:
        async with serving(v1_models=answering(MODELS), v1_completions=handler) as (session, url):
            client = LanguageModelClient(session, url)
            answer = Answer()
            for number in range(times):
                answer = Answer()
                sending = asyncio.create_task(client.send(client.prepare(request(number)), answer))
                await asyncio.wait([sending], timeout=give_up)
                sending.cancel()
                outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
                if isinstance(outcome, Exception):
                    raise outcome
            return answer

    return asyncio.run(run())


def test_a_streamed_completion_says_when_its_tokens_came() -> None:
    answer = completed(streaming(token("a"), token(""), token(" c"), token("", "length"), usage(3), "[DONE]"))

    assert answer.first_token is not None
    assert answer.first_token > 0
    assert (len(answer.between_tokens), answer.tokens) == (2, 3)


def test_without_usage_the_tokens_are_not_known_for_an_event_may_carry_several() -> None:
    assert completed(streaming(token("a"), token("b"), ENDED, "[DONE]")).tokens is None


def test_a_completion_asks_for_the_served_model_an_exact_length_and_a_new_prompt_each_time() -> None:
    seen: list[Any] = []
    completed(streaming(token("a"), ENDED, "[DONE]", seen=seen), times=2)

    first, second = seen
    assert first["model"] == "qwen"
    assert (first["max_tokens"], first["ignore_eos"]) == (3, True)
    assert first["prompt"] != second["prompt"]
    assert len(first["prompt"].split()) == len(second["prompt"].split()) == 8


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (streaming(token("a"), token("b")), "Truncated: the stream was cut"),
        (streaming(token("a"), ENDED), "Truncated: the stream was cut"),
        (streaming(token("a"), token("b"), "[DONE]"), "Truncated: .* reason to end is None"),
        (streaming(token("a"), token("", "abort"), "[DONE]"), "Truncated: .* reason to end is abort"),
        (streaming(token("a"), ENDED, usage(2), "[DONE]"), "Truncated: .* 2 of 3 tokens"),
        (streaming("[DONE]"), "Empty: the stream ended without a token"),
        (streaming(token("a"), {"error": {"message": "no memory"}}), "ErrorBody: .*no memory"),
        (answering({"error": {"message": "no memory"}}), "ErrorBody: application/json .*no memory"),
        (answering("busy", 503), "Refused: .* 503 busy"),
        (answering("slow down", 429), "Refused: .* 429"),
        (answering("broken", 500), "Status: .* 500 broken"),
    ],
)
def test_an_answer_that_is_none_is_an_error(handler: Handler, words: str) -> None:
    with pytest.raises(AnswerError) as raised:
        completed(handler)

    assert re.search(words, f"{raised.value.kind}: {raised.value}")


def test_an_answer_that_stops_by_itself_is_not_cut() -> None:
    assert completed(streaming(token("a"), token("", "stop"), usage(1), "[DONE]")).tokens == 1


def chatted(handler: Handler, dataset: Sequence[Sample] = ()) -> Answer:
    async def run() -> Answer:
        async with serving(v1_models=answering(MODELS), v1_chat_completions=handler) as (session, url):
            client = LanguageModelClient(session, url, chat=True, dataset=dataset)
            answer = Answer()
            await client.send(client.prepare(request()), answer)
            return answer

    return asyncio.run(run())


def delta(finish: str | None = None, **what: str) -> dict[str, object]:
    return {"choices": [{"delta": what, "finish_reason": finish}]}


def test_the_role_that_opens_a_chat_is_no_token() -> None:
    events = (delta(role="assistant", content=""), delta(content="a"), delta(content="b"), delta("length", content="c"))
    answer = chatted(streaming(*events, usage(3), "[DONE]"))

    assert (len(answer.between_tokens), answer.tokens) == (2, 3)


def test_a_chat_that_only_opens_is_empty() -> None:
    with pytest.raises(AnswerError) as raised:
        chatted(streaming(delta(role="assistant", content=""), delta("stop"), usage(0), "[DONE]"))

    assert raised.value.kind is ErrorKind.EMPTY


def test_a_dataset_is_sent_as_it_is() -> None:
    seen: list[Any] = []
    sample = Sample(messages=(Message(role="system", content="Be brief."), Message(role="user", content="Why?")))
    chatted(streaming(delta(content="a"), delta("length"), "[DONE]", seen=seen), [sample])

    assert seen[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]


def test_a_connection_that_breaks_is_an_error() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"text": "a"}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    with pytest.raises(ClientError):
        completed(broken)


def test_a_request_given_up_later_keeps_what_came() -> None:
    async def stalled(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(f"data: {json.dumps(token(it))}\n\n".encode() for it in "ab"))
        await asyncio.sleep(60)
        return response

    answer = completed(stalled, give_up=1.5)

    assert answer.first_token is not None
    assert answer.first_token < time.monotonic()
    assert len(answer.between_tokens) == 1


def test_transcriptions_send_the_clips_in_turn() -> None:
    sent: list[bytes] = []

    async def hear(request: web.Request) -> web.Response:
        file = (await request.post())["file"]
        assert isinstance(file, web.FileField)
        sent.append(file.file.read())
        return web.json_response({"text": "turn of the lights"})

    async def run() -> list[Answer]:
        async with serving(v1_audio_transcriptions=hear) as (session, url):
            clips = (Clip("1.wav", b"one", 2.0, "turn on the lights"), Clip("2.wav", b"two", 4.0, "close the door"))
            client = TranscriptionsClient(session, url, clips)
            answers = [Answer() for _ in range(3)]
            for number, answer in enumerate(answers):
                await client.send(client.prepare(request(number)), answer)
            return answers

    first, second, _ = asyncio.run(run())

    assert sent == [b"one", b"two", b"one"]
    assert first.heard == Heard("turn on the lights", "turn of the lights")
    assert (first.audio_seconds, second.audio_seconds) == (2.0, 4.0)
    assert first.processing_seconds > 0


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (answering({}), "no text"),
        (answering("no audio", 400), "400"),
        (answering({"text": " "}), "1.wav is empty"),
        (answering({"error": "no memory", "text": "yes"}), "error with status 200: no memory"),
        (answering("<html>"), "no JSON"),
    ],
)
def test_a_transcription_without_text_is_an_error(handler: Handler, words: str) -> None:
    async def run() -> None:
        async with serving(v1_audio_transcriptions=handler) as (session, url):
            client = TranscriptionsClient(session, url, (Clip("1.wav", b"", 1.0, "yes"),))
            await client.send(client.prepare(request()), Answer())

    with pytest.raises(AnswerError, match=words):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (answering("yes"), None),
        (answering(""), None),
        (answering({"error": None}), None),
        (answering("no", 404), "/it: 404 no"),
        (answering({"error": "no memory"}), "error with status 200: no memory"),
    ],
)
def test_a_get_is_good_unless_its_status_or_its_body_says_otherwise(handler: Handler, words: str | None) -> None:
    async def run() -> None:
        async with serving(it=handler) as (session, url):
            client = HttpClient(session, f"{url}/it")
            await client.send(client.prepare(request()), Answer())

    with nullcontext() if words is None else pytest.raises(AnswerError, match=words):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("handlers", "facts"),
    [
        ({"metrics": answering(CACHE), "v1_models": answering(MODELS)}, CacheFacts(6976, 3.40625)),
        ({"metrics": answering(CACHE), "v1_models": answering("", 500)}, CacheFacts(6976, None)),
        ({"metrics": answering(CACHE.replace("436", "None")), "v1_models": answering(MODELS)}, None),
        ({"metrics": answering("up 1\n"), "v1_models": answering(MODELS)}, None),
        ({"metrics": answering("<html>")}, None),
        ({}, None),
    ],
)
def test_the_cache_is_known_of_a_server_that_says_it(handlers: dict[str, Handler], facts: CacheFacts | None) -> None:
    async def run() -> CacheFacts | None:
        async with serving(**handlers) as (session, url):
            return await cache_facts(session, url)

    assert asyncio.run(run()) == facts


def test_prompts_repeat_by_seed_and_differ_early_between_seeds() -> None:
    assert prompt(64, 3) == prompt(64, 3)
    assert len({tuple(prompt(64, seed).split()[:16]) for seed in range(1000)}) == 1000


def test_prompts_share_the_prefix_that_was_asked_for_and_no_more() -> None:
    shared = prompt(48, 1)
    first, second = (prompt(64, seed, shared).split() for seed in (2, 3))

    assert first[:48] == second[:48] == shared.split()
    assert len(first) == 64
    assert first[48:] != second[48:]
