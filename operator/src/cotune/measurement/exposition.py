"""A few samples of Prometheus's text format, found without reading all of it.

A server's `/metrics` may have thousands of lines. Reading them all takes tens of milliseconds, in which the probe would
send nothing; within the window only the lines that are wanted are looked at.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def exposition(session: aiohttp.ClientSession, url: str) -> str | None:
    """What a server has at `/metrics`; None: nothing, or no answer."""
    try:
        async with session.get(f"{url}/metrics", timeout=_TIMEOUT) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return None


def wanted(names: str) -> re.Pattern[str]:
    """What `samples` looks for.

    Args:
        names: a regular expression for whole names, without groups that are captured.
    """
    return re.compile(rf"^({names})(?:\{{[^\n]*\}})? +([^\s]+)", re.MULTILINE)


def samples(text: str, pattern: re.Pattern[str]) -> Mapping[str, list[float]]:
    """The values of each name that is there, one for each set of labels."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for name, value in pattern.findall(text):
        try:
            found[name].append(float(value))
        except ValueError:
            continue
    return found
