"""Start a real vLLM again and again on a real card, and record what each start took, left and said.

Usage, on a machine with one NVIDIA H100 or H200, from the repository's root:

    PYTHONPATH=tests python3 -m gpu.record_starts tests/gpu/cases/h100-shapes.json --bundle build/gpu-bundle --out DIR

DIR/starts.json has the schema of tests/data/planner (tests/gpu/README.md has the keys that are new); DIR/logs.tar.xz
has every server's log. Both are written anew after each start, so that an interrupted run keeps what it had.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.install import install
from gpu.server import COLD, WARM, Launcher, Server
from gpu.vllm_log import StartLog, cache_config, read_log

_MIB = 1 << 20
_PORT = 8000
_STREAMS, _LOAD_SECONDS = 8, 5.0
_RELEASE_SECONDS = 60.0
_RELEASED_MIB = 32
"""So near to what was held before, a server's memory counts as given back."""
_DEFAULT_SECONDS = 45.0
"""What a start is reckoned to take, all told, where the case does not say."""
_DEFAULT_LIMIT_SECONDS = 150.0
_REFUSALS = (
    "No available memory for the cache blocks",
    "To serve at least one request",
    "Free memory on device",
    "Error in memory profiling",
    "CUDA out of memory",
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One start, as a file of cases has it."""

    name: str
    model: str
    gpu_memory_utilization: float
    max_model_len: int
    enforce_eager: bool
    max_num_batched_tokens: int | None
    max_num_seqs: int | None
    neighbour_gib: float | None
    """Held by another process from before the start until after its end."""
    arguments: tuple[str, ...]
    """Further words of the command line."""
    method: str | None
    """`cold` or `warm`; None: whatever the run was told."""
    seconds: float
    """How long it is reckoned to take."""

    def command(self, model_folder: Path) -> "list[str]":
        """The words behind `vllm`."""
        words = ["serve", str(model_folder), "--served-model-name", "llm", "--load-format", "dummy"]
        words += ["--host", "127.0.0.1", "--port", str(_PORT)]
        words += ["--gpu-memory-utilization", str(self.gpu_memory_utilization)]
        words += ["--max-model-len", str(self.max_model_len)]
        if self.enforce_eager:
            words.append("--enforce-eager")
        if self.max_num_batched_tokens is not None:
            words += ["--max-num-batched-tokens", str(self.max_num_batched_tokens)]
        if self.max_num_seqs is not None:
            words += ["--max-num-seqs", str(self.max_num_seqs)]
        return [*words, *self.arguments]


def read_cases(path: Path) -> "tuple[dict[str, Json], list[Case]]":
    """The models' configurations by name, and the starts in their order.

    Raises:
        KeyError, TypeError: a start lacks a field, has an unknown one, or names an unknown model.
    """
    found = json.loads(path.read_text())
    models: dict[str, Json] = found["models"]
    cases = [_case(**it) for it in found["starts"]]
    for it in cases:
        models[it.model]
    return models, cases


def _case(
    *,
    name: str,
    model: str,
    gpuMemoryUtilization: float,
    maxModelLen: int,
    enforceEager: bool,
    maxNumBatchedTokens: int | None = None,
    maxNumSeqs: int | None = None,
    neighbourGiB: float | None = None,
    arguments: Iterable[str] = (),
    startMethod: str | None = None,
    estimatedSeconds: float = _DEFAULT_SECONDS,
) -> Case:
    return Case(
        name,
        model,
        gpuMemoryUtilization,
        maxModelLen,
        enforceEager,
        maxNumBatchedTokens,
        maxNumSeqs,
        neighbourGiB,
        tuple(arguments),
        startMethod,
        estimatedSeconds,
    )


def choose(cases: Iterable[Case], only: "set[str]", done: "set[str]") -> "list[Case]":
    """The cases to run: those named (all when none is), without those that are done."""
    return [it for it in cases if (not only or it.name in only) and it.name not in done]


class Card:
    """NVML's view of the one card."""

    def __init__(self) -> None:
        self._nvml: Any = importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        self._handle = self._nvml.nvmlDeviceGetHandleByIndex(0)
        self.driver = str(self._nvml.nvmlSystemGetDriverVersion())
        self.total_mib = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total) // _MIB

    def used_mib(self) -> int:
        """What all processes hold, and the driver."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) // _MIB


class Neighbour:
    """Another process that holds memory on the card."""

    def __init__(self, gib: float, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpu.holder", str(gib)],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"no process could hold {gib} GiB: it ended with {self._process.wait()}")
        self.seen: Json = json.loads(line)

    def end(self) -> None:
        """Give the memory back."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Recorder:
    """Runs cases and keeps the record on disk whole after each."""

    def __init__(
        self, card: Card, launcher: Launcher, environment: Mapping[str, str], folders: "dict[str, Path]"
    ) -> None:
        self._card = card
        self._launcher = launcher
        self._environment = environment
        self._folders = folders

    def record(self, case: Case, method: str) -> "tuple[Json, Path]":
        """One start from an empty card to an empty card; its record, and the server's log."""
        idle = self._card.used_mib()
        neighbour = Neighbour(case.neighbour_gib, self._environment) if case.neighbour_gib else None
        try:
            before = self._card.used_mib()
            server = self._launcher.start(case.command(self._folders[case.model]), method)
            record, metrics = self._run(server, before)
        finally:
            if neighbour:
                neighbour.end()
        record["releasedSeconds"] = self._wait_for(idle)
        log = server.log.read_text(errors="replace")
        return start_record(case, read_log(log), record, metrics, method, self._card.total_mib), server.log

    def _run(self, server: Server, before: int) -> "tuple[Json, str]":
        begin = time.monotonic()
        peak = before
        metrics = ""

        def look() -> None:
            nonlocal peak
            peak = max(peak, self._card.used_mib())

        record: Json = {"started": False, "exitCode": None, "gpuUsedMiBBefore": before}
        try:
            record["started"] = server.wait_until_healthy(_PORT, _DEFAULT_LIMIT_SECONDS, look)
            record["startupSeconds"] = round(time.monotonic() - begin, 1)
            if record["started"]:
                record["gpuUsedMiBAfter"] = self._card.used_mib()
                metrics = server.get(_PORT, "/metrics")
                load = server.load(_PORT, _STREAMS, _LOAD_SECONDS)
                record["gpuUsedMiBAfterLoad"] = self._card.used_mib()
                record["load"] = {
                    "streams": _STREAMS,
                    "seconds": round(load.seconds, 2),
                    "requests": load.requests,
                    "tokensPerSecond": round(load.tokens_per_second, 1),
                    "errors": load.errors,
                }
            else:
                record["exitCode"] = server.process.wait()
                # A server that ended by itself may leave its engine behind for a moment.
                server.end()
                record["gpuUsedMiBAfter"] = self._settled(before)
        except (TimeoutError, OSError) as error:
            record["startupSeconds"] = round(time.monotonic() - begin, 1)
            record["recorderError"] = f"{type(error).__name__}: {error}"
            record["gpuUsedMiBAfter"] = self._card.used_mib()
        finally:
            server.end()
        record["gpuUsedMiBPeakWhileStarting"] = peak
        return record, metrics

    def _settled(self, at: int) -> int:
        self._wait_for(at)
        return self._card.used_mib()

    def _wait_for(self, mib: int) -> float | None:
        """Seconds until no more than so much is held; None when that takes more than a minute."""
        begin = time.monotonic()
        while time.monotonic() - begin < _RELEASE_SECONDS:
            if self._card.used_mib() <= mib + _RELEASED_MIB:
                return round(time.monotonic() - begin, 2)
            time.sleep(0.1)
        return None


def start_record(
    case: Case, log: StartLog, measured: Mapping[str, Any], metrics: str, method: str, total_mib: int
) -> Json:
    """One member of `starts`: the keys of tests/data/planner, then those that are new."""
    cache = cache_config(metrics)
    has_started: bool = measured["started"]
    error = None if has_started else log.error or measured.get("recorderError")
    record: Json = {
        "name": case.name,
        "model": case.model,
        "gpuMemoryUtilization": case.gpu_memory_utilization,
        "maxModelLen": case.max_model_len,
        "enforceEager": case.enforce_eager,
        "started": has_started,
        "exitCode": measured["exitCode"],
        "startupSeconds": measured["startupSeconds"],
        "gpuUsedMiBBefore": measured["gpuUsedMiBBefore"],
        "gpuUsedMiBAfter": measured["gpuUsedMiBAfter"],
        "gpuFreeMiBAfter": total_mib - measured["gpuUsedMiBAfter"],
        "weightsGiB": log.weights_gib,
        "activationPeakGiB": log.activation_peak_gib,
        "nonTorchGiB": log.non_torch_gib,
        "cudaGraphGiB": log.cuda_graph_gib,
        "availableKvGiB": log.available_kv_gib,
        "kvTokens": log.kv_tokens,
        "concurrencyAtMaxLen": log.concurrency_at_max_len,
        "error": error,
        "startMethod": method,
        "cudaGraphEstimateGiB": log.cuda_graph_estimate_gib,
        "modelRunner": log.model_runner,
        "attentionBackend": log.attention_backend,
        "freeAtStartGiB": log.free_at_start_gib,
        "engineSeconds": log.engine_seconds,
        "compileCache": log.compile_cache,
        "gpuBlocks": int(cache["num_gpu_blocks"]) if "num_gpu_blocks" in cache else None,
        "blockSize": int(cache["block_size"]) if "block_size" in cache else None,
        "releasedSeconds": measured.get("releasedSeconds"),
        "gpuUsedMiBPeakWhileStarting": measured["gpuUsedMiBPeakWhileStarting"],
    }
    if case.max_num_batched_tokens is not None:
        record["maxNumBatchedTokens"] = case.max_num_batched_tokens
    if case.max_num_seqs is not None:
        record["maxNumSeqs"] = case.max_num_seqs
    if case.arguments:
        record["arguments"] = list(case.arguments)
    if case.neighbour_gib:
        record["note"] = f"another process held {case.neighbour_gib:g} GiB"
    return record | {key: measured[key] for key in ("gpuUsedMiBAfterLoad", "load", "recorderError") if key in measured}


def is_understood(record: Mapping[str, Any]) -> bool:
    """Whether it started, or was refused in words that vLLM is known for."""
    return bool(record["started"]) or any(it in (record["error"] or "") for it in _REFUSALS)


def write_models(models: Mapping[str, Json], tokenizer: Path, folder: Path) -> "dict[str, Path]":
    """A folder a model: its configuration and the one tokenizer; weights are dummies."""
    folders: dict[str, Path] = {}
    for name, config in models.items():
        folders[name] = folder / name
        folders[name].mkdir(parents=True, exist_ok=True)
        (folders[name] / "config.json").write_text(json.dumps(config, indent=1))
        for file in tokenizer.iterdir():
            (folders[name] / file.name).write_bytes(file.read_bytes())
    return folders


def server_environment(scratch: Path, site: Path | None, logging: str = "DEBUG") -> "dict[str, str]":
    """Offline, without telemetry, caches in `scratch`; debug messages have the profile's figures, and slow it."""
    paths = [str(site)] if site else []
    paths += [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(scratch / "huggingface"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_LOGGING_LEVEL": logging,
    }


def write_results(out: Path, meta: Json, starts: "list[Json]", logs: Mapping[str, Path]) -> None:
    """Replace both files; a reader never sees half of one."""
    (out / "starts.json.part").write_text(json.dumps({"meta": meta, "starts": starts}, indent=1) + "\n")
    (out / "starts.json.part").replace(out / "starts.json")
    with tarfile.open(out / "logs.tar.xz.part", "w:xz", preset=1) as archive:
        for name, path in logs.items():
            archive.add(path, f"{name}.log")
    (out / "logs.tar.xz.part").replace(out / "logs.tar.xz")


def describe(card: Card, environment: Mapping[str, str], wheels: "list[str]", idle_mib: int) -> Json:
    """The card as torch and NVML count it, and the versions. A process with nothing but a context is measured."""
    probe = Neighbour(0, environment)
    context = card.used_mib() - idle_mib
    probe.end()
    vllm = next((it.split("-")[1] for it in wheels if it.startswith("vllm-")), "unknown")
    return {
        "gpu": probe.seen["gpu"],
        "gpuTotalGiB": round(probe.seen["totalBytes"] / 2**30, 2),
        "gpuTotalBytes": probe.seen["totalBytes"],
        "gpuTotalMiBByNvml": card.total_mib,
        "gpuIdleMiB": idle_mib,
        "contextMiB": context,
        "driver": card.driver,
        "vllm": vllm,
        "torch": probe.seen["torch"],
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def main(arguments: "list[str] | None" = None) -> int:
    """Record until the cases or the seconds are used up."""
    begin = time.monotonic()
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    scratch: Path = options.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    models, cases = read_cases(options.cases)
    earlier: Json = json.loads(options.skip_done.read_text()) if options.skip_done else {"starts": []}
    starts: list[Json] = list(earlier["starts"])
    chosen = choose(cases, set(options.only), {it["name"] for it in starts})

    def say(words: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {words}", flush=True)

    wheels = install([options.bundle], scratch) if options.bundle else []
    say(f"installed {len(wheels)} wheels; {len(chosen)} starts to record")
    environment = server_environment(scratch, scratch / "site" if options.bundle else None)
    launcher = Launcher(environment, scratch, options.ahead if options.start_method == WARM else 0)
    launcher.prepare()
    architectures = sorted({name for it in chosen for name in models[it.model]["architectures"]})
    subprocess.run([sys.executable, "-m", "gpu.inspect_models", *architectures], env=environment, check=True)
    say(f"inspected {', '.join(architectures)}")
    card = Card()
    meta = describe(card, environment, wheels, card.used_mib())
    meta |= {"models": earlier.get("meta", {}).get("models", {}) | {it.model: models[it.model] for it in chosen}}
    meta["note"] = "one start each, random weights (load format dummy), 8 streams of 256 + 128 tokens for 5 seconds"
    meta["source"] = f"one {meta['gpu']}, driver {meta['driver']}, vLLM {meta['vllm']}; read from the servers' own logs"
    say(f"{meta['gpu']}, {meta['gpuTotalGiB']} GiB, {meta['gpuIdleMiB']} MiB used when idle")
    recorder = Recorder(card, launcher, environment, write_models(models, scratch / "tokenizer", scratch / "models"))
    try:
        _record_all(chosen, recorder, options, starts, lambda: time.monotonic() - begin, meta, say)
    finally:
        launcher.close()
    return 0


def _record_all(
    chosen: "list[Case]",
    recorder: Recorder,
    options: argparse.Namespace,
    starts: "list[Json]",
    elapsed: Callable[[], float],
    meta: Json,
    say: Callable[[str], None],
) -> None:
    logs: dict[str, Path] = {}
    method: str = options.start_method
    for case in chosen:
        for attempt in (case.method or method, COLD):
            if elapsed() + case.seconds > options.limit_seconds:
                say(f"{case.name}: left out, {case.seconds:.0f} s do not fit any more")
                break
            try:
                record, log = recorder.record(case, attempt)
            except (RuntimeError, OSError) as error:
                say(f"{case.name}: {attempt} start failed: {error}")
            else:
                logs[f"{case.name}-{attempt}"] = log
                say(_line(record))
                if is_understood(record) or attempt == COLD:
                    starts.append(record)
                    write_results(options.out, meta, starts, logs)
                    break
                write_results(options.out, meta, starts, logs)
            # Whatever came of it, it may be of the recorder's making: once more as a container would start it.
            method = COLD
    write_results(options.out, meta, starts, logs)


def _line(record: Json) -> str:
    if not record["started"]:
        return f"{record['name']}: refused after {record['startupSeconds']} s: {str(record['error'])[:150]}"
    parts = ("weightsGiB", "activationPeakGiB", "nonTorchGiB", "cudaGraphGiB", "availableKvGiB", "gpuUsedMiBAfter")
    figures = ", ".join(f"{it} {record[it]}" for it in parts)
    return f"{record['name']}: healthy after {record['startupSeconds']} s: {figures}, load {record.get('load')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu.record_starts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--bundle", type=Path, help="the folder of `make gpu-bundle`; without it vLLM is there already")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/cotune-gpu"))
    parser.add_argument("--limit-seconds", type=float, default=540, help="begin no start that would end after this")
    parser.add_argument("--only", action="append", default=[], help="a start's name; can be repeated")
    parser.add_argument("--skip-done", type=Path, help="an earlier starts.json: its starts are kept and not repeated")
    parser.add_argument("--start-method", choices=(WARM, COLD), default=WARM)
    parser.add_argument("--ahead", type=int, default=3, help="processes that import vLLM ahead of their turn")
    return parser


if __name__ == "__main__":
    sys.exit(main())
