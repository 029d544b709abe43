"""Stages with a probe, in profiles and grants: what the API server takes, and what it refuses where and why."""

from typing import Any

EXPERIMENT, PROFILE, GRANT = "GpuAllocationExperiment", "GpuProfile", "GpuTuningGrant"
STAGE = "rollout.stages.0"
PATH = "spec.rollout.stages[0]"

SPEECH: dict[str, Any] = {
    "component": "stt",
    "protocol": "OpenAITranscriptions",
    "arrivals": {"type": "Constant", "ratePerSecond": "2"},
    "corpusRef": {"configMap": "speech"},
}
CHAT: dict[str, Any] = {
    "component": "judge",
    "protocol": "OpenAIChat",
    "arrivals": {"ratePerSecond": "1.5"},
    "promptTokens": 512,
    "outputTokens": 64,
}
NOISY = SPEECH | {"corpusRef": {"configMap": "speech", "noise": {"snrDb": [10, -5]}}}
PROBE: dict[str, Any] = {"warmupSeconds": 5, "durationSeconds": 20, "runs": 3, "streams": [SPEECH, CHAT]}
"""Three times 25 s: they fit into the 120 s for which the valid example's first stage bakes."""


def gate(metric: str = "stt.latency.p95", requests: int = 30, name: str = "speech", **fields: Any) -> dict[str, Any]:
    """A gate that holds a figure of the probe against a number, unless `fields` say otherwise."""
    against = {} if "againstBaseline" in fields else {"max": "500"}
    return {"name": name, "probe": {"metric": metric, "minimumRequests": requests}} | against | fields


def stage(*gates: dict[str, Any], probe: dict[str, Any] | None = None) -> dict[str, Any]:
    """What changes in the valid profile."""
    return {f"{STAGE}.gates": list(gates or (gate(),)), f"{STAGE}.probe": PROBE if probe is None else probe}


def streams(*several: dict[str, Any]) -> dict[str, Any]:
    return PROBE | {"streams": list(several)}


AGAINST = {"goal": "Minimize", "tolerance": "0.1"}

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    (PROFILE, stage()),
    (PROFILE, stage(gate(), gate("judge.ttft.p95", name="first-token"), gate("judge.errorRate", name="errors"))),
    (PROFILE, stage(gate(againstBaseline=AGAINST))),
    (PROFILE, stage(gate("stt.wer.snrMinus5"), probe=streams(NOISY))),
    (PROFILE, stage(gate("stt.wer.clean"), probe=streams(NOISY))),
    (PROFILE, stage(gate(), probe=PROBE | {"runs": 4, "durationSeconds": 25})),
    (PROFILE, stage() | {"rollout.strategy": "Git"}),
    (GRANT, {"allow": ["CopySpec", "Rollout", "Probe"], "probe": {"maxRatePerSecond": "0.5"}}),
    (GRANT, {"targets.0.service": {"name": "whisper", "port": 8000}}),
    (EXPERIMENT, {f"profileTemplate.{key}": value for key, value in stage().items()}),
]

_AT_STREAM = f"{PATH}.probe.streams[0]"

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    *(
        (PROFILE, stage(gate(metric)), f"{PATH}.gates[0].probe.metric", reason)
        for metric, reason in (
            ("gpu.freeMiB", "no share of the card"),
            ("stability", "measures by its own requests"),
            ("stt.startup", "measures by its own requests"),
            ("judge.kvCache.tokens", "measures by its own requests"),
            ("stt.quality", "measures by its own requests"),
            ("stt.latency.p42", "measures by its own requests"),
        )
    ),
    *(
        (PROFILE, stage(gate(metric)), f"{PATH}.gates", "no stream of the probe measures")
        for metric in ("other.latency.p95", "judge.wer", "stt.ttft.p95", "stt.wer.snr10")
    ),
    (PROFILE, stage(gate("stt.wer.snr5"), probe=streams(NOISY)), f"{PATH}.gates", "no stream of the probe measures"),
    (PROFILE, stage(gate(promQL={"query": "x"})), f"{PATH}.gates[0]", "give either promQL or probe"),
    (PROFILE, {f"{STAGE}.gates": [{"name": "nothing", "max": "1"}]}, f"{PATH}.gates[0]", "either promQL or probe"),
    (PROFILE, stage(gate(minimumSamples=5)), f"{PATH}.gates[0].minimumSamples", "is for promQL"),
    (PROFILE, stage(gate(initialDelaySeconds=5)), f"{PATH}.gates[0].initialDelaySeconds", "is for promQL"),
    (PROFILE, {f"{STAGE}.gates": [gate()]}, f"{PATH}.probe", "a gate with a probe needs the stage's probe"),
    (PROFILE, {f"{STAGE}.probe": PROBE}, f"{PATH}.probe", "a gate that names one of its figures"),
    (PROFILE, stage(gate(requests=41)), f"{PATH}.probe.durationSeconds", "fewer requests are due in a run"),
    (PROFILE, stage(probe=PROBE | {"runs": 5}), f"{PATH}.bakeSeconds", "do not fit into bakeSeconds"),
    (PROFILE, stage(probe=PROBE | {"runs": 2}), f"{PATH}.probe.runs", "greater than or equal to 3"),
    (PROFILE, stage(probe=streams()), f"{PATH}.probe.streams", "at least 1 items"),
    *(
        (PROFILE, stage(probe=streams(SPEECH | change)), f"{_AT_STREAM}{path}", reason)
        for change, path, reason in (
            ({"arrivals": {"type": "ClosedLoop", "concurrency": [4]}}, ".arrivals.type", "only Poisson and Constant"),
            (
                {"arrivals": {"type": "Burst", "ratePerSecond": "2", "burstSize": 9}},
                ".arrivals.type",
                "only Poisson and Constant",
            ),
            ({"corpusRef": None}, "", "needs corpusRef"),
            ({"protocol": "OpenAIChat"}, "", "needs promptTokens"),
            ({"qualityRef": {"configMap": "q", "key": "q"}}, ".qualityRef", "on top of the rate"),
            ({"lengthSpread": "3"}, ".lengthSpread", "between 0 and 2"),
        )
    ),
    (
        PROFILE,
        stage(probe=streams(SPEECH, SPEECH | {"protocol": "HTTP"})),
        f"{PATH}.probe.streams",
        "have different protocols",
    ),
    (PROFILE, stage(probe=streams(SPEECH | {"warmupSeconds": 6})), f"{PATH}.probe.streams", "longer than the probe's"),
    (
        PROFILE,
        stage(probe=streams(SPEECH | {"arrivals": {"ratePerSecond": "1000"}}) | {"warmupSeconds": 981})
        | {f"{STAGE}.bakeSeconds": 3600},
        f"{PATH}.probe.streams",
        "more than 1000000 requests",
    ),
    (
        PROFILE,
        stage(probe=streams(SPEECH, CHAT | {"component": "other"})),
        "spec.rollout.stages",
        "must stand in startOrder",
    ),
    (
        PROFILE,
        stage(gate(againstBaseline=AGAINST)) | {"rollout.strategy": "Git"},
        "spec.rollout.stages",
        "nobody knows when the change comes",
    ),
    (
        EXPERIMENT,
        {
            f"profileTemplate.{key}": value
            for key, value in stage(probe=streams(SPEECH, CHAT | {"component": "other"})).items()
        },
        "spec.profileTemplate.rollout.stages",
        "must name components of the stack",
    ),
    (GRANT, {"allow": ["Rollout", "Probe"]}, "spec.probe", "say how much load may come"),
    (GRANT, {"probe": {"maxRatePerSecond": "1"}}, "spec.probe", "say how much load may come"),
    (
        GRANT,
        {"allow": ["Probe"], "probe": {"maxRatePerSecond": "0"}},
        "spec.probe.maxRatePerSecond",
        "greater than 0",
    ),
    (GRANT, {"targets.0.service": {"name": "whisper", "port": 0}}, "spec.targets[0].service.port", "equal to 1"),
    (GRANT, {"targets.0.service": {"name": "a.b", "port": 1}}, "spec.targets[0].service.name", "should match"),
]
