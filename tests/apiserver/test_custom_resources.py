"""Every rule of the resources, with an accepted and a refused example, against a real API server."""

import copy
import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from support import probed_stages
from support.api_server import Answer, ApiServer

RESOURCES = Path(__file__).parents[1] / "data" / "resources"
KINDS = sorted(path.stem for path in RESOURCES.glob("*.yaml"))
EXPERIMENT, PROFILE, TRIAL, GRANT = "GpuAllocationExperiment", "GpuProfile", "GpuTrial", "GpuTuningGrant"
ABSENT = object()

pytestmark = pytest.mark.apiserver


def resource(kind: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The valid example of a kind with some fields changed; `parameters.0.baseline` is a path below spec."""
    manifest = cast("dict[str, Any]", copy.deepcopy(yaml.safe_load((RESOURCES / f"{kind}.yaml").read_text())))
    for path, value in (changes or {}).items():
        node: Any = manifest["spec"]
        keys: list[Any] = [int(key) if key.isdigit() else key for key in path.split(".")]
        *parents, last = keys
        for key in parents:
            node = node[key]
        if value is ABSENT:
            del node[last]
        elif isinstance(node, list) and last == len(cast("list[Any]", node)):
            cast("list[Any]", node).append(value)
        else:
            node[last] = value
    return manifest


SECOND_JUDGE: dict[str, Any] = {
    "name": "judge2",
    "protocol": "HTTP",
    "port": 80,
    "template": {"spec": {"containers": []}},
}
JUDGE_STREAM = {"component": "judge", "arrivals": {"ratePerSecond": "1"}, "promptTokens": 1, "outputTokens": 1}
STT_STREAM = {"component": "stt", "arrivals": {"ratePerSecond": "1"}, "corpusRef": {"configMap": "speech"}}
CPU_OBJECTIVES = [{"metric": "stt.latency.p95", "goal": "Minimize", "weight": "1"}]
FILE = {"configMap": "load", "key": "prompts.jsonl"}
BURSTS = {"type": "Burst", "ratePerSecond": "10", "burstSize": 5}
TRACE = {"type": "Trace", "traceRef": {"configMap": "load", "key": "trace.jsonl"}}
SWEEP = {"type": "ClosedLoop", "concurrency": [1, 2, 4]}
DIGEST = "a" * 64
SOURCES: dict[str, Any] = {
    "persistentVolumeClaim": {"claimName": "speech.v1", "path": "clean/en"},
    "image": {"reference": "registry.example.com/speech@sha256:" + DIGEST, "path": "clips", "pullPolicy": "Always"},
    "url": {"url": "https://example.com/speech.tar.gz?version=2", "sha256": DIGEST},
}
NOISE: dict[str, Any] = {"snrDb": [-5, 0, 10], "type": "Babble", "seed": 3}
BAD_NOISES: list[tuple[dict[str, Any], str]] = [
    ({"snrDb": []}, "at least 1 items"),
    ({"snrDb": [10, 10]}, "Duplicate value"),
    ({"snrDb": [41]}, "less than or equal to 40"),
    ({"snrDb": [-21]}, "greater than or equal to -20"),
    ({"type": "Brown"}, "Unsupported value"),
]
NOISY_STREAM = STT_STREAM | {"corpusRef": {"configMap": "speech", "noise": NOISE}}
QUESTIONS = {"configMap": "quality", "key": "questions.jsonl"}
RANGE = {"min": "0.40", "max": "0.60", "step": "0.05"}
CHANGE = {"component": "stt", "env": "ASR_WHISPER_SIZE", "from": "small", "to": "tiny"}
BY_MPS: dict[str, Any] = {
    "name": "sharing",
    "bind": {"gpu": "sharing"},
    "values": ["TimeSlicing", "MPS"],
    "baseline": "TimeSlicing",
}
QUERY: dict[str, Any] = {"query": "avg(stt_latency_seconds)", "stepSeconds": 10}
GATE: dict[str, Any] = {"name": "latency", "promQL": QUERY, "max": "0.4"}
AGAINST: dict[str, Any] = {
    "name": "latency",
    "promQL": QUERY,
    "againstBaseline": {"goal": "Minimize", "tolerance": "0.05", "windowSeconds": 600},
}
BAD_WINDOWS: list[tuple[dict[str, Any], str, str]] = [
    ({"days": []}, "days", "at least 1 items"),
    ({"days": ["Sunday", "Sunday"]}, "days[1]", "Duplicate value"),
    ({"days": ["Holiday"]}, "days[0]", "Unsupported value"),
    ({"from": "7:00"}, "from", "should match"),
    ({"from": "24:00"}, "from", "should match"),
    ({"to": "24:01"}, "to", "should match"),
    ({"from": "07:00", "to": "07:00"}, "to", "the same time"),
    ({"timeZone": "Local"}, "timeZone", "not a time zone"),
    ({"timeZone": "Mars/Phobos"}, "timeZone", "unknown time zone"),
    ({"timeZone": "+02:00"}, "timeZone", "should match"),
]
ROUNDS: dict[str, Any] = {"durationSeconds": 30}
SLOWDOWN = {"metric": "stt.slowdown.p95", "goal": "Minimize", "weight": "1"}
NINE_SERVICES: list[dict[str, Any]] = [SECOND_JUDGE | {"name": f"service{it}"} for it in range(9)]
NINE_STREAMS: list[dict[str, Any]] = [
    {"component": it["name"], "arrivals": {"ratePerSecond": "1"}} for it in NINE_SERVICES
]
NINE: dict[str, Any] = {
    "stack.components": NINE_SERVICES,
    "workload.streams": NINE_STREAMS,
    "parameters.0.bind.component": "service0",
    "parameters.1.bind.component": "service1",
    "objectives": [{"metric": "service0.latency.p95", "goal": "Minimize", "weight": "1"}],
    "constraints": [],
}

SELECTED: dict[str, Any] = {
    "allow": ["Rollout"],
    "stackLabel": "example.com/stack",
    "targets": [
        {
            "component": it,
            "workloadSelector": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "matchLabels": {"app.example/part": it},
            },
            "container": "main",
        }
        for it in ("stt", "judge")
    ],
}
NAMED_TARGET = {
    "component": "chat",
    "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
    "container": "main",
}

FROM_PRODUCTION: dict[str, Any] = {"fromNamespace": {"name": "voice-prod"}}
COPIED: dict[str, Any] = {
    "stack.fromNamespace": {"name": "voice-prod"},
    "stack.components.0.template": ABSENT,
    "stack.components.1.template": ABSENT,
}

QUIESCE: dict[str, Any] = {
    "namespace": "voice-prod",
    "window": {"from": "01:00", "to": "05:00", "timeZone": "Europe/Berlin"},
    "maximumSeconds": 7200,
    "restorationSeconds": 600,
}

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    (EXPERIMENT, {"gpu": ABSENT, "objectives": CPU_OBJECTIVES, "constraints": []}),
    (EXPERIMENT, {"gpu.sharing": "MPS"}),
    (EXPERIMENT, {"parameters.0.baseline": "0.40"}),
    (EXPERIMENT, {"parameters.0.baseline": "0.6"}),
    (EXPERIMENT, {"parameters.1.baseline": "tiny"}),
    (EXPERIMENT, {"workload.streams.0.arrivals.type": "Constant"}),
    (EXPERIMENT, {"workload.streams.0.arrivals.ratePerSecond": "1000"}),
    (EXPERIMENT, {"workload.cooldownSeconds": 10, "workload.streams.0.warmupSeconds": 5}),
    (EXPERIMENT, {"workload.streams.0.timeoutSeconds": 3}),
    *((EXPERIMENT, {"workload.streams.0.arrivals": arrivals}) for arrivals in (BURSTS, TRACE, SWEEP)),
    (EXPERIMENT, {"stack.components.0.protocol": "OpenAIChat"}),
    (EXPERIMENT, {"workload.streams.1.promptTokens": ABSENT, "workload.streams.1.datasetRef": FILE}),
    (EXPERIMENT, {"workload.streams.1.lengthSpread": "0.5", "workload.streams.1.sharedPrefixTokens": 511}),
    *((EXPERIMENT, {"workload.streams.0.corpusRef": {name: source}}) for name, source in SOURCES.items()),
    (EXPERIMENT, {"workload.streams.0.corpusRef": {"image": {"reference": "speech:1"}}}),
    *(
        (EXPERIMENT, {"workload.streams.0": NOISY_STREAM, "constraints.1.metric": f"stt.wer.{condition}"})
        for condition in ("clean", "snr10", "snr0", "snrMinus5")
    ),
    (EXPERIMENT, {"workload.streams.0": NOISY_STREAM, "objectives.0.metric": "stt.wer.snr0"}),
    (EXPERIMENT, {"workload.streams.1.qualityRef": QUESTIONS, "constraints.2.metric": "judge.quality"}),
    (EXPERIMENT, {"workload.streams.1.qualityRef": QUESTIONS, "objectives.1.metric": "judge.quality"}),
    (EXPERIMENT, {"constraints.0": {"metric": "gpu.freeMiB", "min": "100", "max": "100"}}),
    (EXPERIMENT, {"profileTemplate": ABSENT}),
    (EXPERIMENT, {"stack.components.0.memory": {"model": "VLLM", "configRef": {"configMap": "models"}}}),
    (EXPERIMENT, {"stack.components.0.memory": {"model": "Whisper", "sizeEnv": "SIZE"}}),
    (EXPERIMENT, {"stack.components.0.memory": {"model": "Declared", "memoryMiB": 0}}),
    (EXPERIMENT, {"stack.components.0.memory": {"model": "Learned"}}),
    *(
        (EXPERIMENT, {"stack.components.0.memory": {"model": "Whisper", "sizeEnv": "SIZE", **more}})
        for more in (
            {"precision": "float32"},
            {"backend": "FasterWhisper", "precision": "int8_float16", "beams": 5},
            {"backend": "OpenAIWhisper", "precisionEnv": "PRECISION"},
        )
    ),
    (
        EXPERIMENT,
        {
            "stack.components.0.memory": {
                "model": "VLLM",
                "configRef": {"configMap": "models", "weightsKey": "model.safetensors.index.json"},
                "serverVersion": "0.26.0",
            }
        },
    ),
    (EXPERIMENT, {"search": {}}),
    (EXPERIMENT, {"planning": {"probeSkipped": "0.25"}}),
    (EXPERIMENT, {"evaluation": {"repeats": 2, "confidence": "0.66"}}),
    (EXPERIMENT, {"evaluation": {"repeats": 3, "confidence": "0.90"}}),
    (EXPERIMENT, {"evaluation": {"repeats": 4, "confidence": "0.97"}}),
    (EXPERIMENT, {"evaluation": {"repeats": 5, "confidence": "0.99", "baselineEvery": 0}}),
    (EXPERIMENT, {"evaluation": {"confidence": "0.5"}}),
    (EXPERIMENT, {"parameters.2": BY_MPS}),
    (EXPERIMENT, {"parameters.2": BY_MPS, "gpu.sharing": ABSENT}),
    (EXPERIMENT, {"parameters.2": BY_MPS | {"baseline": "MPS"}, "gpu.sharing": "MPS"}),
    (EXPERIMENT, {"parameters.2": BY_MPS | {"values": ["Exclusive", "TimeSlicing"]}}),
    (EXPERIMENT, {"workload.interference": ROUNDS}),
    (EXPERIMENT, {"workload.interference": ROUNDS | {"pairs": True, "trials": "BaselineAndConfirmation"}}),
    (EXPERIMENT, {"workload.interference": ROUNDS, "objectives.0": SLOWDOWN}),
    (EXPERIMENT, {"workload.interference": ROUNDS, "constraints.0": {"metric": "judge.slowdown.p95", "max": "2"}}),
    (EXPERIMENT, NINE | {"workload.interference": ROUNDS}),
    (EXPERIMENT, COPIED),
    (EXPERIMENT, COPIED | {"profileTemplate": ABSENT}),
    (EXPERIMENT, {"validation": FROM_PRODUCTION}),
    (PROFILE, {"expect": {"sharing": "MPS"}}),
    (PROFILE, {"expect": {}}),
    (PROFILE, {"expect": {"startupSeconds": [{"component": "judge", "seconds": 74}]}}),
    (PROFILE, {"rollout.stages.0.guardSeconds": 0}),
    (PROFILE, {"rollout.stages.0.downtimeBudget": {"secondsPerDay": 120}}),
    (GRANT, {"downtimeBudget": {"secondsPerDay": 120, "cooldownSeconds": 3600, "onUnknown": "Begin"}}),
    (
        PROFILE,
        {"rollout.stages.0.downtimeBudget": {"secondsPerDay": 1, "cooldownSeconds": 604800, "onUnknown": "Begin"}},
    ),
    (PROFILE, {"rollout.stages.0.guardSeconds": 604800}),
    (PROFILE, {"rollout.stages.0.unschedulableGraceSeconds": 300, "rollout.stages.0.readinessDeadlineSeconds": 300}),
    (PROFILE, {"rollout.stages.0.readinessDeadlineSeconds": 1}),
    (TRIAL, {"purpose": "Confirmation"}),
    (PROFILE, {"rollout.strategy": "Git"}),
    (PROFILE, {"rollout.paused": True}),
    (PROFILE, {"rollout.abort": True}),
    (PROFILE, {"rollout.retries": 3}),
    (PROFILE, {"rollout.stages.0.gates": [GATE]}),
    (PROFILE, {"rollout.stages.0.gates": [GATE | {"max": None, "min": "-1"}]}),
    (PROFILE, {"rollout.stages.0.gates": [AGAINST, GATE | {"name": "other", "dryRun": True, "onUndecided": "Pass"}]}),
    # 90 s of samples after 30 s just fit into the bake time.
    (PROFILE, {"rollout.stages.0.gates": [GATE | {"initialDelaySeconds": 30}]}),
    (PROFILE, {"rollout.stages.0.window": {}}),
    (
        PROFILE,
        {"rollout.stages.0.window": {"days": ["Saturday"], "from": "22:00", "to": "05:00", "timeZone": "Asia/Tokyo"}},
    ),
    (PROFILE, {"changes.0.from": ABSENT, "provenance": ABSENT}),
    (PROFILE, {"provenance.artifact": f"sha256:{'0' * 64}"}),
    *(
        (PROFILE, {"rollout.stages.0.batches": batches, "rollout.stages.0.batchesBy": by})
        for batches, by in (
            (["1", "50%", "100%"], "Stack"),
            (["25%", "3"], "Node"),
            (["9999"], "Node"),
            (["1%"], "Stack"),
        )
    ),
    (EXPERIMENT, {"profileTemplate.rollout.stages.0.batches": ["1", "100%"]}),
    (PROFILE, {"rollout.strategy": "Git", "rollout.stages.0.batches": ["100%"]}),
    (GRANT, SELECTED),
    (GRANT, SELECTED | {"targets.0.workloadSelector.matchLabels": {"stack": "", "example.com/a.B_c": "x.Y_z"}}),
    *probed_stages.ACCEPTED,
    (GRANT, {"targets.1.env": []}),
    (GRANT, {"allow": ["Rollout"]}),
    (GRANT, {"allow": ["Quiesce"], "quiesce": {"maximumSeconds": 7200}}),
    (GRANT, {"allow": ["Quiesce"], "quiesce": {"maximumSeconds": 60, "window": {"days": ["Sunday"]}}}),
    (EXPERIMENT, {"quiesce": QUIESCE}),
    (EXPERIMENT, {"quiesce": QUIESCE | {"startOrder": ["judge", "stt"], "trialSeconds": 6600}}),
    (GRANT, {"allow": ["CopySpec", "Rollout", "Surge"]}),
    (
        GRANT,
        {
            "allow": ["CopySpec", "Rollout", "Quiesce", "Probe", "Surge"],
            "quiesce": {"maximumSeconds": 7200},
            "probe": {"maxRatePerSecond": "4"},
        },
    ),
    *((PROFILE, {"rollout.stages.0.surge": it}) for it in ("Never", "IfRoom", "Require")),
    (PROFILE, {"rollout.strategy": "Git", "rollout.stages.0.surge": "Never"}),
    (GRANT, {"targets.0.ignoredByGitOps": True}),
    (GRANT, {"targets.0.copyEnv": ["SCALE", "HOLD_MIB"], "targets.0.memoryMiB": 0}),
    (TRIAL, {"stackRef": "voice.v1-stack-0123456789"}),
]

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    *(
        (PROFILE, {"rollout.stages.0.batches": batches}, f"spec.rollout.stages[0].batches{where}", words)
        for batches, where, words in (
            ([], "", "at least 1 items"),
            (["0"], "[0]", "should match"),
            (["50"] * 17, "", "at most 16 items"),
            (["half"], "[0]", "should match"),
            (["101%"], "[0]", "should match"),
            (["0%"], "[0]", "should match"),
            (["2", "1"], "", "must be greater than those before"),
            (["50%", "3", "50%"], "", "must be greater than those before"),
            (["100%", "5"], "", "nothing is left for a batch after 100%"),
        )
    ),
    (PROFILE, {"rollout.stages.0.batchesBy": "Replica"}, "spec.rollout.stages[0].batchesBy", "Unsupported value"),
    (
        PROFILE,
        {"rollout.strategy": "Git", "rollout.stages.1.batches": ["1", "100%"]},
        "spec.rollout.stages",
        "leave batches out",
    ),
    (
        EXPERIMENT,
        {"profileTemplate.rollout.stages.0.batches": ["2", "1"]},
        "spec.profileTemplate.rollout.stages[0].batches",
        "must be greater than those before",
    ),
    (GRANT, SELECTED | {"allow": ["CopySpec", "Rollout"]}, "spec.allow", "are for one stack"),
    (GRANT, SELECTED | {"stackLabel": None}, "spec.stackLabel", "give both or neither"),
    (GRANT, SELECTED | {"stackLabel": "-a"}, "spec.stackLabel", "should match"),
    (GRANT, {"stackLabel": "example.com/stack"}, "spec.stackLabel", "give both or neither"),
    (GRANT, SELECTED | {"targets.2": NAMED_TARGET}, "spec.targets", "every target has a workloadSelector or none"),
    (
        GRANT,
        SELECTED | {"targets.0.workloadRef": NAMED_TARGET["workloadRef"]},
        "spec.targets[0].workloadRef",
        "either workloadRef, one workload, or workloadSelector",
    ),
    (GRANT, {"targets.0.workloadRef": ABSENT}, "spec.targets[0].workloadRef", "either workloadRef, one workload"),
    *(
        (GRANT, SELECTED | {"targets.0.workloadSelector.matchLabels": labels}, f"spec.targets[0].{path}", words)
        for labels, path, words in (
            ({}, "workloadSelector.matchLabels", "at least 1 properties"),
            ({f"a{it}": "b" for it in range(9)}, "workloadSelector.matchLabels", "at most 8 items"),
            ({"-a": "b"}, "workloadSelector.matchLabels", "a key is no key of a label"),
            ({"a/b/c": "b"}, "workloadSelector.matchLabels", "a key is no key of a label"),
            ({"a": "b c"}, "workloadSelector.matchLabels.a", "should match"),
        )
    ),
    (
        GRANT,
        SELECTED | {"targets.0.workloadSelector.kind": "Pod"},
        "spec.targets[0].workloadSelector.kind",
        "Unsupported",
    ),
    (
        EXPERIMENT,
        {"gpu": ABSENT, "objectives": CPU_OBJECTIVES, "constraints": [], "quiesce": QUIESCE},
        "spec.quiesce",
        "the trials take no card",
    ),
    (EXPERIMENT, {"quiesce": QUIESCE | {"maximumSeconds": 600}}, "spec.quiesce.maximumSeconds", "do not fit"),
    (EXPERIMENT, {"quiesce": QUIESCE | {"trialSeconds": 6601}}, "spec.quiesce.maximumSeconds", "do not fit"),
    (EXPERIMENT, {"quiesce": QUIESCE | {"maximumSeconds": 86401}}, "spec.quiesce.maximumSeconds", "86400"),
    (EXPERIMENT, {"quiesce": QUIESCE | {"startOrder": ["stt", "stt"]}}, "spec.quiesce.startOrder", "twice"),
    (EXPERIMENT, {"quiesce": QUIESCE | {"window": {"timeZone": "Berlin"}}}, "spec.quiesce.window.timeZone", "IANA"),
    (EXPERIMENT, {"quiesce": QUIESCE | {"namespace": "Production"}}, "spec.quiesce.namespace", "should match"),
    (GRANT, {"allow": ["Quiesce"]}, "spec.quiesce", "give both or neither"),
    (GRANT, {"quiesce": {"maximumSeconds": 60}}, "spec.quiesce", "give both or neither"),
    (EXPERIMENT, {"stack.components.0.name": "gpu"}, "spec.stack.components[0].name", "reserved"),
    (
        EXPERIMENT,
        {"profileTemplate.rollout.stages.0.toRevision": "cotune-0123456789"},
        "spec.profileTemplate.rollout.stages",
        "say it in the profile",
    ),
    (EXPERIMENT, {"stack.components.0.name": "probe"}, "spec.stack.components[0].name", "reserved"),
    *(
        (
            EXPERIMENT,
            {"stack.components.0.memory": memory},
            f"spec.stack.components[0].memory.{field}",
            "belongs to model",
        )
        for memory, field in (
            ({"model": "VLLM"}, "configRef"),
            ({"model": "Whisper", "sizeEnv": "SIZE", "configRef": {"configMap": "models"}}, "configRef"),
            ({"model": "Declared"}, "memoryMiB"),
            ({"model": "Whisper", "sizeEnv": "SIZE", "memoryMiB": 1}, "memoryMiB"),
            ({"model": "Whisper"}, "sizeEnv"),
            ({"model": "Declared", "memoryMiB": 1, "sizeEnv": "SIZE"}, "sizeEnv"),
            ({"model": "Learned", "memoryMiB": 1}, "memoryMiB"),
        )
    ),
    *(
        (EXPERIMENT, {"stack.components.0.memory": memory}, f"spec.stack.components[0].memory{field}", words)
        for memory, field, words in (
            ({"model": "Learned", "beams": 5}, ".model", "belong to model Whisper only"),
            (
                {"model": "Declared", "memoryMiB": 1, "backend": "FasterWhisper"},
                ".model",
                "belong to model Whisper only",
            ),
            ({"model": "Whisper", "sizeEnv": "SIZE", "precision": "int8"}, ".precision", "float16 or float32"),
            ({"model": "Whisper", "sizeEnv": "SIZE", "precision": "float8"}, ".precision", "should match"),
            (
                {"model": "Whisper", "sizeEnv": "SIZE", "precision": "float16", "precisionEnv": "PRECISION"},
                "",
                "give precision or precisionEnv, not both",
            ),
            (
                {"model": "Whisper", "sizeEnv": "SIZE", "serverVersion": "0.26"},
                ".serverVersion",
                "belongs to model VLLM only",
            ),
            (
                {"model": "VLLM", "configRef": {"configMap": "models"}, "serverVersion": "latest"},
                ".serverVersion",
                "should match",
            ),
        )
    ),
    (EXPERIMENT, {"stack.components.0.name": "stability"}, "spec.stack.components[0].name", "reserved"),
    (EXPERIMENT, {"stack.components.0.name": "Judge"}, "spec.stack.components[0].name", "should match"),
    (EXPERIMENT, {"stack.components.0.port": 70000}, "spec.stack.components[0].port", "less than or equal to 65535"),
    (EXPERIMENT, {"stack.components.0.protocol": "gRPC"}, "spec.stack.components[0].protocol", "Unsupported value"),
    (EXPERIMENT, {"stack.components.0.template": ABSENT}, "spec.stack.components", "every component needs a template"),
    (
        EXPERIMENT,
        {"stack.fromNamespace": {"name": "voice-prod"}, "stack.components.1.template": ABSENT},
        "spec.stack.components",
        "templates are copied fromNamespace",
    ),
    (EXPERIMENT, COPIED | {"stack.fromNamespace": {"name": "Voice"}}, "spec.stack.fromNamespace.name", "should match"),
    (EXPERIMENT, COPIED | {"stack.fromNamespace": {}}, "spec.stack.fromNamespace.name", "Required value"),
    (
        EXPERIMENT,
        {"validation": FROM_PRODUCTION, "profileTemplate": ABSENT},
        "spec.validation",
        "only what goes into a profile is validated",
    ),
    (EXPERIMENT, {"validation": {}}, "spec.validation.fromNamespace", "Required value"),
    (EXPERIMENT, {"stack.components.0.dependsOn": ["stt"]}, "spec.stack.components", "stand earlier in the list"),
    (EXPERIMENT, {"stack.components.1.dependsOn": ["stt"]}, "spec.stack.components", "stand earlier in the list"),
    (EXPERIMENT, {"stack.components.1.dependsOn": ["nobody"]}, "spec.stack.components", "stand earlier in the list"),
    (EXPERIMENT, {"stack.components.1.name": "judge"}, "spec.stack.components[1]", "Duplicate value"),
    (EXPERIMENT, {"stack.components": []}, "spec.stack.components", "at least 1 items"),
    (EXPERIMENT, {"stack.components.2": SECOND_JUDGE}, "spec.workload.streams", "every component needs a stream"),
    (EXPERIMENT, {"parameters.0.values": ["0.50"]}, "spec.parameters[0]", "either range or values"),
    (EXPERIMENT, {"parameters.0.range": ABSENT}, "spec.parameters[0]", "either range or values"),
    (EXPERIMENT, {"parameters.0.baseline": "0.7"}, "spec.parameters[0].baseline", "within range"),
    (EXPERIMENT, {"parameters.0.baseline": "half"}, "spec.parameters[0].baseline", "must be a decimal number"),
    (EXPERIMENT, {"parameters.0.baseline": ABSENT}, "spec.parameters[0].baseline", "Required value"),
    (EXPERIMENT, {"parameters.1.baseline": "medium"}, "spec.parameters[1].baseline", "must be one of values"),
    (EXPERIMENT, {"parameters.1.values": ["tiny", "tiny"]}, "spec.parameters[1].values[1]", "Duplicate value"),
    (EXPERIMENT, {"parameters.0.range": RANGE | {"min": "0.60"}}, "spec.parameters[0].range.min", "smaller than max"),
    (EXPERIMENT, {"parameters.0.range": RANGE | {"step": "0"}}, "spec.parameters[0].range.step", "greater than 0"),
    (EXPERIMENT, {"parameters.0.range": RANGE | {"step": "0.00001"}}, "spec.parameters[0].range.step", "1000 steps"),
    (EXPERIMENT, {"parameters.0.range": RANGE | {"max": "1e3"}}, "spec.parameters[0].range.max", "should match"),
    (EXPERIMENT, {"parameters.0.bind.component": "nobody"}, "spec.parameters", "must name a component"),
    (EXPERIMENT, {"parameters.0.bind.env": "1BAD"}, "spec.parameters[0].bind.env", "should match"),
    (EXPERIMENT, {"parameters.0.bind.env": ABSENT}, "spec.parameters[0].bind", "either component and env, or gpu"),
    (EXPERIMENT, {"parameters.0.bind.gpu": "sharing"}, "spec.parameters[0].bind", "either component and env, or gpu"),
    (EXPERIMENT, {"parameters.2": BY_MPS | {"bind": {"gpu": "clock"}}}, "spec.parameters[2].bind.gpu", "Unsupported"),
    (
        EXPERIMENT,
        {"parameters.2": BY_MPS | {"values": ["TimeSlicing", "Magic"]}},
        "spec.parameters[2].values",
        "Exclusive, TimeSlicing and MPS",
    ),
    (
        EXPERIMENT,
        {"parameters.0.bind": {"gpu": "sharing"}},
        "spec.parameters[0].range",
        "sharing has values, and no range",
    ),
    (
        EXPERIMENT,
        {"parameters.2": BY_MPS, "parameters.3": BY_MPS | {"name": "again"}},
        "spec.parameters",
        "two parameters are bound to the card's sharing",
    ),
    (
        EXPERIMENT,
        {"parameters.2": BY_MPS, "gpu": ABSENT, "objectives": CPU_OBJECTIVES, "constraints": []},
        "spec.parameters",
        "no parameter is bound to a card",
    ),
    (EXPERIMENT, {"parameters.2": BY_MPS, "gpu.sharing": "MPS"}, "spec.gpu.sharing", "must be the baseline"),
    (EXPERIMENT, {"gpu.sharing": "Magic"}, "spec.gpu.sharing", "Unsupported value"),
    (EXPERIMENT, {"objectives.0": SLOWDOWN}, "spec.objectives", "slowdown needs workload.interference"),
    (
        EXPERIMENT,
        {"workload.interference": ROUNDS | {"trials": "BaselineAndConfirmation"}, "objectives.0": SLOWDOWN},
        "spec.objectives",
        "slowdown needs workload.interference, in All trials",
    ),
    (
        EXPERIMENT,
        {"constraints.0": {"metric": "judge.slowdown.p95", "max": "2"}},
        "spec.constraints",
        "slowdown needs workload.interference",
    ),
    (EXPERIMENT, {"workload.interference": {}}, "spec.workload.interference.durationSeconds", "Required value"),
    (
        EXPERIMENT,
        {"workload.interference": {"durationSeconds": 86_400}, "workload.streams.0.arrivals.ratePerSecond": "100"},
        "spec.workload.interference",
        "in a round of interference",
    ),
    (
        EXPERIMENT,
        {
            "workload.interference": ROUNDS,
            "stack.components": [SECOND_JUDGE | {"name": "judge"}],
            "parameters": [BY_MPS],
            "workload.streams": [{"component": "judge", "arrivals": {"ratePerSecond": "1"}}],
            "objectives": [{"metric": "judge.latency.p95", "goal": "Minimize", "weight": "1"}],
            "constraints": [],
        },
        "spec.workload.interference",
        "a single service has nobody",
    ),
    (
        EXPERIMENT,
        NINE | {"workload.interference": ROUNDS | {"pairs": True}},
        "spec.workload.interference.pairs",
        "pairs are measured of at most 8 services",
    ),
    (PROFILE, {"expect": {"sharing": "Magic"}}, "spec.expect.sharing", "Unsupported value"),
    (
        PROFILE,
        {"expect": {"startupSeconds": [{"component": "tts", "seconds": 74}]}},
        "spec.expect.startupSeconds",
        "every component whose start is expected must stand in startOrder",
    ),
    (
        PROFILE,
        {"expect": {"startupSeconds": [{"component": "judge", "seconds": 0}]}},
        "spec.expect.startupSeconds[0].seconds",
        "greater than or equal to 1",
    ),
    (
        PROFILE,
        {"expect": {"startupSeconds": [{"component": "judge", "seconds": 1}, {"component": "judge", "seconds": 2}]}},
        "spec.expect.startupSeconds[1]",
        "Duplicate value",
    ),
    (
        PROFILE,
        {"rollout.stages.0.guardSeconds": 604801},
        "spec.rollout.stages[0].guardSeconds",
        "less than or equal to 604800",
    ),
    (
        EXPERIMENT,
        {"parameters.1.bind": {"component": "judge", "env": "JUDGE_MEMORY"}},
        "spec.parameters",
        "bound to the same environment variable",
    ),
    (EXPERIMENT, {"workload.streams.0.component": "nobody"}, "spec.workload.streams", "must name a component"),
    (EXPERIMENT, {"workload.streams": [JUDGE_STREAM]}, "spec.workload.streams", "every component needs a stream"),
    (EXPERIMENT, {"workload.streams.0.corpusRef": ABSENT}, "spec.workload.streams", "needs corpusRef"),
    (EXPERIMENT, {"workload.streams.1.promptTokens": ABSENT}, "spec.workload.streams", "needs promptTokens"),
    (
        EXPERIMENT,
        {"stack.components.0.protocol": "OpenAIChat", "workload.streams.1.outputTokens": ABSENT},
        "spec.workload.streams",
        "needs promptTokens (or datasetRef) and outputTokens",
    ),
    *(
        (EXPERIMENT, {"workload.streams.0.arrivals": arrivals}, "spec.workload.streams[0].arrivals", words)
        for arrivals, words in (
            ({"type": "Poisson"}, "ratePerSecond belongs to"),
            (TRACE | {"ratePerSecond": "1"}, "ratePerSecond belongs to"),
            (BURSTS | {"type": "Constant"}, "burstSize belongs to"),
            ({"type": "Burst", "ratePerSecond": "1"}, "burstSize belongs to"),
            ({"type": "Trace"}, "traceRef belongs to"),
            ({"type": "ClosedLoop"}, "concurrency belongs to"),
            (SWEEP | {"type": "Poisson", "ratePerSecond": "1"}, "concurrency belongs to"),
        )
    ),
    *(
        (EXPERIMENT, {"workload.streams.0.corpusRef": corpus}, "spec.workload.streams[0].corpusRef", "exactly one of")
        for corpus in ({}, {"configMap": "speech", "url": SOURCES["url"]}, {"noise": NOISE})
    ),
    *(
        (
            EXPERIMENT,
            {"workload.streams.0.corpusRef": {name: SOURCES[name] | change}},
            f"spec.workload.streams[0].corpusRef.{name}.{field}",
            words,
        )
        for name, change, field, words in (
            ("persistentVolumeClaim", {"path": "../secrets"}, "path", "should match"),
            ("persistentVolumeClaim", {"path": "/etc"}, "path", "should match"),
            ("persistentVolumeClaim", {"claimName": "Speech"}, "claimName", "should match"),
            ("image", {"path": "a/../b"}, "path", "should match"),
            ("image", {"reference": "two words"}, "reference", "should match"),
            ("image", {"pullPolicy": "Sometimes"}, "pullPolicy", "Unsupported value"),
            ("url", {"url": "ftp://example.com/speech.tar"}, "url", "should match"),
            ("url", {"url": "https://user:word@example.com/speech.tar"}, "url", "should match"),
            ("url", {"sha256": "A" * 64}, "sha256", "should match"),
        )
    ),
    *(
        (
            EXPERIMENT,
            {"workload.streams.0.corpusRef": {"configMap": "speech", "noise": NOISE | change}},
            "spec.workload.streams[0].corpusRef.noise",
            words,
        )
        for change, words in BAD_NOISES
    ),
    *(
        (EXPERIMENT, {"workload.streams.0": stream, f"{named}.1.metric": metric}, f"spec.{named}", "under a condition")
        for named in ("objectives", "constraints")
        for stream, metric in (
            (STT_STREAM, "stt.wer.snr10"),
            (NOISY_STREAM, "stt.wer.snr20"),
            (NOISY_STREAM, "stt.wer.snr5"),
            (NOISY_STREAM, "judge.wer.snr10"),
            (STT_STREAM | {"corpusRef": {"configMap": "speech", "noise": NOISE | {"clean": False}}}, "stt.wer.clean"),
        )
    ),
    *(
        (EXPERIMENT, {f"{named}.1.metric": "judge.quality"}, f"spec.{named}", "has qualityRef")
        for named in ("objectives", "constraints")
    ),
    (EXPERIMENT, {"workload.streams.0.qualityRef": QUESTIONS}, "spec.workload.streams", "qualityRef belongs to"),
    (
        EXPERIMENT,
        {"workload.streams.1.sharedPrefixTokens": 512},
        "spec.workload.streams[1].sharedPrefixTokens",
        "smaller than promptTokens",
    ),
    (
        EXPERIMENT,
        {"workload.streams.1.lengthSpread": "2.1"},
        "spec.workload.streams[1].lengthSpread",
        "between 0 and 2",
    ),
    (
        EXPERIMENT,
        {
            "workload.streams.0.arrivals.ratePerSecond": "1000",
            "workload.durationSeconds": 900,
            "workload.cooldownSeconds": 90,
        },
        "spec.workload.streams",
        "more than 1000000 requests",
    ),
    (
        EXPERIMENT,
        {"workload.streams.0.arrivals.ratePerSecond": "0"},
        "spec.workload.streams[0].arrivals.ratePerSecond",
        "greater than 0",
    ),
    (
        EXPERIMENT,
        {"workload.streams.0.arrivals.ratePerSecond": "1000.1"},
        "spec.workload.streams[0].arrivals.ratePerSecond",
        "at most 1000",
    ),
    (
        EXPERIMENT,
        {"workload.streams.0.arrivals.ratePerSecond": "1000", "workload.durationSeconds": 1000},
        "spec.workload.streams",
        "more than 1000000 requests",
    ),
    (EXPERIMENT, {"workload.durationSeconds": 0}, "spec.workload.durationSeconds", "greater than or equal to 1"),
    (EXPERIMENT, {"evaluation": {"repeats": 2}}, "spec.evaluation.repeats", "so few repeats cannot be so sure"),
    (EXPERIMENT, {"evaluation": {"repeats": 3}}, "spec.evaluation.repeats", "so few repeats cannot be so sure"),
    (EXPERIMENT, {"evaluation": {"repeats": 4, "confidence": "0.98"}}, "spec.evaluation.repeats", "so few repeats"),
    (
        EXPERIMENT,
        {"evaluation": {"repeats": 1, "confidence": "0.5"}},
        "spec.evaluation.repeats",
        "greater than or equal to 2",
    ),
    (EXPERIMENT, {"evaluation": {"confidence": "0.995"}}, "spec.evaluation.confidence", "between 0.5 and 0.99"),
    (EXPERIMENT, {"evaluation": {"confidence": "0.4"}}, "spec.evaluation.confidence", "between 0.5 and 0.99"),
    (TRIAL, {"purpose": "Fun"}, "spec.purpose", "supported values"),
    (EXPERIMENT, {"planning": {"probeSkipped": "1.5"}}, "spec.planning.probeSkipped", "between 0 and 1"),
    (EXPERIMENT, {"objectives.0.weight": "0"}, "spec.objectives[0].weight", "greater than 0"),
    (EXPERIMENT, {"objectives.4.target": ABSENT}, "spec.objectives[4].target", "belongs to goal Target"),
    (EXPERIMENT, {"objectives.4.target": "1.0"}, "spec.objectives[4].target", "between 0 and 1"),
    (EXPERIMENT, {"objectives.0.target": "0.5"}, "spec.objectives[0].target", "belongs to goal Target"),
    (EXPERIMENT, {"objectives.0.metric": "nobody.latency.p95"}, "spec.objectives", "must belong to"),
    (EXPERIMENT, {"constraints.0.metric": "nobody.latency.p95"}, "spec.constraints", "must belong to"),
    (EXPERIMENT, {"constraints.0": {"metric": "gpu.oomEvents"}}, "spec.constraints[0]", "min, max or both"),
    (
        EXPERIMENT,
        {"constraints.0": {"metric": "gpu.freeMiB", "min": "2", "max": "1"}},
        "spec.constraints[0].min",
        "not be greater than max",
    ),
    (EXPERIMENT, {"gpu": ABSENT, "constraints": []}, "spec.objectives", "without spec.gpu"),
    (EXPERIMENT, {"gpu": ABSENT, "objectives": CPU_OBJECTIVES}, "spec.constraints", "without spec.gpu"),
    (EXPERIMENT, {"search.algorithm": "Guess"}, "spec.search.algorithm", "Unsupported value"),
    (EXPERIMENT, {"serach": {}}, "spec.serach", "unknown field"),
    (PROFILE, {"changes.0.to": "small"}, "spec.changes[0].to", "the same value"),
    (PROFILE, {"changes.1": CHANGE}, "spec.changes[1]", "Duplicate value"),
    (PROFILE, {"startOrder": ["judge"]}, "spec.changes", "must stand in startOrder"),
    (PROFILE, {"startOrder": ["judge", "stt", "judge"]}, "spec.startOrder", "stands twice"),
    (PROFILE, {"provenance.digest": "sha256:0"}, "spec.provenance.digest", "should match"),
    (PROFILE, {"provenance.artifact": "sha256:0"}, "spec.provenance.artifact", "should match"),
    (PROFILE, {"rollout.stages.1.namespace": "voice-staging"}, "spec.rollout.stages", "the same namespace"),
    (PROFILE, {"rollout.strategy": "Magic"}, "spec.rollout.strategy", "Unsupported value"),
    (GRANT, {"targets.0.ignoredByGitOps": "yes"}, "spec.targets[0].ignoredByGitOps", "must be of type boolean"),
    (
        PROFILE,
        {"rollout.stages.0.toRevision": "cotune-0123456789"},
        "spec.rollout.stages",
        "for a stage that has begun",
    ),
    (PROFILE, {"rollout.retries": -1}, "spec.rollout.retries", "greater than or equal to 0"),
    (
        PROFILE,
        {"rollout.stages.0.unschedulableGraceSeconds": 301, "rollout.stages.0.readinessDeadlineSeconds": 300},
        "spec.rollout.stages[0].unschedulableGraceSeconds",
        "after readinessDeadlineSeconds, before this time is over",
    ),
    (
        PROFILE,
        {"rollout.stages.0.unschedulableGraceSeconds": 14},
        "spec.rollout.stages[0].unschedulableGraceSeconds",
        "greater than or equal to 15",
    ),
    (
        GRANT,
        {"downtimeBudget": {"secondsPerDay": 0}},
        "spec.downtimeBudget.secondsPerDay",
        "greater than or equal to 1",
    ),
    *(
        (PROFILE, {"rollout.stages.0.downtimeBudget": it}, f"spec.rollout.stages[0].downtimeBudget.{path}", reason)
        for it, path, reason in (
            ({}, "secondsPerDay", "Required value"),
            ({"secondsPerDay": 0}, "secondsPerDay", "greater than or equal to 1"),
            ({"secondsPerDay": 86401}, "secondsPerDay", "less than or equal to 86400"),
            ({"secondsPerDay": 60, "cooldownSeconds": -1}, "cooldownSeconds", "greater than or equal to 0"),
            ({"secondsPerDay": 60, "onUnknown": "Hope"}, "onUnknown", "Unsupported value"),
        )
    ),
    (PROFILE, {"rollout.stages.0.gates": [GATE, GATE]}, "spec.rollout.stages[0].gates[1]", "Duplicate value"),
    *(
        (PROFILE, {"rollout.stages.0.gates": [it]}, "spec.rollout.stages[0].gates[0]", "one of max, min and")
        for it in (GATE | {"min": "0"}, GATE | {"max": None}, AGAINST | {"max": "1"})
    ),
    *(
        (PROFILE, {"rollout.stages.0.gates": [GATE | it]}, f"spec.rollout.stages[0].gates[0].{path}", reason)
        for it, path, reason in (
            ({"confidence": "1"}, "confidence", "between 0.5 and 0.999"),
            ({"minimumSamples": 2}, "minimumSamples", "greater than or equal to 3"),
            ({"max": "high"}, "max", "should match"),
            ({"onUndecided": "Wait"}, "onUndecided", "Unsupported value"),
            ({"promQL": {"query": ""}}, "promQL.query", "at least 1 chars"),
            ({"promQL": {"url": "http://elsewhere"}}, "promQL.url", "unknown field"),
        )
    ),
    (
        PROFILE,
        {"rollout.stages.0.gates": [AGAINST | {"againstBaseline": {"goal": "Minimize", "tolerance": "-0.1"}}]},
        "spec.rollout.stages[0].gates[0].againstBaseline.tolerance",
        "must not be negative",
    ),
    (
        PROFILE,
        {"rollout.stages.0.gates": [AGAINST | {"againstBaseline": {"goal": "Minimize", "windowSeconds": 89}}]},
        "spec.rollout.stages[0].gates[0].againstBaseline.windowSeconds",
        "too short for minimumSamples",
    ),
    *(
        (PROFILE, {"rollout.stages.0.gates": [GATE | it]}, "spec.rollout.stages[0].bakeSeconds", "do not fit into")
        for it in ({"minimumSamples": 14}, {"initialDelaySeconds": 31})
    ),
    *(
        (PROFILE, {"rollout.stages.0.window": it}, f"spec.rollout.stages[0].window.{path}", reason)
        for it, path, reason in BAD_WINDOWS
    ),
    (PROFILE, {"rollout.stages.1.approval": "Maybe"}, "spec.rollout.stages[1].approval", "Unsupported value"),
    (TRIAL, {"candidate": []}, "spec.candidate", "at least 1 items"),
    (TRIAL, {"repeat": -1}, "spec.repeat", "greater than or equal to 0"),
    *probed_stages.REFUSED,
    (GRANT, {"allow": []}, "spec.allow", "at least 1 items"),
    (GRANT, {"allow": ["CopySpec", "Surge"]}, "spec.allow", "Surge is a part of Rollout: allow both"),
    (PROFILE, {"rollout.stages.0.surge": "Always"}, "spec.rollout.stages[0].surge", "Unsupported value"),
    (
        PROFILE,
        {"rollout.strategy": "Git", "rollout.stages.0.surge": "Require"},
        "spec.rollout.stages",
        "it is not cotune that stops the stack",
    ),
    (GRANT, {"allow": ["Everything"]}, "spec.allow[0]", "Unsupported value"),
    (GRANT, {"targets.0.workloadRef.kind": "Pod"}, "spec.targets[0].workloadRef.kind", "Unsupported value"),
    (GRANT, {"targets.0.env": ["A", "B"]}, "spec.targets[0].values", "name one in env"),
    (GRANT, {"from": []}, "spec.from", "at least 1 items"),
    (GRANT, {"targets.0.copyEnv": ["SCALE", "SCALE"]}, "spec.targets[0].copyEnv[1]", "Duplicate value"),
    (GRANT, {"targets.0.copyEnv": ["1BAD"]}, "spec.targets[0].copyEnv[0]", "should match"),
    (GRANT, {"targets.0.memoryMiB": -1}, "spec.targets[0].memoryMiB", "greater than or equal to 0"),
    (TRIAL, {"stackRef": "Stack"}, "spec.stackRef", "should match"),
]


@pytest.mark.parametrize(("kind", "changes"), ACCEPTED)
def test_a_valid_resource_is_accepted(api_server: ApiServer, kind: str, changes: dict[str, Any]) -> None:
    answer = api_server.apply(resource(kind, changes), "--dry-run=server")

    assert answer.accepted, answer.text


@pytest.mark.parametrize(("kind", "changes", "path", "reason"), REFUSED)
def test_a_malformed_resource_is_refused_with_path_and_reason(
    api_server: ApiServer, kind: str, changes: dict[str, Any], path: str, reason: str
) -> None:
    answer = api_server.apply(resource(kind, changes), "--dry-run=server")

    assert not answer.accepted
    assert any(path in line and reason in line for line in answer.text.splitlines()), answer.text


@pytest.mark.parametrize(
    ("name", "is_accepted"), [("v", True), ("v" * 63, True), ("v" * 64, False), ("v.1", False), ("7b", False)]
)
def test_an_experiments_name_can_name_its_trials_and_services(
    api_server: ApiServer, name: str, is_accepted: bool
) -> None:
    manifest = resource(EXPERIMENT)
    manifest["metadata"]["name"] = name

    answer = api_server.apply(manifest, "--dry-run=server")

    assert answer.accepted == is_accepted, answer.text
    assert is_accepted or ("metadata.name" in answer.text and "trials and their services" in answer.text), answer.text


IMMUTABLE: list[tuple[str, dict[str, Any], str, str]] = [
    (PROFILE, {"changes.0.to": "base"}, "spec.changes", "changes are immutable"),
    (PROFILE, {"startOrder": ["stt", "judge"]}, "spec.startOrder", "startOrder is immutable"),
    (PROFILE, {"provenance.trial": "voice-1"}, "spec", "provenance is immutable"),
    (PROFILE, {"provenance": ABSENT}, "spec", "provenance is immutable"),
    (PROFILE, {"expect": {"sharing": "MPS"}}, "spec", "expect is immutable"),
    (PROFILE, {"expect": {"startupSeconds": [{"component": "stt", "seconds": 9}]}}, "spec", "expect is immutable"),
    (PROFILE, {"provenance.artifact": f"sha256:{'0' * 64}"}, "spec", "provenance is immutable"),
    (TRIAL, {"repeat": 1}, "spec", "a trial's spec is immutable"),
]


@pytest.mark.parametrize(("kind", "changes", "path", "reason"), IMMUTABLE)
def test_what_was_run_cannot_be_edited(
    api_server: ApiServer, kind: str, changes: dict[str, Any], path: str, reason: str
) -> None:
    assert api_server.apply(resource(kind)).accepted

    answer = api_server.run("replace", "-f", "-", text=yaml.safe_dump(resource(kind, changes)))

    assert not answer.accepted
    assert any(path in line and reason in line for line in answer.text.splitlines()), answer.text


def test_a_rollout_may_be_paused_after_it_was_applied(api_server: ApiServer) -> None:
    assert api_server.apply(resource(PROFILE)).accepted

    assert api_server.apply(resource(PROFILE, {"rollout.paused": True})).accepted


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"rollout.retries": 2}, "", ""),
        ({"rollout.retries": 1, "rollout.abort": True}, "", ""),
        ({"rollout.retries": 0}, "spec.rollout.retries", "retries may only grow"),
        ({"rollout.retries": 2, "rollout.abort": True}, "spec.rollout.abort", "not both at once"),
    ],
)
def test_retries_that_were_made_stay_made(
    api_server: ApiServer, changes: dict[str, Any], path: str, reason: str
) -> None:
    def named(changes: dict[str, Any]) -> dict[str, Any]:
        manifest = resource(PROFILE, changes)
        manifest["metadata"]["name"] = "retried"
        return manifest

    api_server.run("delete", "gpp", "retried", "--ignore-not-found")
    assert api_server.apply(named({"rollout.retries": 1})).accepted

    answer = api_server.apply(named(changes))

    assert answer.accepted == (not reason), answer.text
    assert path in answer.text
    assert reason in answer.text


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({"rollout.stages.1.namespace": "elsewhere"}, True),
        ({"rollout.stages.0.bakeSeconds": 1}, True),
        ({"rollout.stages.0.name": "renamed"}, False),
        ({"rollout.stages.0.namespace": "elsewhere"}, False),
        (
            {
                "rollout.stages": [
                    {"name": "first", "namespace": "a"},
                    {"name": "staging", "namespace": "voice-staging"},
                ]
            },
            False,
        ),
    ],
)
def test_a_stage_that_has_begun_keeps_its_name_its_namespace_and_its_place(
    api_server: ApiServer, changes: dict[str, Any], accepted: bool
) -> None:
    def named(changes: dict[str, Any]) -> dict[str, Any]:
        manifest = resource(PROFILE, changes)
        manifest["metadata"]["name"] = "begun"
        return manifest

    api_server.run("delete", "gpp", "begun", "--ignore-not-found")
    assert api_server.apply(named({})).accepted
    status = '{"status": {"stages": [{"name": "staging", "phase": "Progressing"}]}}'
    begun = api_server.run("patch", "gpp", "begun", "--subresource=status", "--type=merge", "-p", status)
    assert begun.accepted, begun.text

    answer = api_server.apply(named(changes))

    assert answer.accepted == accepted, answer.text
    assert accepted or "spec.rollout.stages: Invalid value: a stage that has begun keeps its name" in answer.text


def test_a_stage_that_starts_anew_may_be_missing_where_others_that_follow_it_have_begun(api_server: ApiServer) -> None:
    body = resource(PROFILE, {})
    body["metadata"]["name"] = "anew"
    assert api_server.apply(body).accepted

    def told(stages: str) -> Answer:
        status = f'{{"status": {{"stages": {stages}}}}}'
        return api_server.run("patch", "gpp", "anew", "--subresource=status", "--type=merge", "-p", status)

    production = '{"name": "production", "phase": "Promoted"}'
    assert told(f'[{{"name": "staging", "phase": "RolledBack"}}, {production}]').accepted
    for stages in (f"[{production}]", f'[{production}, {{"name": "staging", "phase": "Progressing"}}]'):
        answer = told(stages)
        assert answer.accepted, answer.text
    body["spec"]["rollout"]["stages"][1]["namespace"] = "elsewhere"
    assert not api_server.apply(body).accepted


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"rollout.stages.0.toRevision": "cotune-0123456789"}, "", ""),
        ({"rollout.stages.1.toRevision": "cotune-0123456789"}, "spec.rollout.stages", "for a stage that has begun"),
        ({"rollout.stages.0.toRevision": "7"}, "spec.rollout.stages[0].toRevision", "should match"),
    ],
)
def test_a_stage_is_taken_to_a_revision_only_once_it_has_begun(
    api_server: ApiServer, changes: dict[str, Any], path: str, reason: str
) -> None:
    def named(changes: dict[str, Any]) -> dict[str, Any]:
        manifest = resource(PROFILE, changes)
        manifest["metadata"]["name"] = "taken"
        return manifest

    api_server.run("delete", "gpp", "taken", "--ignore-not-found")
    assert api_server.apply(named({})).accepted
    status = json.dumps({"status": {"stages": [{"name": "staging", "phase": "Promoted"}]}})
    begun = api_server.run("patch", "gpp", "taken", "--subresource=status", "--type=merge", "-p", status)
    assert begun.accepted, begun.text

    answer = api_server.apply(named(changes))

    assert answer.accepted == (not reason), answer.text
    assert path in answer.text
    assert reason in answer.text


@pytest.mark.parametrize(
    ("artifact", "accepted"),
    [
        ({"digest": f"sha256:{'0' * 64}", "bytes": 1}, True),
        ({"digest": f"sha256:{'0' * 63}", "bytes": 1}, False),
        ({"digest": f"sha256:{'0' * 64}", "bytes": 0}, False),
        ({"digest": f"sha256:{'0' * 64}"}, False),
    ],
)
def test_a_trials_record_is_named_by_a_digest_and_its_size(
    api_server: ApiServer, artifact: dict[str, Any], accepted: bool
) -> None:
    assert api_server.apply(resource(TRIAL)).accepted
    status = json.dumps({"status": {"artifact": artifact}})
    name = resource(TRIAL)["metadata"]["name"]

    answer = api_server.run(
        "patch", "gt", name, "--subresource=status", "--type=merge", "-p", status, "--dry-run=server"
    )

    assert answer.accepted == accepted, answer.text
    assert accepted or "status.artifact" in answer.text


def test_an_experiment_is_frozen_by_its_first_trial(api_server: ApiServer) -> None:
    def named(changes: dict[str, Any]) -> dict[str, Any]:
        manifest = resource(EXPERIMENT, changes)
        manifest["metadata"]["name"] = "frozen"
        return manifest

    assert api_server.apply(named({})).accepted
    assert api_server.apply(named({"search.repeats": 3})).accepted, "before the first trial"
    started = api_server.run(
        *("patch", "gae", "frozen", "--subresource=status", "--type=merge"),
        *("-p", '{"status": {"phase": "Running", "trials": {"total": 1}}}'),
    )
    assert started.accepted, started.text

    answer = api_server.apply(named({"search.repeats": 4}))

    assert not answer.accepted
    assert "spec" in answer.text
    assert "immutable after its first trial" in answer.text


@pytest.mark.parametrize(
    ("short_name", "header"), [("gae", "PHASE"), ("gt", "FITNESS"), ("gpp", "STAGE"), ("gtg", "ALLOW")]
)
def test_short_names_and_columns(api_server: ApiServer, short_name: str, header: str) -> None:
    kind = {"gae": EXPERIMENT, "gt": TRIAL, "gpp": PROFILE, "gtg": GRANT}[short_name]
    assert api_server.apply(resource(kind)).accepted

    answer = api_server.run("get", short_name)

    assert answer.accepted
    assert header in answer.text.splitlines()[0]
    assert "AGE" in answer.text.splitlines()[0]


def test_kubectl_explains_a_field_with_the_models_words(api_server: ApiServer) -> None:
    answer = api_server.run("explain", "gpuallocationexperiment.spec.parameters.baseline")

    assert "The value in use today; every gain is stated against it." in answer.text


def test_defaults_are_written_by_the_api_server(api_server: ApiServer) -> None:
    manifest = resource(EXPERIMENT, {"search": ABSENT})
    manifest["metadata"]["name"] = "defaults"
    assert api_server.apply(manifest).accepted

    answer = api_server.run("get", "gae", "defaults", "-o", "jsonpath={.spec.search}")

    assert yaml.safe_load(answer.text) == {"algorithm": "Grid", "maxTrials": 100, "repeats": 1}


NULLS_REFUSED = [
    (EXPERIMENT, "stack", "spec.stack: "),
    (EXPERIMENT, "stack.components", "spec.stack.components: "),
    (EXPERIMENT, "stack.components.0", "spec.stack.components[0]: "),
    (EXPERIMENT, "stack.components.0.name", "spec.stack.components[0].name: "),
    (EXPERIMENT, "stack.components.0.template", "spec.stack.components: "),
    (EXPERIMENT, "parameters.0.baseline", "spec.parameters[0].baseline: "),
    (EXPERIMENT, "workload.streams.0.arrivals", "spec.workload.streams[0].arrivals: "),
    (EXPERIMENT, "objectives.0.metric", "spec.objectives[0].metric: "),
    (PROFILE, "changes.0.to", "spec.changes[0].to: "),
    (PROFILE, "rollout", "spec.rollout: "),
    (GRANT, "from", "spec.from: "),
    (GRANT, "targets.0.container", "spec.targets[0].container: "),
]


@pytest.mark.parametrize(("kind", "path", "words"), NULLS_REFUSED)
def test_a_null_for_what_is_needed_is_refused_with_its_path(
    api_server: ApiServer, kind: str, path: str, words: str
) -> None:
    answer = api_server.apply(resource(kind, {path: None}), "--dry-run=server", "--validate=false")

    assert not answer.accepted
    assert words in answer.text, answer.text


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (EXPERIMENT, "workload.durationSeconds"),
        (EXPERIMENT, "workload.minimumSamples"),
        (EXPERIMENT, "search"),
        (EXPERIMENT, "search.repeats"),
        (PROFILE, "rollout.paused"),
        (PROFILE, "rollout.stages.0.bakeSeconds"),
    ],
)
def test_a_null_for_what_has_a_default_is_the_default(api_server: ApiServer, kind: str, path: str) -> None:
    answer = api_server.apply(resource(kind, {path: None}), "--dry-run=server", "-o", "json", "--validate=false")

    assert answer.accepted, answer.text
    node: Any = json.loads(answer.text)["spec"]
    for key in path.split("."):
        node = node[int(key) if key.isdigit() else key]
    assert node is not None
