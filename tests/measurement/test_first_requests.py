"""What a probe sends before its warm-up, where others use the services."""

import asyncio
import time

import pytest
from aiohttp import web
from cotune.api.workload import Arrivals, Protocol
from cotune.measurement.contract import ProbeConfiguration, ProbeStream
from cotune.measurement.corpus import Clip
from cotune.measurement.inputs import Inputs
from cotune.measurement.probe import run_probe

CLIPS = tuple(Clip(f"{number}.wav", b"RIFF", 1.0, "a word") for number in range(4))
RATE = 4


async def first_requests(paces: bool | None) -> list[float]:
    """When each clip was first asked for, in seconds from the first of them."""
    arrived: list[float] = []

    async def transcribe(request: web.Request) -> web.Response:
        await request.read()
        arrived.append(time.monotonic())
        return web.json_response({"text": "a word"})

    application = web.Application()
    application.router.add_post("/v1/audio/transcriptions", transcribe)
    application.router.add_get("/v1/models", _models)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = ProbeConfiguration(
        gpu=False,
        seed=1,
        warmup_seconds=0,
        duration_seconds=0.5,
        grace_seconds=2,
        paces_first_requests=paces,
        streams=(
            ProbeStream(
                component="stt",
                protocol=Protocol.OPENAI_TRANSCRIPTIONS,
                host="127.0.0.1",
                port=runner.addresses[0][1],
                arrivals=Arrivals(rate_per_second=str(RATE)),
            ),
        ),
    )
    try:
        await run_probe(configuration, Inputs(corpora={0: CLIPS}), None, lambda _: None)
    finally:
        await runner.cleanup()
    return [it - arrived[0] for it in arrived[: len(CLIPS)]]


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "whisper"}]})


@pytest.mark.timeout(60)
def test_the_first_requests_to_a_stage_keep_its_rate() -> None:
    paced = asyncio.run(first_requests(paces=True))

    assert len(paced) == len(CLIPS)
    assert all(it >= 0.95 * number / RATE for number, it in enumerate(paced)), paced


@pytest.mark.timeout(60)
def test_those_of_a_trial_follow_one_another() -> None:
    at_once = asyncio.run(first_requests(paces=None))

    assert at_once[-1] < 0.95 * (len(CLIPS) - 1) / RATE, at_once
