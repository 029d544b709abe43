"""`python -m cotune.measurement`: the probe's process, told by `COTUNE_PROBE` what to do."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web
from pydantic import ValidationError

from cotune.measurement.card import Card, CardError
from cotune.measurement.contract import CONFIGURATION_VARIABLE, DRAINED_PATH, HEALTH_PORT, ProbeConfiguration
from cotune.measurement.corpus import CorpusError
from cotune.measurement.inputs import Inputs, read_inputs, with_fetched
from cotune.measurement.probe import DrainedCard, Progress, run_probe

_TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    """Exit code 0: the last line is the result; 1: it could not be measured; 2: a bad configuration."""
    try:
        configuration = ProbeConfiguration.model_validate_json(os.environ.get(CONFIGURATION_VARIABLE, ""))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(it) for it in first["loc"]) or "the whole"
        print(f"probe: error: {CONFIGURATION_VARIABLE}: {where}: {first['msg']}", file=sys.stderr)
        return 2
    try:
        inputs = read_inputs(configuration)
    except ValueError as error:
        print(f"probe: error: {error}", file=sys.stderr)
        return 2
    port = int(os.environ.get("COTUNE_PROBE_PORT", HEALTH_PORT))
    try:
        return asyncio.run(_run(configuration, inputs, port))
    except (CardError, CorpusError) as error:
        print(f"probe: error: {error}", file=sys.stderr)
        return 1


async def _run(configuration: ProbeConfiguration, inputs: Inputs, port: int) -> int:
    task = asyncio.create_task(_probe(configuration, inputs, port))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        line = await task
    except asyncio.CancelledError:
        _say("terminated")
        os._exit(_TERMINATED)  # The look-up of a name that does not resolve cannot be cancelled: nobody waits for it.
    print(line, flush=True)
    return 0


async def _probe(configuration: ProbeConfiguration, inputs: Inputs, port: int) -> str:
    drained = asyncio.Event()
    async with _health(drained, port):
        # The card does not wait for what is fetched, or a slow web server would look like a card that is in use.
        complete, card = await asyncio.gather(with_fetched(inputs, configuration), _drained(configuration, drained))
        result = await run_probe(configuration, complete, card, _say)
    return result.model_dump_json(by_alias=True)


async def _drained(configuration: ProbeConfiguration, event: asyncio.Event) -> DrainedCard | None:
    """The card, once it was seen drained; None where there is none."""
    if not configuration.gpu:
        event.set()
        return None
    card = Card()
    progress = Progress(_say)
    progress("waiting for the card to be drained")
    reading = await card.drained(
        lambda it: progress(f"waiting for the card: {it.used_mib:.0f} MiB used, {it.processes} processes")
    )
    _say(f"the card is drained: {reading.used_mib:.0f} of {reading.total_mib:.0f} MiB used, no process")
    event.set()
    return DrainedCard(card, reading, card.listen())


@asynccontextmanager
async def _health(drained: asyncio.Event, port: int) -> AsyncGenerator[None]:
    """Serve the pod's readiness; once it was drained, the card is this trial's until the probe ends."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=200 if drained.is_set() else 503)

    application = web.Application()
    application.router.add_get(DRAINED_PATH, answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
