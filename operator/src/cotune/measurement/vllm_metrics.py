"""What vLLM says about its KV cache in `/metrics`.

Its start-up log is the better source (blocks times block size is wrong for hybrid models); the operator, which can read
the log, prefers that.
"""

from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cotune.measurement.clients import AnswerError, served_model

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_CACHE = "vllm:cache_config_info"


@dataclass(frozen=True)
class CacheFacts:
    """How much context the server can keep."""

    tokens: int
    concurrency: float | None
    """Requests of the model's maximum length; None when the server does not say that length."""


async def cache_facts(session: aiohttp.ClientSession, url: str) -> CacheFacts | None:
    """The KV cache of a vLLM server; None for a server that is not vLLM, or does not say it."""
    try:
        async with session.get(f"{url}/metrics", timeout=_TIMEOUT) as response:
            if response.status != 200:
                return None
            tokens = _tokens(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    if tokens is None:
        return None
    try:
        longest = (await served_model(session, url)).max_length
    except (aiohttp.ClientError, AnswerError, TimeoutError, ValueError):
        longest = None
    return CacheFacts(tokens, tokens / longest if longest else None)


def _tokens(exposition: str) -> int | None:
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == _CACHE:
                try:
                    return int(sample.labels["num_gpu_blocks"]) * int(sample.labels["block_size"])
                except (KeyError, ValueError):
                    return None
    return None
