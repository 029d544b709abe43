"""What vLLM says of its queue and its cache while it is loaded: its own `/metrics`, read once a second."""

import asyncio
import time
from dataclasses import dataclass
from statistics import fmean

import aiohttp

from cotune.measurement.exposition import exposition, samples, wanted

_PREEMPTIONS, _WAITING = "vllm:num_preemptions_total", "vllm:num_requests_waiting"
_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""The latter until vLLM 0.10."""
_WANTED = wanted("|".join((_PREEMPTIONS, _WAITING, *_USAGE)))
_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class EngineReading:
    """One look; all engines behind one server together."""

    preemptions: float | None
    """Since the server's start; None: it does not say. So with the following."""
    waiting: float | None
    cache_usage: float | None
    """0 to 1; of several engines the fullest."""


@dataclass(frozen=True)
class EngineFacts:
    """One window."""

    readings: int
    preemptions: int | None
    """Requests that were thrown out of a full cache and computed again."""
    most_waiting: float | None
    mean_waiting: float | None
    most_cache_usage: float | None


def engine_reading(text: str) -> EngineReading | None:
    """What `/metrics` says; None: it is not vLLM's."""
    found = samples(text, _WANTED)
    usage = [value for name in _USAGE for value in found.get(name, ())]
    if not found:
        return None
    return EngineReading(
        preemptions=sum(found[_PREEMPTIONS]) if _PREEMPTIONS in found else None,
        waiting=sum(found[_WAITING]) if _WAITING in found else None,
        cache_usage=max(usage, default=None),
    )


def engine_facts(readings: "list[EngineReading]") -> EngineFacts:
    """Over a window of at least one reading; its preemptions want two, and a counter that did not begin anew."""
    first, last = readings[0].preemptions, readings[-1].preemptions
    waiting = [it.waiting for it in readings if it.waiting is not None]
    usage = [it.cache_usage for it in readings if it.cache_usage is not None]
    is_counted = len(readings) > 1 and first is not None and last is not None and last >= first
    return EngineFacts(
        readings=len(readings),
        preemptions=round(last - first) if is_counted and first is not None and last is not None else None,
        most_waiting=max(waiting, default=None),
        mean_waiting=fmean(waiting) if waiting else None,
        most_cache_usage=max(usage, default=None),
    )


async def watch_engine(session: aiohttp.ClientSession, url: str, seconds: float) -> EngineFacts | None:
    """Look once a second for so long, at the beginning and at the end too; None: the server is not vLLM."""
    begin = time.monotonic()
    readings: list[EngineReading] = []
    due = [*(begin + it * _INTERVAL_SECONDS for it in range(int(seconds / _INTERVAL_SECONDS) + 1)), begin + seconds]
    for moment in due:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        text = await exposition(session, url)
        reading = engine_reading(text) if text is not None else None
        if reading is not None:
            readings.append(reading)
        elif not readings:
            return None
    return engine_facts(readings)
