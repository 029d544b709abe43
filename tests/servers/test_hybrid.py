"""VOSK first and Whisper to correct it, on hypotheses that were recorded of the real models."""

import asyncio
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile  # pyright: ignore[reportMissingTypeStubs]
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from cotune_servers.stt.audio import Samples
from cotune_servers.stt.hybrid import HybridModel
from cotune_servers.stt.server import Api
from cotune_servers.stt.similarity import similarity
from cotune_servers.stt.transcriber import Transcriber
from cotune_servers.stt.vosk_recogniser import VoskError, VoskRecogniser

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "speech" / "hypotheses.json").read_text())["clips"]
CLIP = np.zeros(16_000, np.float32)


class Says:
    """Both models, by what they say."""

    def __init__(self, vosk: str, whisper: str) -> None:
        self._vosk, self._whisper = vosk, whisper
        self.order: list[str] = []

    def hear(self, audio: Samples) -> str:
        self.order.append(f"vosk {len(audio)}")
        return self._vosk

    def transcribe(self, audio: Samples, **options: Any) -> dict[str, Any]:
        self.order.append(f"whisper {len(audio)} {options['language']}")
        return {"text": self._whisper}


@pytest.mark.parametrize("clip", RECORDED, ids=lambda it: it["name"])
def test_recorded_hypotheses_are_corrected_where_they_differ(clip: dict[str, Any]) -> None:
    both = Says(clip["vosk"], clip["whisper"])

    found = HybridModel(both, both, 0.75).transcribe(CLIP, language="ko")

    assert both.order == ["vosk 16000", "whisper 16000 ko"]
    assert found["similarity"] == pytest.approx(clip["similarity"], abs=1e-3)
    assert found["engine"] == ("whisper" if clip["similarity"] < 0.75 else "vosk")
    assert found["text"] == clip[found["engine"]]


def test_both_outcomes_were_recorded() -> None:
    assert {it["similarity"] < 0.75 for it in RECORDED} == {True, False}


@pytest.mark.parametrize(
    ("vosk", "whisper", "expected"),
    [
        ("turn on the lights", "Turn on the lights.", 1.0),
        ("turn on the light", "Turn on the lights.", 2 * 14 / 29),
        ("거실에 불을 켜 주세요", "거실에 불을 켜주세요.", 1.0),
        ("", "Thank you.", 0.0),
        ("", " ", 1.0),
        ("one", "", 0.0),
        ("twenty five", "25", 0.0),
    ],
)
def test_capitals_marks_and_spaces_are_no_difference(vosk: str, whisper: str, expected: float) -> None:
    assert similarity(vosk, whisper) == pytest.approx(expected)


@pytest.mark.parametrize(("threshold", "engine"), [(0.0, "vosk"), (0.5, "vosk"), (0.51, "whisper"), (1.0, "whisper")])
def test_at_the_threshold_the_first_text_stays(threshold: float, engine: str) -> None:
    both = Says("ab", "ac")

    assert HybridModel(both, both, threshold).transcribe(CLIP, language="en")["engine"] == engine


def form() -> FormData:
    file = io.BytesIO()
    soundfile.write(file, CLIP, 16_000, format="WAV")  # pyright: ignore[reportUnknownMemberType]
    data = FormData({"response_format": "verbose_json"})
    data.add_field("file", file.getvalue(), filename="clip.wav", content_type="audio/wav")
    return data


def test_answers_and_metrics_say_whose_text_it_is() -> None:
    async def ask(both: Says) -> tuple[dict[str, Any], str]:
        transcriber = Transcriber(HybridModel(both, both, 0.75), "en", is_half=False, queue=4)
        async with TestClient(TestServer(Api(transcriber, "base").application())) as client:
            await client.post("/v1/audio/transcriptions", data=form())
            response = await client.post("/v1/audio/transcriptions", data=form())
            body = await response.json()
            metrics = await (await client.get("/metrics")).text()
        transcriber.close()
        return body, metrics

    kept, kept_metrics = asyncio.run(ask(Says("turn on the light", "Turn on the lights.")))
    corrected, corrected_metrics = asyncio.run(ask(Says("tournament", "Turn on the lights.")))

    assert (kept["text"], kept["engine"]) == ("turn on the light", "vosk")
    assert kept["similarity"] == pytest.approx(0.966, abs=0.001)
    assert (corrected["text"], corrected["engine"]) == ("Turn on the lights.", "whisper")
    assert 'stt_answers_total{engine="vosk"} 2.0' in kept_metrics
    assert 'engine="whisper"' not in kept_metrics
    assert 'stt_answers_total{engine="whisper"} 2.0' in corrected_metrics
    assert "stt_similarity_count 2.0" in corrected_metrics


class KaldiRecognizer:
    """What VOSK's does: whole sentences on the way, and the rest at the end."""

    fed: list[int]

    def __init__(self, model: str, rate: float) -> None:
        assert (model, rate) == ("a model", 16_000.0)
        self.fed = []

    def AcceptWaveform(self, data: bytes) -> bool:
        self.fed.append(len(data))
        return len(self.fed) == 2

    def Result(self) -> str:
        return json.dumps({"text": "turn on"})

    def FinalResult(self) -> str:
        assert sum(self.fed) == 2 * 16_000
        return json.dumps({"text": "the lights"})


def with_vosk(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    def quiet(_: int) -> None:
        return

    package = SimpleNamespace(SetLogLevel=quiet, Model=model, KaldiRecognizer=KaldiRecognizer)
    monkeypatch.setitem(sys.modules, "vosk", package)  # pyright: ignore[reportArgumentType]


def a_model(_: str) -> str:
    return "a model"


def no_model(_: str) -> str:
    raise Exception("Failed to create a model")


def test_all_sentences_of_a_clip_are_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "am").mkdir()
    with_vosk(monkeypatch, a_model)

    assert VoskRecogniser(tmp_path).hear(CLIP) == "turn on the lights"


def test_a_folder_without_a_model_a_broken_one_and_a_missing_package_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(VoskError, match=r"ASR_VOSK_MODEL: .* holds no model"):
        VoskRecogniser(tmp_path)
    (tmp_path / "am").mkdir()
    with_vosk(monkeypatch, no_model)
    with pytest.raises(VoskError, match=r"ASR_VOSK_MODEL: .*: Failed to create a model"):
        VoskRecogniser(tmp_path)
    monkeypatch.setitem(sys.modules, "vosk", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(VoskError, match="ASR_MODE=hybrid needs the package vosk"):
        VoskRecogniser(tmp_path)
