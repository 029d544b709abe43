"""The speech server with a model that hears nothing: its interface, its bounds, its start."""

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile  # pyright: ignore[reportMissingTypeStubs]
from aiohttp import ClientSession, FormData
from aiohttp.test_utils import TestClient, TestServer
from cotune.measurement.service_counters import out_of_memory
from cotune.trials.out_of_memory import failed_allocations
from cotune_servers.stt.__main__ import serve
from cotune_servers.stt.audio import AudioError, Samples, decode
from cotune_servers.stt.server import Api
from cotune_servers.stt.settings import Settings, SettingsError, read_settings
from cotune_servers.stt.transcriber import DeviceError, Transcriber, load
from support.simulated_server import free_port


class Heard:
    """Says how long the recording was; waits when it is told to."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.options: list[dict[str, Any]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def transcribe(self, audio: Samples, **options: Any) -> dict[str, Any]:
        assert self.go_on.wait(10)
        self.lengths.append(len(audio))
        self.options.append(options)
        return {"text": f" {len(audio) / 16_000:.1f} seconds of speech "}


def recording(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    samples = np.zeros((int(seconds * rate), channels), np.float32)
    soundfile.write(file, samples, rate, format="WAV")  # pyright: ignore[reportUnknownMemberType]
    return file.getvalue()


def form(content: bytes, **fields: str) -> FormData:
    data = FormData()
    data.add_field("file", content, filename="clip.wav", content_type="audio/wav")
    for name, value in fields.items():
        data.add_field(name, value)
    return data


@asynccontextmanager
async def serving(model: Heard, queue: int = 4) -> "AsyncGenerator[TestClient[Any, Any]]":
    transcriber = Transcriber(model, "en", is_half=False, queue=queue)
    async with TestClient(TestServer(Api(transcriber, "tiny.en").application())) as client:
        yield client
    transcriber.close()


_URL = "/v1/audio/transcriptions"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, '{"text": "2.0 seconds of speech"}'),
        ({"response_format": "text"}, "2.0 seconds of speech\n"),
        (
            {"response_format": "verbose_json"},
            '{"task": "transcribe", "duration": 2.0, "text": "2.0 seconds of speech"}',
        ),
    ],
)
def test_a_recording_is_answered_with_its_text(fields: dict[str, str], expected: str) -> None:
    async def ask() -> tuple[int, str]:
        async with serving(Heard()) as client:
            response = await client.post(_URL, data=form(recording(2), **fields))
            return response.status, await response.text()

    assert asyncio.run(ask()) == (200, expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (form(b"no recording"), "the recording cannot be read"),
        (form(recording(0)), "the recording is empty"),
        (form(recording(1), response_format="srt"), "response_format"),
        (FormData({"model": "whisper-1"}), "Field required"),
    ],
)
def test_what_cannot_be_heard_is_refused_with_the_reason(data: FormData, reason: str) -> None:
    async def ask() -> tuple[int, dict[str, Any]]:
        async with serving(Heard()) as client:
            response = await client.post(_URL, data=data)
            return response.status, await response.json()

    status, body = asyncio.run(ask())

    assert status == 400
    assert reason in body["error"]["message"]


def test_more_than_may_wait_are_turned_away_and_the_others_are_heard() -> None:
    model = Heard()
    model.go_on.clear()

    async def ask() -> tuple[list[int], set[str | None], str]:
        async with serving(model, queue=1) as client:
            asked = [asyncio.create_task(client.post(_URL, data=form(recording(1)))) for _ in range(5)]
            done: set[asyncio.Task[Any]] = set()
            while len(done) < 3:
                done, _ = await asyncio.wait(asked, timeout=0.05)
            model.go_on.set()
            responses = [await it for it in asked]
            later = {it.headers.get("Retry-After") for it in responses if it.status == 429}
            return sorted(it.status for it in responses), later, await (await client.get("/metrics")).text()

    statuses, later, metrics = asyncio.run(ask())

    assert statuses == [200, 200, 429, 429, 429]
    assert later == {"1"}
    assert 'stt_requests_total{status="429"} 3.0' in metrics
    assert "stt_audio_seconds_total 2.0" in metrics
    assert "stt_requests_present 0.0" in metrics


def test_the_model_is_named_and_well() -> None:
    async def ask() -> tuple[Any, Any]:
        async with serving(Heard()) as client:
            return await (await client.get("/v1/models")).json(), await (await client.get("/health")).json()

    models, health = asyncio.run(ask())

    assert [it["id"] for it in models["data"]] == ["tiny.en"]
    assert health == {"status": "ok", "model": "tiny.en"}


def test_the_warm_up_hears_short_and_long_clips_with_the_options_of_the_service() -> None:
    model = Heard()

    asyncio.run(Transcriber(model, "de", is_half=True, queue=0).warm_up())

    assert [it // 16_000 for it in model.lengths] == [1, 10, 29]
    assert {(it["language"], it["fp16"], it["temperature"]) for it in model.options} == {("de", True, 0.0)}


def test_other_rates_and_channels_become_16_khz_mono() -> None:
    assert decode(recording(1.5, rate=48_000, channels=2)).shape == (24_000,)
    assert decode(recording(1.5)).dtype == np.float32
    with pytest.raises(AudioError):
        decode(b"RIFF")


def test_settings_are_read_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "tiny.en.pt").touch()
    environment = {"ASR_MODELS": str(tmp_path), "ASR_WHISPER_SIZE": "tiny.en", "ASR_DEVICE": "cpu", "ASR_QUEUE": "0"}

    found = read_settings(environment)

    assert (found.checkpoint, found.device, found.queue, found.port) == (tmp_path / "tiny.en.pt", "cpu", 0, 9000)
    assert (found.mode, found.vosk_model, found.correct_below) == ("whisper", tmp_path / "vosk", 0.75)
    more = {"ASR_MODE": "hybrid", "ASR_VOSK_MODEL": "/volume/ko", "ASR_CORRECT_BELOW": "0.9"}
    hybrid = read_settings(environment | more)
    assert (hybrid.mode, hybrid.vosk_model, hybrid.correct_below) == ("hybrid", Path("/volume/ko"), 0.9)
    # Never the CPU without having been told so.
    assert read_settings(environment | {"ASR_DEVICE": ""}).device == "cuda"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ASR_WHISPER_SIZE": "large"}, "ASR_WHISPER_SIZE: no checkpoint of 'large' in .*; there are: tiny.en"),
        ({"ASR_DEVICE": "auto"}, "ASR_DEVICE: 'auto' is none of cuda, cpu"),
        ({"ASR_MODE": "both"}, "ASR_MODE: 'both' is none of whisper, hybrid"),
        ({"ASR_CORRECT_BELOW": "most"}, "ASR_CORRECT_BELOW: 'most' is no number"),
        ({"ASR_CORRECT_BELOW": "1.1"}, "ASR_CORRECT_BELOW: 1.1 is not within 0 and 1"),
        ({"ASR_QUEUE": "many"}, "ASR_QUEUE: 'many' is no whole number"),
        ({"PORT": "70000"}, "PORT: 70000 is not within 1 and 65535"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path, more: dict[str, str], reason: str) -> None:
    (tmp_path / "tiny.en.pt").touch()

    with pytest.raises(SettingsError, match=reason):
        read_settings({"ASR_MODELS": str(tmp_path), "ASR_WHISPER_SIZE": "tiny.en"} | more)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class NoRoom(Heard):
    """The card is full."""

    def transcribe(self, audio: Samples, **options: Any) -> dict[str, Any]:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 102.00 MiB.")


def test_a_recording_that_the_card_has_no_room_for_is_counted_and_the_probe_understands_the_counter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ask() -> tuple[list[int], str]:
        async with serving(NoRoom()) as client:
            statuses = [(await client.post(_URL, data=form(recording(1)))).status for _ in range(2)]
            return statuses, await (await client.get("/metrics")).text()

    statuses, metrics = asyncio.run(ask())

    assert statuses == [500, 500]
    assert out_of_memory(metrics) == 2
    assert failed_allocations(capsys.readouterr().err) >= 1


def settings(tmp_path: Path, port: int) -> Settings:
    (tmp_path / "tiny.en.pt").touch()
    environment = {"ASR_MODELS": str(tmp_path), "ASR_WHISPER_SIZE": "tiny.en", "PORT": str(port)}
    return read_settings(environment)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


def test_nobody_is_answered_before_every_length_is_warm(tmp_path: Path) -> None:
    model = Heard()
    model.go_on.clear()
    port = free_port()

    async def run() -> tuple[bool, list[int]]:
        transcriber = Transcriber(model, "en", is_half=False, queue=1)
        serving = asyncio.create_task(serve(transcriber, settings(tmp_path, port)))
        await asyncio.sleep(0.2)
        early = await listens(port)
        model.go_on.set()
        await until(lambda: listens(port))
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        return early, model.lengths

    early, lengths = asyncio.run(run())

    assert not early
    assert [it // 16_000 for it in lengths] == [1, 10, 29]


def test_at_sigterm_what_is_in_work_or_waits_is_answered_and_nothing_new(tmp_path: Path) -> None:
    model = Heard()
    port = free_port()

    async def run() -> tuple[list[int], bool]:
        transcriber = Transcriber(model, "en", is_half=False, queue=4)
        serving = asyncio.create_task(serve(transcriber, settings(tmp_path, port)))
        await until(lambda: listens(port))
        model.go_on.clear()
        url = f"http://127.0.0.1:{port}{_URL}"

        async def are_present() -> bool:
            return transcriber.present == 3

        async def is_gone() -> bool:
            return not await listens(port)

        async with ClientSession() as session:
            asked = [asyncio.create_task(session.post(url, data=form(recording(1)))) for _ in range(3)]
            await until(are_present)
            os.kill(os.getpid(), signal.SIGTERM)
            await until(is_gone)
            was_waiting = not any(it.done() for it in asked) and not serving.done()
            model.go_on.set()
            statuses = [(await it).status for it in asked]
        await serving
        return statuses, was_waiting

    assert asyncio.run(run()) == ([200, 200, 200], True)


def test_sigterm_in_the_warm_up_ends_it_without_the_rest(tmp_path: Path) -> None:
    model = Heard()
    model.go_on.clear()
    port = free_port()

    async def run() -> None:
        serving = asyncio.create_task(serve(Transcriber(model, "en", False, 1), settings(tmp_path, port)))
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Timer(0.2, model.go_on.set).start()
        await serving

    asyncio.run(run())

    assert len(model.lengths) <= 1


class Device(NamedTuple):
    """As torch's."""

    type: str

    def __str__(self) -> str:
        return self.type


@pytest.mark.parametrize(
    ("device", "has_card", "lies_on", "words"),
    [
        ("cuda", True, "cuda", None),
        ("cpu", False, "cpu", None),
        ("cuda", False, "cpu", "torch sees no card here: set ASR_DEVICE=cpu"),
        # What a library that falls back in silence does.
        ("cuda", True, "cpu", "ASR_DEVICE=cuda, and the model lies on cpu"),
    ],
)
def test_it_does_not_start_on_another_device_than_it_was_told(
    monkeypatch: pytest.MonkeyPatch, device: str, has_card: bool, lies_on: str, words: str | None
) -> None:
    loaded: list[tuple[str, str]] = []

    def load_model(name: str, device: str) -> Any:
        loaded.append((name, device))
        return SimpleNamespace(device=Device(lies_on))

    cuda = SimpleNamespace(is_available=lambda: has_card)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # pyright: ignore[reportArgumentType]
    whisper = SimpleNamespace(load_model=load_model)
    monkeypatch.setitem(sys.modules, "whisper", whisper)  # pyright: ignore[reportArgumentType]

    with nullcontext() if words is None else pytest.raises(DeviceError, match=words):
        load(Path("/models/base.pt"), device)

    assert loaded == ([("/models/base.pt", device)] if has_card or device == "cpu" else [])
