"""`python -m cotune_simulation.whisper`: the simulated Whisper server.

`ASR_WHISPER_SIZE` chooses the size. `COTUNE_SIMULATION_DEVICE_FALLBACK=1` makes it load on the CPU without a word
where the card is absent or full, as servers with `device = "cuda" if available else "cpu"` do; `always` plants that lie
wherever it runs.
"""

import argparse
import asyncio
import os
import sys

from cotune_simulation import announce
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient, NoCardError
from cotune_simulation.figures import MIB
from cotune_simulation.serving import serve
from cotune_simulation.startup_time import startup_scale
from cotune_simulation.termination import end_at_sigterm
from cotune_simulation.torch_memory import NO_CARD, TorchOutOfMemoryError, take
from cotune_simulation.whisper.figures import CPU_FIGURES_CARD, SIZES, SizeFigures, size_figures
from cotune_simulation.whisper.server import Api
from cotune_simulation.whisper.transcriber import Transcriber

SIZE_VARIABLE = "ASR_WHISPER_SIZE"
FALLBACK_VARIABLE = "COTUNE_SIMULATION_DEVICE_FALLBACK"

_LARGEST_TENSOR_BYTES = 102 * MIB
"""The model's memory is taken in pieces of at most this size, so that a full card shows torch's usual message."""


def main() -> int:
    """Serve until SIGTERM; returns 1 after a failed start."""
    announce("Whisper server")
    end_at_sigterm()
    parser = argparse.ArgumentParser(prog="cotune_simulation.whisper", description="a simulated Whisper server")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 9000))
    parser.add_argument("--size", choices=SIZES, default=os.environ.get(SIZE_VARIABLE) or "base")
    options = parser.parse_args()
    if options.size not in SIZES:
        parser.error(f"{SIZE_VARIABLE}: no Whisper {options.size}: choose from {', '.join(SIZES)}")
    return asyncio.run(_run(options.size, options.host, options.port))


async def _run(size: str, host: str, port: int) -> int:
    try:
        transcriber = await _loaded(size)
    except NoCardError as error:
        return _failed(f"{NO_CARD} (the simulation's reason: {error})")
    except TorchOutOfMemoryError as error:
        return _failed(str(error))
    except ValueError as error:
        return _failed(f"ValueError: {error}")
    print(f"Whisper {size} is ready on http://{host}:{port}", flush=True)
    await serve(Api(transcriber, size).application(), host, port)
    return 1


async def _loaded(size: str) -> Transcriber:
    on_cpu = Transcriber(size_figures(size, CPU_FIGURES_CARD), card=None)
    fallback = os.environ.get(FALLBACK_VARIABLE)
    if fallback == "always":
        return on_cpu
    try:
        return await _load_on_card(size)
    except (NoCardError, TorchOutOfMemoryError):
        if fallback != "1":
            raise
    return on_cpu


async def _load_on_card(size: str) -> Transcriber:
    card = await CardClient.connect(socket_path())
    figures = size_figures(size, card.product.product)
    await asyncio.sleep(figures.startup_seconds * startup_scale())
    try:
        for piece in _pieces(figures, card.product.context_bytes):
            await take(card, piece)
    except TorchOutOfMemoryError:
        await card.close()
        raise
    return Transcriber(figures, card)


def _failed(reason: str) -> int:
    print(reason, file=sys.stderr, flush=True)
    return 1


def _pieces(figures: SizeFigures, context_bytes: int) -> list[int]:
    weights = figures.resident_bytes - context_bytes
    whole, rest = divmod(weights, _LARGEST_TENSOR_BYTES)
    return [context_bytes, *[_LARGEST_TENSOR_BYTES] * whole, rest]


if __name__ == "__main__":
    sys.exit(main())
