"""The probe as a process, from a card that is in use to the line with the result."""

import asyncio
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cotune.api.corpus import Noise, UrlSource
from cotune.api.experiment import ExperimentSpec
from cotune.api.workload import Arrivals, ArrivalType, Protocol
from cotune.artifacts.figures import Recomputed
from cotune.artifacts.making import make_record
from cotune.experiments.predictions import plan_experiment
from cotune.measurement.contract import (
    CONFIGURATION_VARIABLE,
    ErrorCount,
    ProbeConfiguration,
    ProbeInterference,
    ProbeResult,
    ProbeStream,
)
from cotune.planning.model_config import read_model_config
from cotune.search.space import Candidate
from cotune.trials.truth import Evidence, breach
from cotune_simulation.card.identity import card_uuid
from cotune_simulation.speech import write_corpus
from cotune_simulation.vllm.answers import answer
from support.examples import documents
from support.records import ended
from support.running_agent import running_agent
from support.simulated_card import REPOSITORY, RunningCard, build_nvml_library, start
from support.simulated_server import Answer, RunningServer, free_port, running_server

HOLD = """
import asyncio
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
async def main():
    client = await CardClient.connect(socket_path())
    await client.allocate(512 * 1024 * 1024)
    print("held", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def card(tmp_path: Path) -> Iterator[RunningCard]:
    running = start(tmp_path / "card.sock")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml_library(tmp_path_factory.mktemp("nvml"))


@contextmanager
def probe(configuration: ProbeConfiguration | str, **environment: str) -> Generator[tuple[RunningServer, Path]]:
    """A running probe, its health as a server, and the file that takes what it prints."""
    text = configuration if isinstance(configuration, str) else configuration.model_dump_json(by_alias=True)
    port = free_port()
    output = Path(environment["OUTPUT"])
    with output.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "cotune.measurement"],
            stdout=lines,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY / "operator" / "src"), CONFIGURATION_VARIABLE: text}
            | {"COTUNE_PROBE_PORT": str(port)}
            | environment,
        )
        try:
            yield RunningServer(port, process), output
        finally:
            process.kill()
            process.wait()


def drained(server: RunningServer) -> int:
    """The status of `/drained`, 0 while nobody listens."""
    try:
        answer: Answer = server.get("/drained")
    except OSError:
        return 0
    return answer.status


def wait_for(server: RunningServer, status: int) -> None:
    deadline = time.monotonic() + 30
    while drained(server) != status:
        assert server.process.poll() is None, f"the probe ended with {server.process.returncode}"
        assert time.monotonic() < deadline, f"/drained did not become {status}"
        time.sleep(0.02)


def wait_for_line(output: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in output.read_text():
        assert time.monotonic() < deadline, f"never said {text!r}: {output.read_text()}"
        time.sleep(0.02)


def stream(component: str, protocol: Protocol, port: int, rate: str = "10", **more: Any) -> ProbeStream:
    return ProbeStream(
        component=component,
        protocol=protocol,
        host="127.0.0.1",
        port=port,
        arrivals=Arrivals(type=ArrivalType.CONSTANT, rate_per_second=rate),
        **more,
    )


def configured(*streams: ProbeStream, gpu: bool, seconds: float = 2) -> ProbeConfiguration:
    return ProbeConfiguration(
        gpu=gpu, seed=7, warmup_seconds=0.5, duration_seconds=seconds, grace_seconds=10, streams=streams
    )


def test_it_drains_waits_loads_all_services_and_reports(card: RunningCard, library: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    judge, stt = free_port(), free_port()
    configuration = configured(
        stream("judge", Protocol.OPENAI_COMPLETIONS, judge, "4", prompt_tokens=64, output_tokens=8),
        stream("judge", Protocol.OPENAI_CHAT, judge, "4", prompt_tokens=16, output_tokens=4),
        stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, stt, "4", corpus=str(tmp_path / "corpus")),
        gpu=True,
    )
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    environment["COTUNE_NODE"] = "lab"
    with ExitStack() as stack:
        agent, _ = stack.enter_context(running_agent(card, library, tmp_path))
        more = {"largest_allocation": True, "node_agent": f"127.0.0.1:{agent}"}
        configuration = configuration.model_copy(update=more)
        process, output = stack.enter_context(probe(configuration, **environment))
        wait_for_line(output, "waiting for judge, stt")
        assert drained(process) == 200
        vllm = stack.enter_context(
            running_server(
                card.environment(),
                "cotune_simulation.vllm",
                *("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization", "0.5"),
                *("--max-model-len", "2048", "--port", "PORT"),
                at=judge,
            )
        )
        wait_for_line(output, "waiting for stt")
        stack.enter_context(
            running_server(
                card.environment(),
                "cotune_simulation.whisper",
                *("--port", "PORT"),
                at=stt,
                ASR_WHISPER_SIZE="tiny",
            )
        )
        wait_for_line(output, "measuring")
        assert drained(process) == 200
        code = process.process.wait(60)
        exposition = vllm.get("/metrics").body.decode()

    lines = output.read_text().splitlines()
    assert code == 0, lines
    result = ProbeResult.model_validate_json(lines[-1])
    found = {it.metric: float(it.value) for it in result.measurements}
    samples = {it.metric: it.samples for it in result.measurements}
    assert result.errors == ()
    assert any(it.startswith("the largest allocation is not known: no CUDA driver") for it in lines)
    assert set(found) == {
        *(f"{name}.latency.{it}" for name in ("judge", "stt") for it in ("p50", "p95", "p99")),
        *(f"{name}.{it}" for name in ("judge", "stt") for it in ("throughput", "errorRate")),
        *(f"judge.ttft.{it}" for it in ("p50", "p95", "p99")),
        *("judge.itl.p50", "judge.itl.p95", "judge.tokensPerSecond", "judge.kvCache.tokens"),
        *("judge.kvCache.concurrency", "judge.kvCache.usage", "judge.queue.max", "judge.queue.mean"),
        *("judge.preemptions", "stt.wer", "stt.realTimeFactor"),
        *("gpu.freeMiB", "gpu.usedMiB", "gpu.utilization"),
    }
    assert samples["judge.latency.p95"] == 16, "both streams of the component"
    assert samples["stt.latency.p95"] == samples["stt.wer"] == 8
    assert [(it.component, it.requests, it.output_tokens) for it in result.streams] == [
        ("judge", 8, 64),
        ("judge", 8, 32),
        ("stt", 8, 0),
    ]
    assert all(it.schedule_error is not None and it.schedule_error.samples == 8 for it in result.streams)
    assert result.processor_wait_seconds is not None
    assert 0 <= result.processor_wait_seconds < 60
    assert "firstToken" in {it.name for it in result.streams[0].histograms}
    assert found["judge.errorRate"] == found["stt.errorRate"] == 0
    assert 0 < found["judge.ttft.p50"] < found["judge.latency.p50"]
    assert 0 < found["stt.wer"] < 0.3
    assert found["judge.kvCache.concurrency"] == pytest.approx(found["judge.kvCache.tokens"] / 2048, rel=1e-4)
    assert f'num_gpu_blocks="{found["judge.kvCache.tokens"] / 16:.0f}"' in exposition
    assert found["gpu.usedMiB"] > 5_000
    assert 0 < found["gpu.utilization"] <= 1
    assert result.conduct is not None
    assert {it.component: it.requests for it in result.conduct.punctuality} == {"judge": 16, "stt": 8}
    seen = result.conduct.card
    assert seen is not None
    assert seen.uuid == card_uuid("lab")
    assert seen.readings >= 15, "ten a second"
    assert (len(seen.processes), seen.newcomers, seen.are_all_listed) == (2, (), True)
    assert sum(it.least_mib for it in seen.processes) == pytest.approx(seen.rise_mib, abs=1)
    assert (seen.throttled, seen.throttle_reasons, seen.uncorrected_ecc_errors) == (0, (), None)
    assert (seen.xids, seen.needs_reset) == ((), None)
    assert result.node is not None
    assert (result.node.node, result.node.lost, result.node.xids) == ("lab", (), ())
    assert [it.pid for tenant in result.node.tenants for it in tenant.processes] == [it.pid for it in seen.processes]
    assert sum(it.most_mib for it in result.node.tenants) == pytest.approx(found["gpu.usedMiB"] - 200, abs=1)
    assert {it.component: it.out_of_memory for it in result.services} == {"judge": None, "stt": None}
    assert (found["judge.preemptions"], found["judge.queue.max"] >= found["judge.queue.mean"]) == (0, True)
    assert 0 <= found["judge.kvCache.usage"] <= 1
    identity, kept = result.card_identity, result.card_samples
    assert identity is not None
    assert kept is not None
    assert (identity.uuid, identity.product) == (card_uuid("lab"), "NVIDIA GeForce RTX 3060")
    assert identity.memory_mib == pytest.approx(found["gpu.freeMiB"] + found["gpu.usedMiB"], abs=1)
    assert all((identity.driver_version, identity.cuda_version, identity.nvml_version))
    assert len(kept.seconds) == seen.readings
    assert 0 <= kept.seconds[0] < kept.seconds[-1]
    again = Recomputed(make_record(ended(said=result)))
    assert again.faults == []
    assert again.metrics == 15, "all that rests on histograms, counts of errors and readings of the card"


@pytest.mark.parametrize(("dtype", "is_well"), [("auto", True), ("fp8_e5m2", False)])
def test_beside_the_load_it_asks_what_is_known_and_sends_fetched_speech_with_noise(
    card: RunningCard, library: Path, tmp_path: Path, dtype: str, is_well: bool
) -> None:
    write_corpus(tmp_path / "corpus")
    archive = Path(shutil.make_archive(str(tmp_path / "speech"), "gztar", tmp_path / "corpus"))
    sums = ((17, 25), (12, 30), (11, 8), (5, 9))
    lines: list[dict[str, Any]] = [
        {"prompt": f"{a} + {b} =", "expect": str(a + b), "match": "Contains"} for a, b in sums
    ]
    recorded = [{"token": it.text, "logprob": it.logprob} for it in answer("6 * 7 =", 0.0) or ()]
    lines.append({"prompt": "6 * 7 =", "logprobs": recorded})
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(it) for it in lines))
    judge, stt = free_port(), free_port()
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    with ExitStack() as stack:
        files = stack.enter_context(
            running_server({}, "http.server", "PORT", "--bind", "127.0.0.1", "--directory", str(tmp_path))
        )
        source = UrlSource(url=f"{files.url}/{archive.name}", sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
        configuration = configured(
            stream(
                *("judge", Protocol.OPENAI_COMPLETIONS, judge, "4"),
                prompt_tokens=16,
                output_tokens=4,
                questions=str(tmp_path / "questions.jsonl"),
            ),
            stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, stt, "4", corpus_url=source, noise=Noise(snr_db=(10, -5))),
            gpu=True,
            seconds=6,
        )
        process, output = stack.enter_context(probe(configuration, **environment))
        wait_for(process, 200)
        vllm = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization", "0.5", "--max-model-len", "2048")
        for module, arguments, at in (
            ("vllm", (*vllm, "--kv-cache-dtype", dtype, "--port", "PORT"), judge),
            ("whisper", ("--port", "PORT"), stt),
        ):
            server = running_server(card.environment(), f"cotune_simulation.{module}", *arguments, at=at)
            stack.enter_context(server)
        assert process.process.wait(60) == 0, output.read_text()

    result = ProbeResult.model_validate_json(output.read_text().splitlines()[-1])
    found = {it.metric: (float(it.value), it.samples) for it in result.measurements}
    assert result.errors == ()
    assert found["judge.quality"][1] == 5
    assert (found["judge.quality"][0] == 1) == is_well
    (report,) = result.quality
    assert (report.component, report.asked, report.answered) == ("judge", 5, 5)
    assert bool(report.wrong) != is_well
    assert found["judge.latency.p95"][1] == result.streams[0].requests == 24, "the questions are not the load"
    conditions = {name: found[f"stt.wer.{name}"][1] for name in ("clean", "snr10", "snrMinus5")}
    assert conditions == {"clean": 8, "snr10": 8, "snrMinus5": 8}
    assert found["stt.wer"][1] == 24


def test_a_corpus_that_is_another_one_ends_it_though_the_card_is_in_use(
    card: RunningCard, library: Path, tmp_path: Path
) -> None:
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    (tmp_path / "speech.tar").write_bytes(b"another")
    with ExitStack() as stack:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=os.environ | card.environment()
        )
        stack.callback(holder.communicate)
        stack.callback(holder.kill)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        files = stack.enter_context(
            running_server({}, "http.server", "PORT", "--bind", "127.0.0.1", "--directory", str(tmp_path))
        )
        source = UrlSource(url=f"{files.url}/speech.tar?token=secret", sha256="0" * 64)
        configuration = configured(
            stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, free_port(), corpus_url=source), gpu=True
        )
        process, output = stack.enter_context(probe(configuration, **environment))
        assert process.process.wait(30) == 1

    assert output.read_text().splitlines()[-1].startswith(f"probe: error: {files.url}/speech.tar has the SHA-256 ")


def test_what_is_wrong_with_the_card_in_the_window_is_in_the_result(
    card: RunningCard, library: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "corpus")
    stt = free_port()
    configuration = configured(
        stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, stt, "4", corpus=str(tmp_path / "corpus")), gpu=True, seconds=4
    ).model_copy(update={"node_agent": f"cotune-node-agent.invalid:{free_port()}"})
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    with ExitStack() as stack:
        process, output = stack.enter_context(probe(configuration, **environment))
        wait_for_line(output, "waiting for stt")
        stack.enter_context(
            running_server(
                card.environment(),
                "cotune_simulation.whisper",
                *("--port", "PORT"),
                at=stt,
                ASR_WHISPER_SIZE="tiny",
                COTUNE_SIMULATION_DEVICE_FALLBACK="always",
            )
        )
        wait_for_line(output, "measuring")
        time.sleep(1)
        tenant = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=os.environ | card.environment()
        )
        stack.callback(tenant.communicate)
        stack.callback(tenant.kill)
        asyncio.run(throttle(card))
        assert process.process.wait(60) == 0
    assert "whose the processes on the card are is not known: no node agent at" in output.read_text()

    conduct = ProbeResult.model_validate_json(output.read_text().splitlines()[-1]).conduct
    assert conduct is not None
    assert 4 <= (conduct.ended_at - conduct.started_at).total_seconds() < 15
    seen = conduct.card
    assert seen is not None
    assert (seen.processes, seen.rise_mib) == ((), 0), "the speech server computes on the CPU"
    assert [(it.pid, it.least_mib) for it in seen.newcomers] == [(tenant.pid, 512)]
    assert seen.throttled
    assert seen.throttle_reasons == ("SwThermalSlowdown",)
    assert seen.xids == (63,)


@pytest.mark.parametrize(("fallback", "expected"), [("", None), ("always", "DeviceFallback")])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_by_what_it_says_of_the_stories_stack_a_silent_fallback_is_told_from_a_true_start(
    card: RunningCard, library: Path, tmp_path: Path, size: str, fallback: str, expected: str | None
) -> None:
    write_corpus(tmp_path / "corpus")
    neighbour, judge, stt = free_port(), free_port(), free_port()
    configuration = configured(
        stream("neighbour", Protocol.HTTP, neighbour, "2", path="/health"),
        stream("judge", Protocol.OPENAI_COMPLETIONS, judge, "1", prompt_tokens=64, output_tokens=8),
        stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, stt, "1", corpus=str(tmp_path / "corpus")),
        gpu=True,
    )
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    vllm = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization", "0.5", "--max-model-len", "2048")
    speech = {"ASR_WHISPER_SIZE": size, "COTUNE_SIMULATION_DEVICE_FALLBACK": fallback}
    with ExitStack() as stack:
        process, output = stack.enter_context(probe(configuration, **environment))
        wait_for_line(output, "waiting for neighbour, judge, stt")
        for module, arguments, at, more in (
            ("neighbour", (), neighbour, {"PORT": str(neighbour)}),
            ("vllm", (*vllm, "--port", "PORT"), judge, {}),
            ("whisper", ("--port", "PORT"), stt, speech),
        ):
            server = running_server(card.environment(), f"cotune_simulation.{module}", *arguments, at=at, **more)
            stack.enter_context(server)
        assert process.process.wait(60) == 0

    result = ProbeResult.model_validate_json(output.read_text().splitlines()[-1])
    models, experiment = documents("voice-stack.yaml")[:2]
    spec = ExperimentSpec.model_validate(experiment["spec"])
    (text,) = models["data"].values()
    prediction = plan_experiment(spec, {"judge": read_model_config(text)}, {}).predict(
        Candidate((("judgeMemory", "0.50"), ("whisperModel", size)))
    )
    assert result.conduct is not None
    assert prediction is not None
    measurements = {it.metric: it for it in result.measurements}

    found = breach(Evidence(spec, result.conduct, {}, measurements, prediction))

    assert (found.reason if found else None) == expected, found
    if found is not None:
        assert re.search(
            r"wanted at least neighbour 614 MiB, .*; processes on the card, MiB: 1229, 6\d\d\d$", found.message
        )


def slowdown_beside_a_language_model(card: RunningCard, library: Path, folder: Path) -> ProbeResult:
    """Speech beside a language model that computes nearly without a pause, then each of them alone."""
    write_corpus(folder / "corpus")
    judge, stt = free_port(), free_port()
    configuration = configured(
        stream("judge", Protocol.OPENAI_COMPLETIONS, judge, "8", prompt_tokens=64, output_tokens=32),
        stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, stt, "4", corpus=str(folder / "corpus")),
        gpu=True,
        seconds=5,
    ).model_copy(
        update={
            "interference": ProbeInterference(
                duration_seconds=5, warmup_seconds=0.5, rounds=(("judge",), ("stt",), ("judge", "stt"))
            )
        }
    )
    environment = card.environment() | {"OUTPUT": str(folder / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    vllm = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization", "0.5", "--max-model-len", "2048")
    with ExitStack() as stack:
        process, output = stack.enter_context(probe(configuration, **environment))
        wait_for_line(output, "waiting for judge, stt")
        for module, arguments, at, more in (
            ("vllm", (*vllm, "--port", "PORT"), judge, {}),
            ("whisper", ("--port", "PORT"), stt, {"ASR_WHISPER_SIZE": "small"}),
        ):
            server = running_server(card.environment(), f"cotune_simulation.{module}", *arguments, at=at, **more)
            stack.enter_context(server)
        assert process.process.wait(90) == 0, output.read_text()
    return ProbeResult.model_validate_json(output.read_text().splitlines()[-1])


def test_the_matrix_after_the_window_shows_who_slows_down_whom(
    card: RunningCard, library: Path, tmp_path: Path
) -> None:
    result = slowdown_beside_a_language_model(card, library, tmp_path)

    cells = {(it.loaded, it.component): it.latency for it in result.interference}
    both = ("judge", "stt")
    assert [(it.loaded, it.component) for it in result.interference] == [
        (("judge",), "judge"),
        (("stt",), "stt"),
        *[(both, it) for it in both] * 2,
    ]
    measured = {it.metric: it for it in result.measurements}
    slowdown = measured["stt.slowdown.p95"]
    alone, together = cells[("stt",), "stt"], cells[both, "stt"]
    assert alone is not None
    assert together is not None
    assert float(slowdown.value) == pytest.approx(together.p95 / alone.p95, rel=1e-4)
    assert slowdown.samples == 20
    assert float(slowdown.value) > 1, "one language model makes speech slower"
    assert result.conduct is not None
    assert [it.loaded for it in result.conduct.rounds] == [("judge",), ("stt",), both]
    windows = [result.conduct, *result.conduct.rounds]
    assert all(earlier.ended_at < later.started_at for earlier, later in itertools.pairwise(windows))
    for it in result.conduct.rounds:
        assert {one.component: one.requests for one in it.punctuality} == {
            name: {"judge": 40, "stt": 20}[name] for name in it.loaded
        }
        assert it.card is not None
        assert len(it.card.processes) == 2, "the others stay up"
    assert measured["stt.latency.p95"].samples == 20, "the window is as it would be without"


def test_under_mps_speech_is_slowed_down_less(card: RunningCard, library: Path, tmp_path: Path) -> None:
    (tmp_path / "sliced").mkdir()
    (tmp_path / "mps").mkdir()
    under_mps = start(tmp_path / "mps.sock", mps_replicas=1)
    try:
        results = [
            slowdown_beside_a_language_model(it, library, tmp_path / folder)
            for it, folder in ((card, "sliced"), (under_mps, "mps"))
        ]
    finally:
        under_mps.stop()

    sliced, shared = (
        float(next(it.value for it in result.measurements if it.metric == "stt.slowdown.p95")) for result in results
    )
    assert shared < sliced
    conduct = results[1].conduct
    assert conduct is not None
    assert conduct.card is not None
    assert len(conduct.card.processes) == 2, "they are clients of MPS"


SLEEPER = """
import asyncio, sys
from aiohttp import web
async def answer(_):
    await asyncio.sleep(0.5)
    return web.Response()
application = web.Application()
application.router.add_get("/", answer)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
"""Answers after half a second, whoever else is asked."""


def test_services_that_do_not_share_anything_do_not_slow_each_other_down(tmp_path: Path) -> None:
    ports = {"one": free_port(), "other": free_port()}
    configuration = configured(
        *(stream(name, Protocol.HTTP, port, "10") for name, port in ports.items()), gpu=False
    ).model_copy(update={"interference": ProbeInterference(duration_seconds=2, rounds=(("one",), ("other",)))})
    with ExitStack() as stack:
        for port in ports.values():
            server = subprocess.Popen([sys.executable, "-c", SLEEPER, str(port)])
            stack.callback(server.wait)
            stack.callback(server.kill)
        process, output = stack.enter_context(probe(configuration, OUTPUT=str(tmp_path / "lines")))
        assert process.process.wait(60) == 0, output.read_text()

    result = ProbeResult.model_validate_json(output.read_text().splitlines()[-1])
    slowdowns = {it.metric: float(it.value) for it in result.measurements if ".slowdown." in it.metric}
    assert set(slowdowns) == {"one.slowdown.p95", "other.slowdown.p95"}
    # About 1: what a busy machine adds is small beside half a second.
    assert all(0.5 < it < 2 for it in slowdowns.values()), slowdowns


async def throttle(card: RunningCard) -> None:
    async with card.client() as client:
        await client.throttle(0x20)
        await client.fail(xid=63)


def test_it_is_not_ready_while_somebody_holds_the_card(card: RunningCard, library: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=os.environ | card.environment()
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        configuration = configured(stream("other", Protocol.HTTP, free_port()), gpu=True)
        environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
        environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
        with probe(configuration, **environment) as (process, output):
            wait_for_line(output, "1 processes")
            assert drained(process) == 503
            holder.kill()
            holder.wait()
            wait_for(process, 200)
    finally:
        holder.kill()
        holder.communicate()


def test_a_card_that_does_not_answer_ends_it_without_a_result(card: RunningCard, library: Path, tmp_path: Path) -> None:
    environment = card.environment() | {"OUTPUT": str(tmp_path / "lines"), "LD_LIBRARY_PATH": str(library)}
    environment["PYTHONPATH"] = str(REPOSITORY / "operator" / "src")
    card.stop()
    with probe(configured(stream("other", Protocol.HTTP, free_port()), gpu=True), **environment) as (process, output):
        assert process.process.wait(30) == 1
        (line,) = output.read_text().splitlines()

    assert line.startswith("probe: error: NVML")


def test_without_a_card_it_is_ready_at_once_and_ends_at_sigterm_without_a_result(tmp_path: Path) -> None:
    configuration = configured(stream("other", Protocol.HTTP, free_port()), gpu=False)
    with probe(configuration, OUTPUT=str(tmp_path / "lines")) as (process, output):
        wait_for(process, 200)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(20) == 143
        assert output.read_text().splitlines()[-1] == "terminated"


def test_a_service_whose_name_does_not_resolve_yet_is_waited_for(tmp_path: Path) -> None:
    unknown = stream("other", Protocol.HTTP, 80).model_copy(update={"host": "no-such-service.invalid"})
    with probe(configured(unknown, gpu=False), OUTPUT=str(tmp_path / "lines")) as (process, output):
        wait_for_line(output, "waiting for other")
        assert process.process.poll() is None


def test_a_stall_of_2_s_in_every_10_s_is_at_p99_of_an_open_loop_and_a_closed_loop_is_blind_to_it(
    card: RunningCard, tmp_path: Path
) -> None:
    """The same server, in the same ten seconds.

    A fifth of what users send meets the stall. A client that waits for its answers meets it once and sends nothing
    meanwhile: of hundreds of its requests one is slow.
    """
    with running_server(card.environment(), "cotune_simulation.neighbour", COTUNE_SIMULATION_STALL="2/10") as server:
        users = stream("users", Protocol.HTTP, server.port, rate="20", path="/health")
        waiting = Arrivals(type=ArrivalType.CLOSED_LOOP, concurrency=(1,))
        client = users.model_copy(update={"component": "client", "arrivals": waiting})
        configuration = configured(users, client, gpu=False, seconds=10)
        with probe(configuration, OUTPUT=str(tmp_path / "output")) as (running, output):
            assert running.process.wait(timeout=90) == 0, output.read_text()

    result = ProbeResult.model_validate_json(output.read_text().splitlines()[-1])
    measured = {it.metric: float(it.value) for it in result.measurements}
    assert measured["users.latency.p99"] > 1700, "who is due when the stall begins waits for all of it"
    assert measured["client.latency.p99"] < measured["users.latency.p99"] / 2
    [slowest] = [it.latency.largest for it in result.streams if it.component == "client" and it.latency is not None]
    assert slowest > 1000, "it was there to be seen"


def test_a_service_that_only_fails_has_errors_and_no_latency(tmp_path: Path) -> None:
    with running_server({}, "http.server", "PORT") as server:
        missing = stream("other", Protocol.HTTP, server.port, path="/missing")
        with probe(configured(missing, gpu=False, seconds=1), OUTPUT=str(tmp_path / "lines")) as (process, output):
            assert process.process.wait(30) == 0, output.read_text()
        result = ProbeResult.model_validate_json(output.read_text().splitlines()[-1])

    assert {it.metric: it.value for it in result.measurements} == {"other.errorRate": "1", "other.throughput": "0"}
    assert len(result.errors) == 10
    assert result.streams[0].errors == (ErrorCount(kind="Status", count=10),)
    assert result.streams[0].latency is None
    assert result.errors[0].startswith("other: AnswerError: GET /missing: 404")


BAD = [
    ("", "COTUNE_PROBE: the whole"),
    ("{}", "COTUNE_PROBE: gpu"),
    (configured(stream("judge", Protocol.OPENAI_COMPLETIONS, 1), gpu=False), "judge: OpenAICompletions needs"),
    (configured(stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, 1), gpu=False), "stt: OpenAITranscriptions needs"),
    (configured(stream("stt", Protocol.OPENAI_TRANSCRIPTIONS, 1, corpus="/none"), gpu=False), "/none/transcripts.json"),
    (
        configured(
            stream("judge", Protocol.OPENAI_CHAT, 1, prompt_tokens=1, output_tokens=1, questions="/none"), gpu=False
        ),
        "/none: ",
    ),
    (configured(stream("other", Protocol.HTTP, 1, rate="0"), gpu=False), "ratePerSecond"),
    (
        configured(stream("other", Protocol.HTTP, 1), gpu=False).model_copy(
            update={"interference": ProbeInterference(duration_seconds=1, rounds=(("nobody",),))}
        ),
        "interference: no stream for nobody",
    ),
    (configured(stream("judge", Protocol.OPENAI_CHAT, 1, output_tokens=1, dataset="/none"), gpu=False), "/none: "),
    (
        configured(
            stream("other", Protocol.HTTP, 1).model_copy(update={"arrivals": Arrivals(type=ArrivalType.TRACE)}),
            gpu=False,
        ),
        "type Trace need a trace",
    ),
]


@pytest.mark.parametrize(("configuration", "words"), BAD)
def test_a_bad_configuration_ends_it_with_one_line(
    configuration: ProbeConfiguration | str, words: str, tmp_path: Path
) -> None:
    with probe(configuration, OUTPUT=str(tmp_path / "lines")) as (process, output):
        assert process.process.wait(30) == 2
        (line,) = output.read_text().splitlines()

    assert line.startswith("probe: error: ")
    assert words in line


def test_the_operator_can_read_the_contract_without_what_only_the_probe_installs() -> None:
    check = (
        "import sys, json, cotune.measurement.contract;"
        "print(json.dumps([it for it in ('aiohttp', 'pynvml', 'jiwer', 'hdrh', 'numpy') if it in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "operator" / "src")},
    )

    assert json.loads(done.stdout) == []
