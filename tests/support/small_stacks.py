"""Experiments of a few seconds on simulated servers, for tests on a real cluster.

Their load is of clients that wait for their answers. On a busy machine the probe itself is late, and trials of an open
loop then end, rightly, as `ProbeStarved`; these are about something else.
"""

from collections.abc import Mapping
from typing import Any

from localcluster.topology import DEFAULT_CARD

Manifest = dict[str, Any]

FAULT = "COTUNE_SIMULATION_FAULT"
SERVERS = "localhost/cotune/simulated-servers:dev"
_SECURITY: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def container(name: str, *command: str, **more: Any) -> Manifest:
    """A container of the simulated servers' image, as Pod Security `restricted` wants it."""
    made = {"name": name, "image": SERVERS, "imagePullPolicy": "IfNotPresent", "securityContext": _SECURITY}
    return made | {"command": list(command), **more}


def component(name: str, protocol: str, port: int, module: str, *arguments: str, **env: str) -> Manifest:
    """A simulated server with a share of the card."""
    variables = {"COTUNE_SIMULATION_STARTUP_SCALE": "0", **env}
    server = container(
        "server",
        *("python", "-m", f"cotune_simulation.{module}", *arguments),
        env=[{"name": key, "value": value} for key, value in variables.items()],
        readinessProbe={"httpGet": {"path": "/health", "port": port}, "periodSeconds": 1},
        resources={"limits": {"nvidia.com/gpu": "1"}},
    )
    spec: Manifest = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [server],
    }
    return {"name": name, "protocol": protocol, "port": port, "template": {"spec": spec}}


def neighbour(**env: str) -> Manifest:
    """Some service that takes 20 ms of the card for an answer."""
    return component("web", "HTTP", 8080, "neighbour", HOLD_MIB="256", KERNEL_MS="20", **env)


def language_model() -> Manifest:
    """A 7B model with a small cache."""
    arguments = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization=0.6", "--max-model-len=2048")
    return component("judge", "OpenAICompletions", 8000, "vllm", *arguments)


def speech_to_text(**env: str) -> Manifest:
    """Whisper tiny."""
    return component("stt", "OpenAITranscriptions", 9000, "whisper", ASR_WHISPER_SIZE="tiny", **env)


_STREAMS: Mapping[str, Manifest] = {
    "HTTP": {"path": "/embed"},
    "OpenAICompletions": {"promptTokens": 16, "outputTokens": 8},
    "OpenAITranscriptions": {"corpusRef": {"configMap": "speech"}},
}


def experiment(
    stack: Manifest, seconds: int, lies: tuple[str, ...] = (), arrivals: Manifest | None = None, streams: int = 1
) -> Manifest:
    """The spec of an experiment on one component.

    Args:
        stack: the component.
        seconds: the window.
        lies: faults of the server, each a candidate beside the honest baseline.
        arrivals: left out: two clients that wait for their answers.
        streams: so many of them alike.
    """
    name = stack["name"]
    stream = {"component": name, "arrivals": arrivals or {"type": "ClosedLoop", "concurrency": [2]}}
    constraints = [{"metric": f"{name}.errorRate", "max": "0"}]
    if stack["protocol"] == "OpenAITranscriptions":
        constraints.append({"metric": f"{name}.wer", "max": "0.15"})
    return {
        "gpu": {"product": DEFAULT_CARD, "sharing": "TimeSlicing"},
        "stack": {"components": [stack]},
        "parameters": [
            {
                "name": "fault",
                "bind": {"component": name, "env": FAULT},
                "values": ["none", *lies],
                "baseline": "none",
            }
        ],
        "workload": {
            "warmupSeconds": 0,
            "durationSeconds": seconds,
            "minimumSamples": 1,
            "streams": [stream | _STREAMS[stack["protocol"]]] * streams,
        },
        "objectives": [{"metric": f"{name}.latency.p95", "goal": "Minimize", "weight": "1"}],
        "constraints": constraints,
        "search": {"algorithm": "Grid", "maxTrials": 1 + len(lies), "repeats": 1},
        "evaluation": {"repeats": 2, "confidence": "0.66", "baselineEvery": 0},
    }
