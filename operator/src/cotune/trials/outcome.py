"""What a trial measured: the probe's result together with what Kubernetes and the servers' logs say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from cotune.api.experiment import ExperimentSpec
from cotune.api.trial import Measurement, ObservedServer
from cotune.measurement.contract import ProbeResult
from cotune.trials.out_of_memory import Ends, kills_of, out_of_memory_events
from cotune.trials.tenancy import Tenancy
from cotune.trials.truth import ComponentEvidence

_KV_CACHE_TOKENS = re.compile(r"GPU KV cache size: ([0-9,]+) tokens")
_VERSION = re.compile(r"vLLM API server version v?([^\s,]+)|Initializing a V1 LLM engine \(v([^)\s]+)\)")
_STARTED = (
    ("kv_cache_gib", re.compile(r"Available KV cache memory: (-?[0-9]+(?:\.[0-9]+)?) GiB")),
    ("weights_gib", re.compile(r"Actual usage is ([0-9]+(?:\.[0-9]+)?) GiB for weight")),
    ("weights_gib", re.compile(r"Model loading took ([0-9]+(?:\.[0-9]+)?) GiB")),
    ("activations_gib", re.compile(r"([0-9]+(?:\.[0-9]+)?) GiB for peak activation")),
    ("non_torch_gib", re.compile(r"(-?[0-9]+(?:\.[0-9]+)?) GiB for non-torch memory")),
    ("graphs_gib", re.compile(r"([0-9]+(?:\.[0-9]+)?) GiB for CUDAGraph memory")),
)
"""Lines of vLLM 0.11 to 0.26; the more exact of two comes last."""
_COMPILED = re.compile(r"Compiling a graph for")
_LOADED = re.compile(r"Directly load (the compiled graph|AOT compilation)")
_KV_CACHE_CONCURRENCY = re.compile(r"Maximum concurrency for [0-9,]+ tokens per request: ([0-9.]+)x")


@dataclass(frozen=True)
class ComponentRun:
    """One component's life in a trial, as Kubernetes saw it."""

    log: str
    """The whole log, as far as the kubelet still has it."""
    restarts: int
    startup_seconds: float | None
    """From the start of its container to readiness."""
    evidence: ComponentEvidence = field(default_factory=ComponentEvidence)
    """By which it is judged whether the figures count."""
    previous_logs: tuple[str, ...] = ()
    """Of containers that have started again: of the runs before."""
    ends: Ends = field(default_factory=Ends)


class NoResultError(ValueError):
    """The probe ended well, and its last line is no result."""


def probe_result(log: str) -> ProbeResult:
    """The result in the probe's log: its last line.

    Raises:
        NoResultError: the last line is something else.
    """
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "")
    try:
        return ProbeResult.model_validate_json(last)
    except ValidationError as error:
        raise NoResultError(f"the probe's last line is no result: {last[:200]!r}") from error


def measurements(
    spec: ExperimentSpec, result: ProbeResult, runs: Mapping[str, ComponentRun], tenancy: Tenancy | None = None
) -> tuple[Measurement, ...]:
    """All metrics of a trial, by name; what vLLM's log says about its cache wins over `/metrics`.

    Blocks times block size is wrong for hybrid models, the line in the log is not. A component's memory on the card is
    stated where it is known whose the processes there were, and left out elsewhere.
    """
    found = {it.metric: it for it in result.measurements}
    for component in spec.stack.components:
        run = runs[component.name]
        found |= _of(f"{component.name}.restarts", run.restarts)
        if run.startup_seconds is not None:
            found |= _of(f"{component.name}.startup", run.startup_seconds)
        if spec.gpu is not None and tenancy is not None and (share := tenancy.shares.get(component.name)):
            found |= _of(f"{component.name}.gpuMemoryMiB", share.most_mib, tenancy.readings)
        if component.protocol.is_language_model:
            if match := _KV_CACHE_TOKENS.search(run.log):
                found |= _of(f"{component.name}.kvCache.tokens", int(match[1].replace(",", "")))
            if match := _KV_CACHE_CONCURRENCY.search(run.log):
                found |= _of(f"{component.name}.kvCache.concurrency", float(match[1]))
    out_of_memory = sum(_out_of_memory(name, result, run) for name, run in runs.items())
    if spec.gpu is not None:
        found |= _of("gpu.oomEvents", out_of_memory)
    restarts = sum(it.restarts for it in runs.values())
    errors = any(float(it.value) > 0 for name, it in found.items() if name.endswith(".errorRate"))
    found |= _of("stability", 0 if out_of_memory or restarts or errors else 1)
    return tuple(found[name] for name in sorted(found))


def _out_of_memory(component: str, result: ProbeResult, run: ComponentRun) -> int:
    pod = run.evidence.identity
    kills = kills_of(result.node, pod.uid, pod.containers)
    counted = next((it.out_of_memory for it in result.services if it.component == component), None)
    return out_of_memory_events((*run.previous_logs, run.log), run.ends, kills, counted)


def observed_server(component: str, log: str) -> ObservedServer | None:
    """What a language model's log says of its start, be it one that failed; None when it says nothing of its memory."""
    found = {field: match[1] for field, pattern in _STARTED if (match := pattern.search(log))}
    tokens = _KV_CACHE_TOKENS.search(log)
    if not found and tokens is None:
        return None
    version = _VERSION.search(log)
    return ObservedServer.model_validate(
        {
            **found,
            "component": component,
            "version": (version[1] or version[2])[:100] if version else "",
            "kv_cache_tokens": int(tokens[1].replace(",", "")) if tokens else None,
            "compiled": True if _COMPILED.search(log) else False if _LOADED.search(log) else None,
        }
    )


def _of(metric: str, value: float, samples: int = 1) -> dict[str, Measurement]:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return {metric: Measurement(metric=metric, value=text, samples=samples)}
