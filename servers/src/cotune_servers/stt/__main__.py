"""`python -m cotune_servers.stt`: loads the model, warms it up, then serves until SIGTERM."""

import asyncio
import signal
import sys
import time

from aiohttp import web

from cotune_servers.stt.hybrid import HybridModel
from cotune_servers.stt.server import Api
from cotune_servers.stt.settings import Settings, SettingsError, read_settings
from cotune_servers.stt.transcriber import DeviceError, Transcriber, load
from cotune_servers.stt.vosk_recogniser import VoskError, VoskRecogniser


def main() -> int:
    """Exit code 0 after SIGTERM, 1 after a start that failed."""
    try:
        settings = read_settings()
        began = time.monotonic()
        recogniser = VoskRecogniser(settings.vosk_model) if settings.mode == "hybrid" else None
        model = load(settings.checkpoint, settings.device)
        if recogniser is not None:
            model = HybridModel(recogniser, model, settings.correct_below)
    except (SettingsError, DeviceError, VoskError) as error:
        print(f"stt: error: {error}", file=sys.stderr, flush=True)
        return 1
    beside = f" behind VOSK's {settings.vosk_model}" if settings.mode == "hybrid" else ""
    print(f"stt: {settings.size} on {settings.device}{beside} loaded in {time.monotonic() - began:.1f} s", flush=True)
    transcriber = Transcriber(model, settings.language, is_half=settings.device == "cuda", queue=settings.queue)
    asyncio.run(serve(transcriber, settings))
    return 0


async def serve(transcriber: Transcriber, settings: Settings) -> None:
    """Listen once the model is warm, until SIGTERM; then answer what is in work or waits, and nothing new."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    warming = asyncio.create_task(transcriber.warm_up())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({warming, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        transcriber.close()
        return
    await warming
    runner = web.AppRunner(Api(transcriber, settings.size).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", settings.port).start()
    print(f"stt: ready on port {settings.port}", flush=True)
    await stopping
    print("stt: answering what is left, then ending", flush=True)
    await runner.cleanup()  # Lets requests in work end first.
    transcriber.close()


if __name__ == "__main__":
    sys.exit(main())
