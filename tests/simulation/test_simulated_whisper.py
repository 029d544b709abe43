"""The simulated Whisper server, its corpus and a neighbour."""

import asyncio
import json
import time
from pathlib import Path

import jiwer
import pytest
from cotune_simulation.clips import read_clip, write_clip
from cotune_simulation.speech import TRANSCRIPTS, write_corpus
from cotune_simulation.whisper.figures import SIZES, size_figures
from cotune_simulation.whisper.hearing import heard
from support.simulated_card import RunningCard
from support.simulated_server import RunningServer, ended_server, running_server

MODULE = "cotune_simulation.whisper"
PATH = "/v1/audio/transcriptions"
MIB = 1024 * 1024
CARD_FREE = (12_288 - 200) * MIB
EASY = "please turn on the lights"
CLIP = write_clip(bytes([128]) * 8000, 8000, EASY)


def errors(rate: float) -> int:
    """Word errors over the whole corpus."""
    references = list(TRANSCRIPTS.values())
    output = jiwer.process_words(references, [heard(reference, rate) for reference in references])
    return output.substitutions + output.deletions + output.insertions


def transcribe_ms(server: RunningServer) -> float:
    began = time.monotonic()
    assert server.post_form(PATH, file=CLIP, model="whisper-1").json() == {"text": EASY}
    return (time.monotonic() - began) * 1000


@pytest.mark.parametrize(("size", "held"), [("tiny", 512), ("base", 768), ("small", 1536)])
def test_it_holds_what_its_size_takes_and_transcribes(card: RunningCard, size: str, held: int) -> None:
    async def free() -> int:
        async with card.client() as client:
            return await client.free_bytes()

    with running_server(card.environment(), MODULE, ASR_WHISPER_SIZE=size) as server:
        assert asyncio.run(free()) == CARD_FREE - held * MIB
        assert server.get("/health").json() == {"status": "ok", "model": size}
        assert server.post_form(PATH, file=CLIP).json() == {"text": EASY}


def test_it_answers_in_the_form_that_was_asked_for(card: RunningCard) -> None:
    with running_server(card.environment(), MODULE, ASR_WHISPER_SIZE="tiny") as server:
        verbose = server.post_form(PATH, file=CLIP, response_format="verbose_json").json()
        assert (verbose["duration"], verbose["text"], len(verbose["segments"])) == (1.0, EASY, 1)
        assert server.post_form(PATH, file=CLIP, response_format="text").body.decode() == f"{EASY}\n"
        assert server.post_form(PATH, file=CLIP, response_format="srt").status == 400
        assert server.post_form(PATH, file=b"no audio").status == 400
        assert server.post_form(PATH, model="whisper-1").status == 400
        assert server.post_form(PATH, file=write_clip(bytes(800), 8000, "")).json() == {"text": ""}


def test_small_is_slower_than_tiny_and_slower_still_beside_others(card: RunningCard) -> None:
    async def beside_a_busy_neighbour(server: RunningServer) -> float:
        async with card.client() as neighbour:
            busy = asyncio.create_task(neighbour.run(kernel_ms=20.0, launches=500))
            try:
                return await asyncio.to_thread(transcribe_ms, server)
            finally:
                busy.cancel()

    latencies: dict[str, float] = {}
    for size in ("tiny", "small"):
        with running_server(card.environment(), MODULE, ASR_WHISPER_SIZE=size) as server:
            transcribe_ms(server)
            latencies[size] = transcribe_ms(server)
            if size == "small":
                latencies["beside"] = asyncio.run(beside_a_busy_neighbour(server))

    assert 34 <= latencies["tiny"] < latencies["small"] < latencies["beside"]
    assert latencies["beside"] >= 270


def test_a_full_card_ends_it_with_torchs_message(card: RunningCard) -> None:
    async def start_on_a_full_card() -> str:
        async with card.client() as neighbour:
            await neighbour.allocate(CARD_FREE - 400 * MIB)
            ended = await asyncio.to_thread(ended_server, card.environment(), MODULE, ASR_WHISPER_SIZE="small")
            assert ended.returncode == 1
            return ended.stdout

    assert (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 102.00 MiB. GPU 0 has a total capacity of "
        "12.00 GiB of which 42.00 MiB is free." in asyncio.run(start_on_a_full_card())
    )


def test_without_a_card_it_ends_or_falls_back_to_the_cpu_silently(card: RunningCard) -> None:
    elsewhere = card.environment() | {"COTUNE_SIMULATION_SOCKET": f"{card.socket}.none"}
    ended = ended_server(elsewhere, MODULE)
    assert (ended.returncode, "RuntimeError: No CUDA GPUs are available" in ended.stdout) == (1, True)
    with running_server(elsewhere, MODULE, ASR_WHISPER_SIZE="tiny", COTUNE_SIMULATION_DEVICE_FALLBACK="1") as server:
        assert transcribe_ms(server) >= 655


def test_the_corpus_is_small_and_carries_its_transcripts(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    transcripts = json.loads((tmp_path / "transcripts.json").read_text())
    assert transcripts == TRANSCRIPTS
    for name, transcript in transcripts.items():
        clip = read_clip((tmp_path / name).read_bytes())
        assert (clip.transcript, clip.seconds) == (transcript, 1.0)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 100_000


def test_sizes_err_at_their_rates_and_larger_ones_less() -> None:
    rates = {size: size_figures(size, "NVIDIA-H200").word_error_rate for size in SIZES}
    assert (errors(rates["tiny.en"]), errors(rates["base"]), errors(rates["small"])) == (4, 3, 2)
    assert errors(0.0) == 0


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff"])
def test_broken_clips_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="Invalid file format"):
        read_clip(content)


def test_a_neighbour_holds_memory_and_answers(card: RunningCard) -> None:
    async def free() -> int:
        async with card.client() as client:
            return await client.free_bytes()

    with running_server(card.environment(), "cotune_simulation.neighbour", HOLD_MIB="1000") as server:
        assert asyncio.run(free()) == CARD_FREE - 1000 * MIB
        assert server.post("/embed", {}).json()["simulation"] is True
