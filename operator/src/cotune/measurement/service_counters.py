"""What services count of themselves: how often they ran out of memory.

A service that catches the error and goes on may say so only there. By convention such a counter's name ends in
`out_of_memory_total` or `oom_total`. vLLM's preemptions are something else: a full cache, not a failed allocation.
"""

import aiohttp

from cotune.measurement.contract import ServiceFacts
from cotune.measurement.exposition import exposition, samples, wanted

_OUT_OF_MEMORY = wanted(r"(?:[a-zA-Z_:][a-zA-Z0-9_:]*_)?(?:out_of_memory|oom)(?:_errors|_events)?_total")


def out_of_memory(text: str) -> int | None:
    """The sum of all such counters in a server's `/metrics`; None: it has none."""
    found = samples(text, _OUT_OF_MEMORY)
    return round(sum(value for values in found.values() for value in values)) if found else None


async def service_facts(session: aiohttp.ClientSession, component: str, url: str) -> ServiceFacts:
    """Of one component, since its start."""
    text = await exposition(session, url)
    return ServiceFacts(component=component, out_of_memory=out_of_memory(text) if text is not None else None)
