"""The command against a server that hears all of a clean clip and half of one with noise."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cotune.api.corpus import Noise
from cotune.measurement.corpus import read_corpus
from cotune.measurement.noise import noisy
from cotune.measurement.pulse_code import read_wav
from cotune_bench.word_errors import summary, transcribed
from cotune_simulation.clips import read_clip
from cotune_simulation.speech import TRANSCRIPTS, write_corpus


async def hear(request: web.Request) -> web.Response:
    file = (await request.post())["file"]
    assert isinstance(file, web.FileField)
    content = file.file.read()
    words = read_clip(content).transcript.split()
    is_noisy = len(set(read_wav(content).samples[:, 0].tolist())) > 256
    return web.json_response({"text": " ".join(words[: len(words) // 2] if is_noisy else words)})


async def models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "tiny.en"}]})


def test_every_condition_has_its_row(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    clips = [
        *noisy(read_corpus(tmp_path), Noise(snr_db=(10,), seed=0)),
        *noisy(read_corpus(tmp_path), Noise(snr_db=(10,), seed=1, clean=False)),
    ]

    async def run() -> tuple[str, dict[str, Any]]:
        application = web.Application()
        application.add_routes([web.post("/v1/audio/transcriptions", hear), web.get("/v1/models", models)])
        async with TestServer(application) as server:
            name, found = await transcribed(str(server.make_url("")).rstrip("/"), clips)
            return name, summary(found)

    name, found = asyncio.run(run())

    words = sum(len(it.split()) for it in TRANSCRIPTS.values())
    clean, noise = found["conditions"]
    assert name == "tiny.en"
    assert (clean["condition"], clean["transcriptions"], clean["words"], clean["wordErrorRate"]) == (
        "clean",
        6,
        words,
        0,
    )
    assert (noise["condition"], noise["transcriptions"], noise["words"]) == ("snr10", 12, 2 * words)
    assert 0.45 < noise["wordErrorRate"] < 0.6
