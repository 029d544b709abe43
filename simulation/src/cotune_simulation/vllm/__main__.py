"""`python -m cotune_simulation.vllm serve MODEL ...`: the simulated vLLM server."""

import asyncio
import sys

from cotune_simulation import announce
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient, NoCardError
from cotune_simulation.serving import serve
from cotune_simulation.startup_time import startup_scale
from cotune_simulation.termination import end_at_sigterm
from cotune_simulation.torch_memory import NO_CARD, TorchOutOfMemoryError
from cotune_simulation.vllm.answers import damage
from cotune_simulation.vllm.arguments import ServeArguments, parse_arguments
from cotune_simulation.vllm.engine import Engine
from cotune_simulation.vllm.figures import model_figures
from cotune_simulation.vllm.log import Log
from cotune_simulation.vllm.metrics import EngineMetrics
from cotune_simulation.vllm.server import Api
from cotune_simulation.vllm.startup import start_engine


def main() -> int:
    """Serve until SIGTERM; returns 1 after a failed start, as vLLM does."""
    announce("vLLM server")
    end_at_sigterm()
    return asyncio.run(_run(parse_arguments(sys.argv[1:])))


async def _run(arguments: ServeArguments) -> int:
    log = Log("APIServer")
    try:
        card = await CardClient.connect(socket_path())
        figures = model_figures(arguments.model, card.product.product)
    except NoCardError as error:
        return _failed(f"{NO_CARD} (the simulation's reason: {error})")
    except ValueError as error:
        return _failed(f"ValueError: {error}")
    log.info("api_server.py:1839", f"vLLM API server version {figures.version}")
    log.info("__init__.py:1815", f"Resolved architecture: {figures.architecture}")
    scale = startup_scale()
    try:
        started = await start_engine(card, arguments, figures, lambda seconds: asyncio.sleep(seconds * scale))
    except TorchOutOfMemoryError as error:
        return _failed(str(error))
    except (ValueError, AssertionError) as error:
        return _failed(f"{type(error).__name__}: {error}")
    metrics = EngineMetrics(arguments.served_model_names[0], started, arguments.gpu_memory_utilization)
    engine = Engine(card, figures, started, metrics)
    harm = damage(arguments.kv_cache_dtype, arguments.quantization)
    api = Api(engine, metrics, arguments.served_model_names, started.sizes.max_model_len, harm)
    log.info("api_server.py:1912", f"Starting vLLM API server 0 on http://{arguments.host}:{arguments.port}")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(engine.run())
            tasks.create_task(serve(api.application(), arguments.host, arguments.port))
            log.plain("INFO:     Application startup complete.")
    except* TorchOutOfMemoryError as errors:
        Log("EngineCore_DP0").error("core.py:710", str(errors.exceptions[0]))
        log.plain("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)")
    except* NoCardError as errors:
        log.plain(f"torch.AcceleratorError: CUDA error: unspecified launch failure ({errors.exceptions[0]})")
    return 1


def _failed(cause: str) -> int:
    engine = Log("EngineCore_DP0")
    engine.error("core.py:708", "EngineCore failed to start.")
    engine.error("core.py:708", cause)
    Log("APIServer").plain(
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
