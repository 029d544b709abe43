"""`python -m cotune_servers.stt`: loads the model, warms it up, then serves until SIGTERM."""

import asyncio
import signal
import sys
import time

from aiohttp import web

from cotune_servers.stt.server import Api
from cotune_servers.stt.settings import Settings, SettingsError, read_settings
from cotune_servers.stt.transcriber import DeviceError, Transcriber, load


def main() -> int:
    """Exit code 0 after SIGTERM, 1 after a start that failed."""
    try:
        settings = read_settings()
        began = time.monotonic()
        model = load(settings.checkpoint, settings.device)
    except (SettingsError, DeviceError) as error:
        print(f"stt: error: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"stt: {settings.size} on {settings.device} loaded in {time.monotonic() - began:.1f} s", flush=True)
    transcriber = Transcriber(model, settings.language, is_half=settings.device == "cuda", queue=settings.queue)
    asyncio.run(_serve(transcriber, settings))
    return 0


async def _serve(transcriber: Transcriber, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await transcriber.warm_up()
    runner = web.AppRunner(Api(transcriber, settings.size).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", settings.port).start()
    print(f"stt: ready on port {settings.port}", flush=True)
    await stop.wait()
    await runner.cleanup()  # Lets requests in work end first.
    transcriber.close()


if __name__ == "__main__":
    sys.exit(main())
