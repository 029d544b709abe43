"""`python -m cotune_bench.word_errors CORPUS URL`: what a speech server makes of a corpus, clean and with noise.

One clip after the other, without a load: durations are those of a server at rest. The noise is mixed in by the probe's
own code, with several seeds, for a corpus of a few clips says little with one.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import aiohttp
from cotune.api.corpus import CLEAN, Noise, NoiseType
from cotune.measurement.clients import Answer, AnswerError, TranscriptionsClient, served_model
from cotune.measurement.corpus import Clip, CorpusError, read_corpus
from cotune.measurement.noise import noisy
from cotune.measurement.requests import Request
from cotune.measurement.word_error_rate import Heard, word_error_rate


@dataclass(frozen=True)
class Transcription:
    """One clip as the server heard it."""

    clip: Clip
    heard: Heard
    seconds: float


def main() -> int:
    """Exit code 1 with one line when a clip has no transcription."""
    parser = argparse.ArgumentParser(prog="python -m cotune_bench.word_errors", description=__doc__)
    parser.add_argument("corpus", type=Path, help="a folder with transcripts.json")
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:9000")
    parser.add_argument("--snr-db", type=int, nargs="+", default=[10, 5])
    parser.add_argument("--noise", type=NoiseType, choices=list(NoiseType), default=NoiseType.WHITE)
    parser.add_argument("--seeds", type=int, default=4, help="how often each ratio is mixed anew")
    options = parser.parse_args()
    try:
        corpus = read_corpus(options.corpus)
        noises = [
            Noise(snr_db=tuple(options.snr_db), type=options.noise, seed=seed, clean=seed == 0)
            for seed in range(options.seeds)
        ]
        clips = [clip for noise in noises for clip in noisy(corpus, noise)]
        model, found = asyncio.run(transcribed(options.url.rstrip("/"), clips))
    except (CorpusError, AnswerError, aiohttp.ClientError) as error:
        print(f"word-errors: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": model, "noise": options.noise, "seeds": options.seeds, **summary(found)}, indent=2))
    return 0


async def transcribed(url: str, clips: Sequence[Clip]) -> tuple[str, list[Transcription]]:
    """The served model's name, and every clip once.

    Raises:
        AnswerError, aiohttp.ClientError: a clip has no transcription.
    """
    found: list[Transcription] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        client = TranscriptionsClient(session, url, clips)
        for number, clip in enumerate(clips):
            answer, began = Answer(), time.monotonic()
            await client.send(client.prepare(Request(number, number)), answer)
            if answer.heard is not None:
                found.append(Transcription(clip, answer.heard, time.monotonic() - began))
        return (await served_model(session, url)).name, found


def summary(found: Sequence[Transcription]) -> dict[str, Any]:
    """By condition: transcriptions, words of their references, word error rate and mean duration."""
    rows: list[dict[str, Any]] = []
    for condition in sorted({it.clip.condition or CLEAN for it in found}):
        under_it = [it for it in found if (it.clip.condition or CLEAN) == condition]
        rate = word_error_rate([it.heard for it in under_it])
        rows.append(
            {
                "condition": condition,
                "transcriptions": len(under_it),
                "words": sum(len(it.heard.reference.split()) for it in under_it),
                "wordErrorRate": None if rate is None else round(rate, 4),
                "meanSeconds": round(fmean(it.seconds for it in under_it), 2),
            }
        )
    return {"conditions": rows}


if __name__ == "__main__":
    sys.exit(main())
