"""`make bench-load`: the probe and aiperf against one and the same deterministic server, each on one core."""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cotune.api.workload import Arrivals, ArrivalType, Protocol
from cotune.measurement.contract import CONFIGURATION_VARIABLE, ProbeConfiguration, ProbeResult, ProbeStream

from cotune_bench import load_server
from cotune_bench.table import print_table, write_result

_PINNED = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"
_WARM_UP_SECONDS = 2
_TICK = os.sysconf("SC_CLK_TCK")
_TOLERANCE = 0.05

# A tokenizer of three words: aiperf wants one, and counts tokens by the server's own `usage`.
_TOKENIZER: dict[str, object] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "word": 1, "[EOS]": 2}, "unk_token": "[UNK]"},
}
_TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "eos_token": "[EOS]"}


@dataclass(frozen=True)
class Load:
    """Constant arrivals of streamed completions."""

    rate: int
    seconds: int
    tokens: int

    @property
    def requests(self) -> int:
        """In the window."""
        return self.rate * self.seconds


AGREEMENT = Load(rate=50, seconds=20, tokens=32)
"""So light that neither tool is near its limit: they must see the same."""
SCHEDULE = Load(rate=1000, seconds=10, tokens=4)


@dataclass(frozen=True)
class Outcome:
    """What one tool measured in one run, and what the server saw of it; times in milliseconds."""

    requests: int
    """Good answers."""
    errors: int
    ttft_p50: float
    itl_p50: float
    requests_per_second: float
    tokens_per_second: float
    schedule_error_p99: float | None
    """As the tool itself says; aiperf says when it sent, not when it should have."""
    seen_error_p50: float
    """How late requests reached the server, against a grid through the earliest: the same measure for both."""
    seen_error_p99: float
    cpu_per_request: float
    """Processor time of all of the tool's processes, in the middle of the run."""
    processor_wait_seconds: float | None
    """For which the probe was ready to run and had no core; aiperf does not say."""
    others_share: float
    """Of the tool's core, taken by whatever else runs on the machine: beyond a few hundredths the schedule error is
    that of the machine and not of the tool."""


class _Server:
    """The deterministic server on a core of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
            return json.loads(response.read())


@contextmanager
def _served(core: int) -> Generator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = cast("int", listening.getsockname()[1])
    command = [sys.executable, "-c", _PINNED, str(core), sys.executable, "-m", load_server.__name__, str(port)]
    process = subprocess.Popen(command)
    server = _Server(port)
    try:
        for _ in range(200):
            try:
                server.get("/count")
                break
            except OSError:
                time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


class _Processor(threading.Thread):
    """Samples what a tree of processes takes, and how many requests have come meanwhile."""

    def __init__(self, root: int, server: _Server) -> None:
        super().__init__(daemon=True)
        self._root, self._server = root, server
        self._over = threading.Event()
        self._samples: list[tuple[int, float]] = []

    def run(self) -> None:
        """Two samples a second, until it is stopped."""
        while not self._over.wait(0.5):
            self._samples.append((int(self._server.get("/count")), _cpu_seconds(self._root)))

    def stop(self) -> None:
        """No more samples."""
        self._over.set()
        self.join()

    def per_request(self, first: int, last: int) -> float:
        """Milliseconds a request, between the samples next to these counts: start and end of the tool are left out."""
        inside = [it for it in self._samples if first <= it[0] <= last]
        if len(inside) < 2 or inside[-1][0] == inside[0][0]:
            raise RuntimeError("the run was too short to tell its processor time")
        (begin, used), (end, more) = inside[0], inside[-1]
        return (more - used) / (end - begin) * 1000


def _cpu_seconds(root: int) -> float:
    """User and system time of a process and all that it has started."""
    times: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            times[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK)
    tree, total = {root}, 0.0
    while True:
        children = {it for it, (parent, _) in times.items() if parent in tree} - tree
        if not children:
            break
        tree |= children
    for process in tree:
        total += times.get(process, (0, 0.0))[1]
    return total


@dataclass(frozen=True)
class _Run:
    """What one run of a tool left behind."""

    output: str
    cpu_per_request: float
    """Milliseconds."""
    others_share: float
    seen: "list[float]"
    """When the server saw the window's requests, in seconds of its clock."""


def _busy_seconds(core: int) -> float:
    """For which a core has worked since the machine started; time stolen by its host counts."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(it.split()[1:9] for it in lines if it.startswith(f"cpu{core} "))
    user, nice, system, _idle, _waiting, *rest = (int(it) for it in fields)
    return (user + nice + system + sum(rest)) / _TICK


def _children_seconds() -> float:
    """Processor time of the processes that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _run(
    command: Sequence[str], core: int, server: _Server, load: Load, environment: dict[str, str], folder: Path
) -> _Run:
    server.get("/arrivals")
    begin, busy, own = time.monotonic(), _busy_seconds(core), _children_seconds()
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _PINNED, str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | environment,
        )
        processor = _Processor(process.pid, server)
        processor.start()
        try:
            code = process.wait(600)
        finally:
            process.kill()
            processor.stop()
        took = time.monotonic() - begin
        others = (_busy_seconds(core) - busy - (_children_seconds() - own)) / took
        output.seek(0)
        text = output.read()
    if code != 0:
        raise RuntimeError(f"{command[0]} ended with {code}: {text[-2000:]}")
    seen = cast("list[float]", server.get("/arrivals"))
    warm_up = len(seen) - load.requests
    cpu = processor.per_request(warm_up + load.requests // 10, warm_up + load.requests * 9 // 10)
    return _Run(text, cpu, max(others, 0.0), seen[warm_up:])


def _lateness(seen: Sequence[float], rate: int) -> list[float]:
    """Milliseconds by which each request came after its place in a grid through the earliest of them, ascending."""
    offsets = [moment - number / rate for number, moment in enumerate(sorted(seen))]
    return sorted((it - min(offsets)) * 1000 for it in offsets)


def _percentile(ascending: Sequence[float], percent: int) -> float:
    return ascending[min(len(ascending) * percent // 100, len(ascending) - 1)]


def _probe(load: Load, server: _Server, core: int, folder: Path) -> Outcome:
    configuration = ProbeConfiguration(
        gpu=False,
        seed=7,
        warmup_seconds=_WARM_UP_SECONDS,
        duration_seconds=load.seconds,
        streams=(
            ProbeStream(
                component="llm",
                protocol=Protocol.OPENAI_COMPLETIONS,
                host="127.0.0.1",
                port=server.port,
                arrivals=Arrivals(type=ArrivalType.CONSTANT, rate_per_second=str(load.rate)),
                prompt_tokens=8,
                output_tokens=load.tokens,
            ),
        ),
    )
    environment = {
        CONFIGURATION_VARIABLE: configuration.model_dump_json(by_alias=True, exclude_none=True),
        "COTUNE_PROBE_PORT": "0",
        "PYTHONPATH": str(Path(__file__).parents[3] / "operator" / "src"),
    }
    command = [sys.executable, "-m", "cotune.measurement"]
    run = _run(command, core, server, load, environment, folder)
    result = ProbeResult.model_validate_json(run.output.splitlines()[-1])
    found = {it.metric: float(it.value) for it in result.measurements}
    (stream,) = result.streams
    late = _lateness(run.seen, load.rate)
    errors = sum(it.count for it in stream.errors)
    return Outcome(
        requests=stream.requests - errors,
        errors=errors,
        ttft_p50=found["llm.ttft.p50"],
        itl_p50=found["llm.itl.p50"],
        requests_per_second=found["llm.throughput"],
        tokens_per_second=found["llm.tokensPerSecond"],
        schedule_error_p99=stream.schedule_error.p99 if stream.schedule_error is not None else None,
        seen_error_p50=_percentile(late, 50),
        seen_error_p99=_percentile(late, 99),
        cpu_per_request=run.cpu_per_request,
        processor_wait_seconds=result.processor_wait_seconds,
        others_share=run.others_share,
    )


def _aiperf(program: Path, load: Load, server: _Server, core: int, folder: Path) -> Outcome:
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG))
    prompts = "".join(json.dumps({"text": f"word {number} of eight in this prompt"}) + "\n" for number in range(100))
    (folder / "prompts.jsonl").write_text(prompts)
    command = [
        *(str(program), "profile", "--model", "llm", "--url", f"http://127.0.0.1:{server.port}"),
        *("--endpoint-type", "completions", "--streaming", "--use-server-token-count", "--tokenizer", "tokenizer"),
        *("--input-file", "prompts.jsonl", "--custom-dataset-type", "single_turn"),
        *("--extra-inputs", f"max_tokens:{load.tokens}", "--arrival-pattern", "constant"),
        *("--request-rate", str(load.rate), "--request-count", str(load.requests)),
        *("--warmup-request-count", str(load.rate * _WARM_UP_SECONDS)),
        *("--artifact-dir", "result", "--ui", "none"),
    ]
    run = _run(command, core, server, load, {}, folder)
    lines = (folder / "result" / "profile_export.jsonl").read_text().splitlines()
    records = [cast("dict[str, Any]", json.loads(it)) for it in lines]
    good = [
        it
        for it in records
        if it["metadata"]["benchmark_phase"] == "profiling" and "inter_token_latency" in it["metrics"]
    ]
    begins = [it["metadata"]["request_start_ns"] for it in good]
    ends = [it["metadata"]["request_end_ns"] for it in good]
    seconds = (max(ends) - min(begins)) / 1e9
    late = _lateness(run.seen, load.rate)
    return Outcome(
        requests=len(good),
        errors=load.requests - len(good),
        ttft_p50=statistics.median(it["metrics"]["time_to_first_token"]["value"] for it in good),
        itl_p50=statistics.median(it["metrics"]["inter_token_latency"]["value"] for it in good),
        requests_per_second=len(good) / seconds,
        tokens_per_second=sum(it["metrics"]["usage_completion_tokens"]["value"] for it in good) / seconds,
        schedule_error_p99=None,
        seen_error_p50=_percentile(late, 50),
        seen_error_p99=_percentile(late, 99),
        cpu_per_request=run.cpu_per_request,
        processor_wait_seconds=None,
        others_share=run.others_share,
    )


def _median(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Of every figure on its own."""
    rows = [cast("dict[str, float | None]", asdict(it)) for it in outcomes]
    medians: dict[str, float | None] = {}
    for name in rows[0]:
        known = [value for row in rows if (value := row[name]) is not None]
        medians[name] = statistics.median(known) if known else None
    return medians


_LABELS = {
    "requests": "good answers",
    "errors": "errors",
    "ttft_p50": "TTFT p50, ms",
    "itl_p50": "inter-token p50, ms",
    "requests_per_second": "requests/s",
    "tokens_per_second": "tokens/s",
    "schedule_error_p99": "schedule error p99 by its own account, ms",
    "seen_error_p50": "schedule error p50 as the server sees it, ms",
    "seen_error_p99": "schedule error p99 as the server sees it, ms",
    "cpu_per_request": "processor time a request, ms",
    "processor_wait_seconds": "ready to run and without its core, s",
    "others_share": "share of its core taken by other work",
}
_COMPARED = ("ttft_p50", "itl_p50", "requests_per_second", "tokens_per_second")


def main() -> int:
    """Exit code 0: the tools agree within 5 % at the light load; 1: they do not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiperf", type=Path, required=True, help="the program, from requirements/bench-load.txt")
    parser.add_argument("--rounds", type=int, default=3, help="of each load; figures are medians")
    arguments = parser.parse_args()
    program, rounds = cast("Path", arguments.aiperf).absolute(), cast("int", arguments.rounds)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("error: the server needs a core of its own, and there is only one", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    agree = True
    with _served(cores[-1]) as server, tempfile.TemporaryDirectory() as root:
        os.sched_setaffinity(0, {cores[-1]})
        for name, load in (("agreement", AGREEMENT), ("schedule", SCHEDULE)):
            runs: dict[str, list[Outcome]] = {"probe": [], "aiperf": []}
            for number in range(rounds):
                for tool, outcomes in runs.items():
                    folder = Path(root) / f"{name}-{number}-{tool}"
                    folder.mkdir()
                    print(f"{name}, round {number + 1} of {rounds}: {tool}", file=sys.stderr, flush=True)
                    outcomes.append(
                        _probe(load, server, cores[0], folder)
                        if tool == "probe"
                        else _aiperf(program, load, server, cores[0], folder)
                    )
            probe, peer = _median(runs["probe"]), _median(runs["aiperf"])
            ratios = {it: (probe[it] or 0.0) / (peer[it] or 1.0) for it in _COMPARED}
            print(f"{load.rate} requests/s for {load.seconds} s, {load.tokens} tokens each; medians of {rounds} rounds")
            print_table(
                ("", "probe", "aiperf", "probe / aiperf"),
                [
                    (
                        label,
                        *("-" if (value := it[key]) is None else f"{value:.2f}" for it in (probe, peer)),
                        f"{ratios[key]:.3f}" if key in ratios else "",
                    )
                    for key, label in _LABELS.items()
                ],
            )
            if name == "agreement":
                agree = all(abs(it - 1) <= _TOLERANCE for it in ratios.values())
                print("they agree within 5 %\n" if agree else "they do NOT agree within 5 %\n")
            figures[name] = {
                "load": asdict(load),
                "medians": {"probe": probe, "aiperf": peer},
                "ratios": ratios,
                "rounds": {tool: [asdict(it) for it in outcomes] for tool, outcomes in runs.items()},
            }
    server_settings = {"ttftMs": load_server.TTFT_SECONDS * 1000, "itlMs": load_server.ITL_SECONDS * 1000}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    write_result("load", {"server": server_settings, "machine": machine, "agree": agree, **figures})
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
