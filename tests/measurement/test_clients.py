"""The clients against servers that answer well, badly, or not to the end."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from cotune.measurement.clients import Answer, AnswerError, CompletionsClient, HttpClient, TranscriptionsClient
from cotune.measurement.corpus import Clip
from cotune.measurement.prompts import prompt
from cotune.measurement.vllm_metrics import CacheFacts, cache_facts

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


def usage(tokens: int) -> dict[str, object]:
    return {"choices": [], "usage": {"completion_tokens": tokens}}


def completed(handler: Handler, times: int = 1, give_up: float | None = None) -> Answer:
    """The last answer of a completions client; given up after so many seconds."""

    async def run() -> Answer:
        async with serving(v1_models=answering(MODELS), v1_completions=handler) as (session, url):
            client = CompletionsClient(session, url, prompt_tokens=8, output_tokens=3, seed=1)
            answer = Answer()
            for _ in range(times):
                answer = Answer()
                sending = asyncio.create_task(client.send(answer))
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


def test_without_usage_the_events_are_the_tokens() -> None:
    assert completed(streaming(token("a"), token("b"), "[DONE]")).tokens == 2


def test_a_completion_asks_for_the_served_model_an_exact_length_and_a_new_prompt_each_time() -> None:
    seen: list[Any] = []
    completed(streaming(token("a"), "[DONE]", seen=seen), times=2)

    first, second = seen
    assert first["model"] == "qwen"
    assert (first["max_tokens"], first["ignore_eos"]) == (3, True)
    assert first["prompt"] != second["prompt"]
    assert len(first["prompt"].split()) == len(second["prompt"].split()) == 8


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (streaming(token("a"), token("b")), "cut"),
        (streaming("[DONE]"), "without a token"),
        (streaming(token("a"), {"error": {"message": "no memory"}}), "no memory"),
        (answering("busy", 503), "503 busy"),
    ],
)
def test_an_answer_that_is_none_is_an_error(handler: Handler, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        completed(handler)


def test_a_connection_that_breaks_is_an_error() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"text": "a"}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    with pytest.raises(ClientError):
        completed(broken)


def test_a_request_given_up_before_its_first_token_says_how_long_it_waited() -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    answer = completed(silent, give_up=0.3)

    assert answer.first_token is not None
    assert answer.first_token >= 0.25


def test_a_request_given_up_later_keeps_what_came() -> None:
    async def stalled(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"".join(f"data: {json.dumps(token(it))}\n\n".encode() for it in "ab"))
        await asyncio.sleep(60)
        return response

    answer = completed(stalled, give_up=1.5)

    assert answer.first_token is not None
    assert answer.first_token < 1.5
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
            for answer in answers:
                await client.send(answer)
            return answers

    first, second, _ = asyncio.run(run())

    assert sent == [b"one", b"two", b"one"]
    assert first.heard == ("turn on the lights", "turn of the lights")
    assert (first.audio_seconds, second.audio_seconds) == (2.0, 4.0)
    assert first.processing_seconds > 0


@pytest.mark.parametrize(("handler", "words"), [(answering({}), "no text"), (answering("no audio", 400), "400")])
def test_a_transcription_without_text_is_an_error(handler: Handler, words: str) -> None:
    async def run() -> None:
        async with serving(v1_audio_transcriptions=handler) as (session, url):
            await TranscriptionsClient(session, url, (Clip("1.wav", b"", 1.0, "yes"),)).send(Answer())

    with pytest.raises(AnswerError, match=words):
        asyncio.run(run())


def test_a_get_that_is_not_answered_with_success_is_an_error() -> None:
    async def run() -> None:
        async with serving(good=answering("yes"), bad=answering("no", 404)) as (session, url):
            await HttpClient(session, f"{url}/good").send(Answer())
            await HttpClient(session, f"{url}/bad").send(Answer())

    with pytest.raises(AnswerError, match="/bad: 404 no"):
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
