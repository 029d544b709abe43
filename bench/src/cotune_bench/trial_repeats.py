"""How a recorded experiment's candidates varied from trial to trial, each with a fresh start of the stack."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

METRICS = (
    *("stt.latency.p50", "stt.latency.p95", "llm.ttft.p50", "llm.ttft.p95", "llm.latency.p50", "llm.latency.p95"),
    *("llm.throughput", "gpu.utilization", "gpu.usedMiB", "llm.startup", "stt.startup"),
)
FITNESS = "fitness"


@dataclass(frozen=True)
class Repeats:
    """One metric of one candidate."""

    candidate: str
    metric: str
    values: tuple[float, ...]
    """By trial, in the order of the trials' names."""

    @property
    def variation(self) -> float:
        """The coefficient of variation, per cent; 0 where the mean is."""
        mean = fmean(self.values)
        return 100 * stdev(self.values) / mean if mean else 0.0


def read_repeats(file: Path, least: int = 3) -> tuple[Repeats, ...]:
    """Of a list of GpuTrials, every candidate with at least so many trials that succeeded.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no list of trials, or `least` is below two.
    """
    if least < 2:
        raise ValueError(f"{least} trials have no variation")
    document: Any = yaml.safe_load(file.read_text())
    if "items" not in document:
        raise ValueError(f"{file}: no list of trials")
    groups: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    trials: list[dict[str, Any]] = document["items"]
    for it in sorted(trials, key=lambda it: str(it["metadata"]["name"])):
        status: dict[str, Any] = it.get("status") or {}
        if status.get("phase") == "Succeeded":
            groups[_words(it["spec"]["candidate"])].append(_figures(status))
    return tuple(
        Repeats(candidate, metric, tuple(it[metric] for it in figures))
        for candidate, figures in groups.items()
        if len(figures) >= least
        for metric in (*METRICS, FITNESS)
        if all(metric in it for it in figures)
    )


def _figures(status: Mapping[str, Any]) -> dict[str, float]:
    found = {str(it["metric"]): float(it["value"]) for it in status["measurements"]}
    return found | {FITNESS: float(status["fitness"])} if status.get("fitness") else found


def _words(candidate: Any) -> str:
    return " ".join(f"{it['name']}={it['value']}" for it in candidate)
