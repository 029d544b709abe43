"""`make bench-surface`: what recorded surfaces show of noise, start-up, sharing and memory. It runs nothing.

docs/results/h100.md quotes its tables.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from typing import Any

from cotune_bench.table import print_table, write_result
from cotune_bench.trial_repeats import Repeats, read_repeats

_NOISY = (
    *("stt.latency.p50", "stt.latency.p95", "stt.throughput", "stt.realTimeFactor"),
    *("llm.ttft.p50", "llm.ttft.p95", "llm.itl.p50", "llm.itl.p95", "llm.latency.p50", "llm.latency.p95"),
    *("llm.throughput", "llm.queue.mean", "gpu.utilization", "gpu.usedMiB"),
)
_COMPARED = ("stt.latency.p50", "stt.latency.p95", "llm.ttft.p50", "llm.latency.p95", "gpu.utilization")
_LOADED = ("stt", "llm")

Assignment = tuple[tuple[str, str], ...]


class ReportError(ValueError):
    """A file is no surface."""


@dataclass(frozen=True)
class Window:
    """One run that brought measurements."""

    recording: str
    candidate: Assignment
    repeat: int
    alone: str
    """The component that was loaded alone; empty where both were."""
    values: Mapping[str, float]

    def of(self, parameter: str) -> str:
        """Its value of a parameter."""
        return dict(self.candidate)[parameter]


@dataclass(frozen=True)
class Contents:
    """What one file holds."""

    recording: str
    method: str
    """How vLLM was started: `cold`, as a container's command, or `warm`, its imports done beforehand."""
    starts: int
    candidates: int
    measured: int
    """Candidates with at least one window."""
    repeated: int
    """With three windows or more."""
    windows: int
    stream_failures: int
    """Windows in which a request failed."""


@dataclass(frozen=True)
class Noise:
    """How a metric varies where nothing was changed: coefficients of variation, per cent."""

    metric: str
    sharing: str
    candidates: int
    """With three windows or more, one after the other, each with arrivals of its own."""
    typical: float
    """The median over the candidates."""
    pooled: float
    """The root of their mean square."""
    largest: float
    pairs: int
    """Windows of the same candidate and the same arrivals in two recordings."""
    same_arrivals: float | None
    """Over these pairs, the root of the mean square; None: there are none."""


@dataclass(frozen=True)
class StartUp:
    """Starts of one kind; seconds."""

    what: str
    method: str
    compile_cache: str
    """`cold` or `warm`; `refused`: vLLM ended by itself."""
    starts: int
    least: float
    middle: float
    largest: float
    engine: float | None
    """Of these vLLM's own account of profile, cache and warm-up, the median."""


@dataclass(frozen=True)
class Interference:
    """What one service does to the other at one setting: medians of the windows' figures, milliseconds."""

    llm_max_seqs: str
    size: str
    sharing: str
    """`alone`: the other one is loaded in memory and idle."""
    windows: int
    stt_p50: float | None
    stt_p95: float | None
    ttft_p50: float | None
    ttft_p95: float | None
    llm_p95: float | None
    utilization: float | None
    """Of the card, 0 to 1; None for `alone`, which is two recordings."""


@dataclass(frozen=True)
class Modes:
    """MPS over time-slicing, for windows that are alike in everything else, arrivals among it."""

    size: str
    metric: str
    pairs: int
    middle: float
    """The median of the ratios; below 1, MPS has less."""
    lower: float
    upper: float
    """Between these lies the middle half of them."""
    less: int
    """Pairs in which MPS has less."""


@dataclass(frozen=True)
class Holding:
    """Memory as NVML counts it, MiB."""

    recording: str
    idle: float
    """The card, before anything was started."""
    speech: float
    """Its servers together, by process."""
    before_vllm: float
    """The card with them, before the first start of vLLM."""
    unexplained: float
    """Of that, what no server's process accounts for: under MPS its own server's context."""
    left_after_vllm: float
    """The most by which the card held more before a later start than before the first."""
    longest_release: float
    """Seconds from a server's end until its memory was given back."""


def read(file: Path) -> dict[str, Any]:
    """A surface.

    Raises:
        ReportError: it is none.
        OSError: it cannot be read.
    """
    document: dict[str, Any] = json.loads(file.read_text())
    if document.get("schema") != 1 or "case" not in document:
        raise ReportError(f"{file}: no surface of schema 1")
    return document


def windows(document: Mapping[str, Any], recording: str) -> tuple[Window, ...]:
    """All that were measured."""
    loaded = [it for it in _LOADED if it in document["case"]["load"]]
    alone = loaded[0] if len(loaded) == 1 else ""
    return tuple(
        Window(
            recording,
            tuple(sorted(it["candidate"].items())),
            int(it["repeat"]),
            alone,
            {one["metric"]: float(one["value"]) for one in it["measurements"]},
        )
        for it in document["runs"]
        if it["failure"] is None
    )


def contents(document: Mapping[str, Any], recording: str) -> Contents:
    """What is in a file."""
    counts: dict[Assignment, int] = defaultdict(int)
    for it in windows(document, recording):
        counts[it.candidate] += 1
    return Contents(
        recording,
        "/".join(sorted({str(it["method"]) for it in document["starts"]})),
        len(document["starts"]),
        len({tuple(sorted(it["candidate"].items())) for it in document["runs"]}),
        len(counts),
        sum(it >= 3 for it in counts.values()),
        sum(counts.values()),
        sum(bool(it["errors"]) for it in document["runs"]),
    )


def noise(measured: Sequence[Window]) -> tuple[Noise, ...]:
    """By metric and sharing mode, of windows in which both services were loaded; a mean of nothing is left out."""
    found: list[Noise] = []
    both = [it for it in measured if not it.alone]
    for metric, mode in itertools.product(_NOISY, sorted({it.of("sharing") for it in both}, reverse=True)):
        chosen = [it for it in both if it.of("sharing") == mode and metric in it.values]
        repeats = _grouped(chosen, metric, lambda it: (it.recording, it.candidate))
        variations = [_variation(it) for it in repeats if len(it) >= 3 and fmean(it) > 0]
        same = [_variation(it) for it in _grouped(chosen, metric, lambda it: (it.candidate, it.repeat)) if len(it) == 2]
        if variations:
            found.append(
                Noise(
                    metric,
                    mode,
                    len(variations),
                    median(variations),
                    _root_mean_square(variations),
                    max(variations),
                    len(same),
                    _root_mean_square(same) if same else None,
                )
            )
    return tuple(found)


def start_ups(documents: Sequence[Mapping[str, Any]]) -> tuple[StartUp, ...]:
    """Of vLLM by method and compile cache, and of the speech servers where they were seen ready in time."""
    groups: dict[tuple[str, str, str], list[tuple[float, float | None]]] = defaultdict(list)
    for document in documents:
        methods = {str(it["method"]) for it in document["starts"]}
        for it in document["starts"]:
            cache = str(it["compileCache"] or "none") if it["started"] else "refused"
            groups["vLLM", str(it["method"]), cache].append((float(it["seconds"]), it["engineSeconds"]))
        # Beside warm starts the recorder looked for the speech servers late: no figure of theirs.
        if methods == {"cold"}:
            for it in document["speechStarts"]:
                groups[f"speech, {it['whisperModel']}", "cold", ""].append((float(it["seconds"]), None))
    return tuple(_start_up(key, group) for key, group in sorted(groups.items()))


def _start_up(key: tuple[str, str, str], group: Sequence[tuple[float, float | None]]) -> StartUp:
    seconds = [it for it, _ in group]
    engine = [it for _, it in group if it is not None]
    return StartUp(*key, len(seconds), min(seconds), median(seconds), max(seconds), median(engine) if engine else None)


def interference(measured: Sequence[Window], memory: str) -> tuple[Interference, ...]:
    """At one share of memory, for every limit of sequences and size: alone, by turns, and through MPS."""
    chosen = [it for it in measured if it.of("llmMemory") == memory]
    limits, sizes = _in_order(it.of("llmMaxSeqs") for it in chosen), _in_order(it.of("whisperModel") for it in chosen)
    rows: list[Interference] = []
    for limit, size in itertools.product(limits, sizes):
        here = [it for it in chosen if it.of("llmMaxSeqs") == limit]
        # The language model alone is the same whatever speech server idles beside it.
        alone = [it for it in here if it.alone == "llm" or (it.alone == "stt" and it.of("whisperModel") == size)]
        groups = {"alone": alone}
        for mode in sorted({it.of("sharing") for it in here}, reverse=True):
            both = [it for it in here if not it.alone and it.of("whisperModel") == size and it.of("sharing") == mode]
            groups[mode] = both
        rows += [_row(limit, size, name, group) for name, group in groups.items() if group]
    return tuple(rows)


def _row(limit: str, size: str, sharing: str, group: Sequence[Window]) -> Interference:
    def middle(metric: str) -> float | None:
        values = [it.values[metric] for it in group if metric in it.values]
        return median(values) if values else None

    return Interference(
        limit,
        size,
        sharing,
        len(group),
        stt_p50=middle("stt.latency.p50"),
        stt_p95=middle("stt.latency.p95"),
        ttft_p50=middle("llm.ttft.p50"),
        ttft_p95=middle("llm.ttft.p95"),
        llm_p95=middle("llm.latency.p95"),
        utilization=None if sharing == "alone" else middle("gpu.utilization"),
    )


def modes(measured: Sequence[Window]) -> tuple[Modes, ...]:
    """By size of the speech server; of a window that two recordings have the mean counts."""
    both = [it for it in measured if not it.alone]
    rows: list[Modes] = []
    for size, metric in itertools.product(_in_order(it.of("whisperModel") for it in both), _COMPARED):
        values: dict[tuple[Assignment, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for it in both:
            if it.of("whisperModel") == size and metric in it.values:
                rest = tuple(one for one in it.candidate if one[0] != "sharing")
                values[rest, it.repeat][it.of("sharing")].append(it.values[metric])
        ratios = [fmean(it["MPS"]) / fmean(it["TimeSlicing"]) for it in values.values() if len(it) == 2]
        if len(ratios) >= 2:
            lower, middle, upper = quantiles(ratios, n=4, method="inclusive")
            rows.append(Modes(size, metric, len(ratios), middle, lower, upper, sum(it < 1 for it in ratios)))
    return tuple(rows)


def holding(document: Mapping[str, Any], recording: str) -> Holding:
    """What was on the card beside vLLM."""
    idle = float(document["card"]["gpuIdleMiB"])
    speech = sum(float(it["gpuMemoryMiB"]) for it in document["speechStarts"])
    before = [float(it["gpuUsedMiBBefore"]) for it in document["starts"]]
    return Holding(
        recording,
        idle,
        speech,
        before[0],
        before[0] - idle - speech,
        max(before) - before[0],
        max(float(it["releasedSeconds"]) for it in document["starts"]),
    )


def main() -> int:
    """Print the tables and write build/bench/surface.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("surfaces", type=Path, nargs="+")
    parser.add_argument("--trials", type=Path, help="the trials of an experiment on such a card, as kubectl's YAML")
    parser.add_argument("--memory", default="0.30", help="the share of vLLM at which interference is shown")
    options = parser.parse_args()
    try:
        documents = {it.parent.name: read(it) for it in options.surfaces}
        held = [contents(it, name) for name, it in documents.items()]
        measured = [one for name, it in documents.items() for one in windows(it, name)]
        memory = [holding(it, name) for name, it in documents.items()]
        repeats = read_repeats(options.trials) if options.trials else ()
    except (OSError, ValueError, KeyError) as error:
        print(f"bench-surface: error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    varied, started = noise(measured), start_ups(list(documents.values()))
    disturbed, compared = interference(measured, options.memory), modes(measured)
    _print(held, varied, started, disturbed, memory)
    _print_modes(compared)
    _print_repeats(repeats)
    write_result(
        "surface",
        {
            "recordings": [asdict(it) for it in held],
            "noise": [asdict(it) for it in varied],
            "startUps": [asdict(it) for it in started],
            "interference": [asdict(it) for it in disturbed],
            "mpsOverTimeSlicing": [asdict(it) for it in compared],
            "holding": [asdict(it) for it in memory],
            "trials": [{**asdict(it), "variation": it.variation} for it in repeats],
        },
    )
    return 0


def _print(
    held: Sequence[Contents],
    varied: Sequence[Noise],
    started: Sequence[StartUp],
    disturbed: Sequence[Interference],
    memory: Sequence[Holding],
) -> None:
    print_table(
        ("RECORDING", "METHOD", "STARTS", "CANDIDATES", "MEASURED", "THREE TIMES", "WINDOWS", "WITH ERRORS"),
        [tuple(map(str, asdict(it).values())) for it in held],
    )
    print_table(
        ("NOISE, CV %", "SHARING", "CANDIDATES", "MEDIAN", "POOLED", "LARGEST", "PAIRS", "SAME ARRIVALS"),
        [
            (
                *(it.metric, it.sharing, str(it.candidates)),
                *(_short(it.typical), _short(it.pooled), _short(it.largest), str(it.pairs), _short(it.same_arrivals)),
            )
            for it in varied
        ],
    )
    print_table(
        ("START-UP, s", "METHOD", "CACHE", "STARTS", "LEAST", "MEDIAN", "LARGEST", "ENGINE"),
        [
            (
                *(it.what, it.method, it.compile_cache, str(it.starts)),
                *(_short(one) for one in (it.least, it.middle, it.largest, it.engine)),
            )
            for it in started
        ],
    )
    print_table(
        (
            "MAX-NUM-SEQS",
            "SPEECH",
            "SHARING",
            "WINDOWS",
            "STT p50",
            "STT p95",
            "TTFT p50",
            "TTFT p95",
            "LLM p95",
            "UTIL %",
        ),
        [
            (
                *(it.llm_max_seqs, it.size, it.sharing, str(it.windows)),
                *(_whole(one) for one in (it.stt_p50, it.stt_p95, it.ttft_p50, it.ttft_p95, it.llm_p95)),
                _whole(None if it.utilization is None else 100 * it.utilization),
            )
            for it in disturbed
        ],
    )
    print_table(
        ("MEMORY, MiB", "IDLE", "SPEECH", "BEFORE vLLM", "UNEXPLAINED", "LEFT AFTER vLLM", "RELEASE, s"),
        [
            (
                it.recording,
                *(_whole(one) for one in (it.idle, it.speech, it.before_vllm, it.unexplained, it.left_after_vllm)),
                _short(it.longest_release),
            )
            for it in memory
        ],
    )


def _print_modes(compared: Sequence[Modes]) -> None:
    print_table(
        ("MPS / TIME-SLICING", "METRIC", "PAIRS", "MEDIAN", "MIDDLE HALF", "LESS"),
        [
            (
                *(it.size, it.metric, str(it.pairs), f"{it.middle:.2f}"),
                *(f"{it.lower:.2f} to {it.upper:.2f}", str(it.less)),
            )
            for it in compared
        ],
    )


def _print_repeats(repeats: Sequence[Repeats]) -> None:
    if repeats:
        print_table(
            ("TRIALS OF ONE CANDIDATE", "METRIC", "VALUES", "CV %"),
            [
                (
                    it.candidate,
                    it.metric,
                    "  ".join(map(_figure, it.values)),
                    _short(it.variation),
                )
                for it in repeats
            ],
        )


def _grouped(chosen: Sequence[Window], metric: str, key: Callable[[Window], object]) -> list[list[float]]:
    groups: dict[object, list[float]] = defaultdict(list)
    for it in chosen:
        groups[key(it)].append(it.values[metric])
    return list(groups.values())


def _variation(values: Sequence[float]) -> float:
    mean = fmean(values)
    return 100 * stdev(values) / mean if mean else 0.0


def _root_mean_square(values: Sequence[float]) -> float:
    return fmean(it * it for it in values) ** 0.5


def _in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
