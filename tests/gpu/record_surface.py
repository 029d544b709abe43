"""Record a surface on a real card: every candidate of a case, loaded by cotune's own probe, several windows each.

Usage, from the repository's root, after `gpu.install` and `gpu.whisper_models`:

    PYTHONPATH=tests:operator/src:servers/src python3 -m gpu.record_surface tests/gpu/cases/voice-surface.json \
        --scratch /opt/cotune --out DIR --sharing TimeSlicing

DIR/surface.json has the schema of tests/data/surfaces; DIR/raw.tar.xz the probe's results with their histograms, the
card's samples and every server's log. Both are written anew after each start of vLLM. No Kubernetes runs here: servers
are plain processes. A start of vLLM is `warm` (imports were done beforehand) unless a case or `--start-method` says
otherwise, all speech servers stay up, and one window follows the other on running servers; each run says so.
"""

import argparse
import asyncio
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cotune.measurement.card import Card, Reading, card_uuids
from cotune.measurement.inputs import read_inputs
from cotune.measurement.probe import DrainedCard, run_probe

from gpu.install import SPEECH, installed
from gpu.llm_model import write_model
from gpu.record_starts import server_environment
from gpu.server import COLD, WARM, Launcher, Server
from gpu.sharing import MPS, TIME_SLICING, SharingError, sharing
from gpu.speech_servers import SpeechError, SpeechServer, end_speech, start_speech, wait_until_ready
from gpu.surface_case import LlmStart, SurfaceCase, read_case
from gpu.vllm_log import read_log

_SCHEMA = 1
_START_LIMIT_SECONDS = 150.0
_IDLE_SECONDS = 15.0
_RELEASE_SECONDS = 20.0
_RELEASED_MIB = 64
_SAMPLES_A_SECOND = 5
_SPEECH_SECONDS = 40.0
"""What starting the speech servers is reckoned to take."""

Json = dict[str, Any]
Say = Callable[[str], None]


class Sampler:
    """Reads the card in a thread of its own, from its start until it is closed."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._stop = threading.Event()
        self._rows: list[tuple[float, Reading]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def between(self, begin: float, end: float) -> "list[Json]":
        """The samples of a period on the monotonic clock."""
        return [{"at": round(at - begin, 2), **_sample(it)} for at, it in list(self._rows) if begin <= at <= end]

    def peak_mib(self, begin: float) -> float:
        """The most that was used since then."""
        return max((it.used_mib for at, it in list(self._rows) if at >= begin), default=0.0)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(1 / _SAMPLES_A_SECOND):
            self._rows.append((time.monotonic(), self._card.read()))


def _sample(it: Reading) -> Json:
    return {
        "usedMiB": round(it.used_mib),
        "utilization": it.utilization,
        "smClockMHz": it.sm_clock_mhz,
        "watts": round(it.power_watts, 1) if it.power_watts is not None else None,
        "celsius": it.temperature_celsius,
        "processes": it.processes,
    }


class Record:
    """What was recorded so far, on disk whole after every start."""

    def __init__(self, out: Path, earlier: Json) -> None:
        self._out = out
        self.document: Json = {"schema": _SCHEMA, "starts": [], "speechStarts": [], "sharing": [], "runs": []} | earlier
        self._raw: dict[str, bytes] = {}

    @property
    def starts(self) -> "list[Json]":
        """Of vLLM."""
        return self.document["starts"]

    @property
    def runs(self) -> "list[Json]":
        """Windows, and candidates that could not start."""
        return self.document["runs"]

    def done(self, candidate: Mapping[str, str], repeat: int) -> bool:
        """Whether a candidate's window is there already; a candidate that cannot start needs no second one."""
        return any(
            it["candidate"] == candidate and (it["repeat"] == repeat or it["failure"] is not None) for it in self.runs
        )

    def keep(self, name: str, content: bytes) -> None:
        """A raw file."""
        self._raw[name] = content

    def write(self) -> None:
        """Replace both files; a reader never sees half of one."""
        self._out.mkdir(parents=True, exist_ok=True)
        part = self._out / "surface.json.part"
        part.write_text(json.dumps(self.document, indent=1) + "\n")
        part.replace(self._out / "surface.json")
        part = self._out / "raw.tar.xz.part"
        with tarfile.open(part, "w:xz", preset=1) as archive:
            for name, content in self._raw.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        part.replace(self._out / "raw.tar.xz")


class Recorder:
    """Goes through the candidates of one sharing mode."""

    def __init__(self, case: SurfaceCase, record: Record, card: Card, options: argparse.Namespace, say: Say) -> None:
        self._case = case
        self._record = record
        self._card = card
        self._options = options
        self._say = say
        self._begin = time.monotonic() - options.already_seconds
        self._corpus: Path = options.corpus or options.scratch / SPEECH
        self._longest_run = 0.0

    def mode(self, mode: str, model: Path) -> None:
        """All candidates of a mode, as far as time allows.

        Raises:
            SharingError: the mode cannot be had.
            SpeechError: a speech server does not start.
        """
        only: list[str] = self._options.only_memory
        wanted = (it for it in self._case.starts() if not only or it.memory in only)
        missing = [it for it in wanted if self._missing(mode, it)]
        if not missing or not self._has(_SPEECH_SECONDS + self._case.start_seconds):
            self._say(f"{mode}: {len(missing)} starts are missing, and left out" if missing else f"{mode}: all there")
            return
        scratch: Path = self._options.scratch
        # Caches and logs of its own: whether a cache is cold must not depend on a recorder beside this one.
        work = scratch / "recorders" / str(self._options.port_offset)
        work.mkdir(parents=True, exist_ok=True)
        idle = DrainedCard(self._card, self._card.read(), self._card.listen())
        with sharing(mode, work, self._options.card_index) as shared:
            site = scratch / "site"
            environment = server_environment(work, site if site.is_dir() else None, "INFO") | dict(shared)
            environment |= {"ASR_MODELS": str(scratch / "models" / "whisper")}
            launcher = Launcher(
                environment,
                work,
                self._options.ahead if self._options.start_method == WARM else 0,
                self._options.llm_module,
            )
            launcher.prepare()
            ports = {size: self._case.speech_port(size) for size in self._case.sizes}
            speech = start_speech(ports, environment, work, self._options.stt_module)
            try:
                # One beside the other, and readiness is looked for all the while: it is the servers' own time.
                inspection = self._inspect(environment)
                try:
                    self._speech(mode, speech)
                finally:
                    if inspection:
                        inspection.wait()
                        self._say(f"inspected the architecture, exit code {inspection.returncode}")
                for start in missing:
                    if not self._has(self._case.start_seconds + self._estimate()):
                        self._say(f"{mode} {start}: left out, no time")
                        break
                    self._start(mode, start, model, launcher, speech, idle)
                    self._record.write()
            finally:
                launcher.close()
                end_speech(speech)
                idle.errors.close()
                for it in speech:
                    self._record.keep(f"logs/{mode}-stt-{it.size}.log", it.log.read_bytes())
        self._record.document["sharing"].append({"mode": mode, "idleMiB": round(idle.drained.used_mib)})
        self._record.write()

    def _inspect(self, environment: Mapping[str, str]) -> "subprocess.Popen[bytes] | None":
        """vLLM looks at an architecture in a process of its own, once, and keeps what it saw.

        It has been seen to end with a segmentation fault after it had written that: no matter. Without it the first
        start is longer, and no more.
        """
        if self._options.start_method != WARM:
            return None
        command = [sys.executable, "-m", "gpu.inspect_models", *self._case.model["config"]["architectures"]]
        return subprocess.Popen(command, env=environment)

    def _speech(self, mode: str, speech: "list[SpeechServer]") -> None:
        seconds = wait_until_ready(speech, lambda: None)
        held = self._held()
        for it in speech:
            self._record.document["speechStarts"].append(
                {
                    "sharing": mode,
                    "whisperModel": it.size,
                    "seconds": seconds[it.size],
                    "gpuMemoryMiB": held.get(it.process.pid),
                    "note": f"{len(speech)} servers started at once",
                }
            )
        self._say(f"{mode}: speech servers ready after {seconds}, MiB {held}")

    def _start(
        self,
        mode: str,
        start: LlmStart,
        model: Path,
        launcher: Launcher,
        speech: "list[SpeechServer]",
        idle: DrainedCard,
    ) -> None:
        method: str = self._options.start_method
        before = self._card.read().used_mib
        begin = time.monotonic()
        sampler = Sampler(self._card)
        arguments = tuple(self._case.model["arguments"])
        server = launcher.start(start.command(model, arguments, self._case.llm_port), method)
        told = time.monotonic()
        record: Json = {
            "id": len(self._record.starts) + 1,
            "sharing": mode,
            "llmMemory": start.memory,
            "llmMaxSeqs": start.max_seqs,
            "method": method,
            "importSecondsWaited": round(told - begin, 1),
        }
        try:
            try:
                is_up = server.wait_until_healthy(self._case.llm_port, _START_LIMIT_SECONDS, lambda: None)
            except TimeoutError as error:
                is_up = False
                record["recorderError"] = str(error)
            record |= self._started(server, is_up, told, before, sampler)
            self._record.starts.append(record)
            self._say(f"{mode} {start}: {'healthy' if is_up else record['error']} after {record['seconds']} s")
            if is_up:
                self._windows(mode, start, record, server, speech, idle, sampler)
            else:
                self._failed(mode, start, record)
        finally:
            sampler.close()
            server.end()
            self._record.keep(
                f"logs/{mode}-llm-{start.memory}-{start.max_seqs}-{record['id']}.log", server.log.read_bytes()
            )
        record["releasedSeconds"] = self._released(before)

    def _started(self, server: Server, is_up: bool, told: float, before: float, sampler: Sampler) -> Json:
        log = read_log(server.log.read_text(errors="replace"))
        if not is_up:
            server.end()
        return {
            "started": is_up,
            "seconds": round(time.monotonic() - told, 1),
            "exitCode": server.process.poll(),
            "error": None if is_up else log.error,
            "gpuUsedMiBBefore": round(before),
            "gpuUsedMiBAfter": round(self._card.read().used_mib),
            "gpuUsedMiBPeak": round(sampler.peak_mib(told)),
            **{_camel(name): value for name, value in asdict(log).items() if name != "error"},
        }

    def _windows(
        self,
        mode: str,
        start: LlmStart,
        record: Json,
        server: Server,
        speech: "list[SpeechServer]",
        idle: DrainedCard,
        sampler: Sampler,
    ) -> None:
        for repeat in range(1, self._case.repeats + 1):
            for it in speech:
                candidate = self._case.candidate(mode, start, it.size)
                if self._record.done(candidate, repeat):
                    continue
                if not self._has(self._estimate()):
                    self._say(f"{candidate} repeat {repeat}: left out, no time")
                    return
                run = self._window(candidate, repeat, record, server, it, idle, sampler)
                self._record.runs.append(run)

    def _window(
        self,
        candidate: "dict[str, str]",
        repeat: int,
        start: Json,
        server: Server,
        speech: SpeechServer,
        idle: DrainedCard,
        sampler: Sampler,
    ) -> Json:
        begin = time.monotonic()
        configuration = self._case.probe(speech.size, repeat, self._corpus)
        preemptions = _counter(self._case.llm_port, "vllm:num_preemptions_total")
        lines: list[str] = []
        result = asyncio.run(run_probe(configuration, read_inputs(configuration), idle, lines.append))
        seconds = time.monotonic() - begin
        held = self._held()
        self._wait_until_idle(speech.port)
        self._longest_run = max(self._longest_run, time.monotonic() - begin)
        name = f"runs/{'-'.join((*candidate.values(), str(repeat)))}.json"
        raw = json.loads(result.model_dump_json(by_alias=True, exclude_none=True))
        raw |= {"samples": sampler.between(begin, time.monotonic()), "said": lines}
        self._record.keep(name, json.dumps(raw).encode())
        measurements = [it for it in raw["measurements"] if _is_true_of(speech.size, it["metric"])]
        measurements += _of_processes(held, server, speech)
        figures = {it["metric"]: it["value"] for it in measurements}
        shown = (
            "stt.latency.p50",
            "stt.latency.p95",
            "stt.wer",
            "llm.ttft.p50",
            "llm.latency.p95",
            "llm.tokensPerSecond",
        )
        self._say(f"{candidate} {repeat}: " + ", ".join(f"{it} {figures.get(it)}" for it in shown))
        return {
            "candidate": candidate,
            "repeat": repeat,
            "start": start["id"],
            "servers": "warm",
            "failure": None,
            "seconds": round(seconds, 2),
            "measurements": measurements,
            "errors": raw.get("errors", []),
            "preemptions": _difference(_counter(self._case.llm_port, "vllm:num_preemptions_total"), preemptions),
            "bystandersMiB": sum(
                mib for pid, mib in held.items() if _group(pid) not in (server.process.pid, speech.process.pid)
            ),
            "streams": [
                {"component": it["component"], "requests": it["requests"], "latency": it.get("latency")}
                for it in raw["streams"]
            ],
            "processorWaitSeconds": raw.get("processorWaitSeconds"),
            "raw": name,
        }

    def _failed(self, mode: str, start: LlmStart, record: Json) -> None:
        """The speech server starts after vLLM: which one it would have been makes no difference."""
        for size in self._case.sizes:
            self._record.runs.append(
                {
                    "candidate": self._case.candidate(mode, start, size),
                    "repeat": 1,
                    "start": record["id"],
                    "servers": None,
                    "failure": {"component": "llm", "message": record["error"]},
                    "seconds": record["seconds"],
                    "measurements": [],
                    "errors": [],
                }
            )

    def _missing(self, mode: str, start: LlmStart) -> bool:
        return not all(
            self._record.done(self._case.candidate(mode, start, size), repeat)
            for size in self._case.sizes
            for repeat in range(1, self._case.repeats + 1)
        )

    def _held(self) -> "dict[int, int]":
        return {pid: round(mib) for pid, mib in self._card.read().held.items()}

    def _released(self, mib: float) -> float | None:
        begin = time.monotonic()
        while time.monotonic() - begin < _RELEASE_SECONDS:
            if self._card.read().used_mib <= mib + _RELEASED_MIB:
                return round(time.monotonic() - begin, 2)
            time.sleep(0.1)
        return None

    def _wait_until_idle(self, speech_port: int) -> None:
        """What was still queued at the end of a window must not be in the way of the next."""
        end = time.monotonic() + _IDLE_SECONDS
        busy = ((speech_port, "stt_requests_present"), (self._case.llm_port, "vllm:num_requests_running"))
        while time.monotonic() < end and any((_counter(*it) or 0) > 0 for it in busy):
            time.sleep(0.1)

    def _estimate(self) -> float:
        return max(self._case.run_seconds, self._longest_run)

    def _has(self, seconds: float) -> bool:
        return time.monotonic() - self._begin + seconds < self._options.limit_seconds


def _is_true_of(size: str, metric: str) -> bool:
    """An enlarged model answers as a smaller one does: its word error rate says nothing of the size."""
    return metric != "stt.wer" or not size.endswith("-sized")


def _of_processes(held: Mapping[int, int], server: Server, speech: SpeechServer) -> "list[Json]":
    """NVML's figures of each component's processes; a driver that names none leaves them out."""
    found = [
        (component, sum(mib for pid, mib in held.items() if _group(pid) == leader))
        for component, leader in (("llm", server.process.pid), ("stt", speech.process.pid))
    ]
    return [{"metric": f"{component}.gpuMemoryMiB", "value": str(mib), "samples": 1} for component, mib in found if mib]


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _counter(port: int, name: str) -> float | None:
    """The sum of a metric's samples; None where the server has it not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return None
    values = [float(it.rpartition(" ")[2]) for it in lines if it.partition("{")[0].partition(" ")[0] == name]
    return sum(values) if values else None


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _camel(name: str) -> str:
    first, *rest = name.replace("_gib", "_GiB").split("_")
    return first + "".join(it if it == "GiB" else it.title() for it in rest)


def describe(card: Card, wheels: "list[str]") -> Json:
    """The card, the machine and the versions."""
    pynvml: Any = importlib.import_module("pynvml")
    handle = pynvml.nvmlDeviceGetHandleByUUID(card.uuid)
    reading = card.read()
    return {
        "gpu": str(pynvml.nvmlDeviceGetName(handle)),
        "gpuTotalMiBByNvml": round(reading.total_mib),
        "gpuIdleMiB": round(reading.used_mib),
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        "vllm": next((it.split("-")[1] for it in wheels if it.startswith("vllm-")), None),
        "whisper": next((it for it in wheels if it.startswith("openai_whisper-")), None),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "cards": pynvml.nvmlDeviceGetCount(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main(arguments: "list[str] | None" = None) -> int:
    """Record until the candidates or the seconds are used up; 1 when a mode could not be had."""
    begin = time.monotonic()
    options = _parser().parse_args(arguments)

    def say(words: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {words}", flush=True)

    case = read_case(options.case, options.port_offset)
    options.scratch.mkdir(parents=True, exist_ok=True)
    earlier: Json = json.loads(options.go_on.read_text()) if options.go_on and options.go_on.exists() else {}
    record = Record(options.out, earlier)
    index: int | None = options.card_index
    card = Card(None if index is None else card_uuids()[index])
    record.document["card"] = earlier.get("card") or describe(card, installed(options.scratch))
    record.document["case"] = case.document
    say(f"{record.document['card']}")
    model = write_model(case, options.scratch)
    recorder = Recorder(case, record, card, options, say)
    code = 0
    for mode in options.sharing:
        try:
            recorder.mode(mode, model)
        except (SharingError, SpeechError, RuntimeError) as error:
            say(f"{mode}: {error}")
            record.document["sharing"].append({"mode": mode, "error": str(error)})
            code = 1
    record.write()
    feasible = {json.dumps(it["candidate"]) for it in record.runs if it["failure"] is None}
    say(f"{len(record.runs)} runs, {len(feasible)} candidates measured, {len(record.starts)} starts of vLLM")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu.record_surface", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("/opt/cotune"))
    parser.add_argument("--sharing", nargs="+", choices=(TIME_SLICING, MPS), default=[TIME_SLICING, MPS])
    parser.add_argument(
        "--only-memory", nargs="*", default=[], help="values of llmMemory; the rest is recorded elsewhere"
    )
    parser.add_argument("--card-index", type=int, help="of several cards, as NVML counts them; MPS wants 0")
    parser.add_argument("--port-offset", type=int, default=0, help="for a recorder beside another one")
    parser.add_argument("--limit-seconds", type=float, default=540, help="begin nothing that would end after this")
    parser.add_argument(
        "--already-seconds", type=float, default=0, help="of the limit, spent before this program began"
    )
    parser.add_argument("--go-on", type=Path, help="an earlier surface.json: what it has is kept and not repeated")
    parser.add_argument("--start-method", choices=(WARM, COLD), default=WARM)
    parser.add_argument("--ahead", type=int, default=2, help="processes that import vLLM ahead of their turn")
    parser.add_argument("--corpus", type=Path, help="another folder with recordings and transcripts.json")
    parser.add_argument("--llm-module", default="vllm.entrypoints.cli.main", help="for rehearsals without a card")
    parser.add_argument("--stt-module", default="cotune_servers.stt", help="for rehearsals without a card")
    return parser


if __name__ == "__main__":
    sys.exit(main())
