"""Samples from a Prometheus, over its HTTP API: one range query at a time, bounded in time and size."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import aiohttp

_LARGEST_ANSWER = 1 << 20
"""Bytes: two thousand samples of one series are a tenth of it."""


class PrometheusError(Exception):
    """Prometheus cannot be asked, does not understand the query, or has not one series for it; one line."""


class Prometheus:
    """One Prometheus, or what speaks like it."""

    def __init__(self, url: str, timeout_seconds: float = 10) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query_range"
        self._timeout = timeout_seconds

    async def samples(self, query: str, start: datetime, end: datetime, step: timedelta) -> Sequence[float]:
        """The values of an expression from `start` on, one each `step` up to `end`; where it has none, there is none.

        Raises:
            PrometheusError: there is no answer in time, an error, or more than one series.
        """
        form = {
            "query": query,
            "start": f"{start.timestamp():.3f}",
            "end": f"{end.timestamp():.3f}",
            "step": f"{step.total_seconds():g}",
            "timeout": f"{self._timeout:g}s",
        }
        try:
            status, text = await self._post(form)
        except TimeoutError as error:
            raise PrometheusError(f"no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise PrometheusError(f"no answer: {' '.join(str(error).split()) or type(error).__name__}") from error
        return _samples(status, text)

    async def _post(self, form: dict[str, str]) -> tuple[int, bytes]:
        """A connection of its own: a query takes place every few seconds, and no stale connection has to be told."""
        limit = aiohttp.ClientTimeout(total=self._timeout)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            # Not where an answer leads: the operator asks the address that it was given, and no other.
            session.post(self._url, data=form, allow_redirects=False) as answer,
        ):
            text = b""
            async for chunk in answer.content.iter_chunked(1 << 16):
                text += chunk
                if len(text) > _LARGEST_ANSWER:
                    raise PrometheusError("the answer is too large: the query gives more than one series")
            return answer.status, text


def _samples(status: int, text: bytes) -> Sequence[float]:
    try:
        answer = cast("dict[str, Any]", json.loads(text))
        if answer["status"] != "success":
            raise PrometheusError(f"{answer.get('errorType', status)}: {answer.get('error', '')}")
        series = cast("list[dict[str, Any]]", answer["data"]["result"])
        if len(series) > 1:
            raise PrometheusError(f"the query gives {len(series)} series, not one")
        return [float(value) for it in series for _, value in it["values"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PrometheusError(f"HTTP status {status}, and no answer of a Prometheus") from error
