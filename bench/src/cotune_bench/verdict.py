"""`make bench-verdict`: how often a winner is named where there is none, and the repeats that find a gain of 10 %.

Every experiment is simulated: runs with the noise of the recorded cells, a search that takes the best of many
candidates, fresh repeats, and the verdict of the operator's own code.
"""

import argparse
import functools
import json
import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from cotune.api.experiment import Evaluation, Goal, Objective, Outcome
from cotune.fitness.bootstrap import least_repeats
from cotune.fitness.comparison import compare
from cotune.fitness.score import Measurements, score

from cotune_bench.table import print_table, write_result

_NOISE = Path(__file__).parents[3] / "tests" / "data" / "noise" / "h200-2026-11-23.json"
_NORMAL_P95 = 1.6449
_CANDIDATES, _GAIN, _POWER = 15, 0.10, 0.90
_MOST_FALSE = 0.05
_MOST_REPEATS = 20
"""That the resource allows."""
_OBJECTIVES = (
    Objective(metric="stt.latency.p95", goal=Goal.MINIMIZE, weight="0.5"),
    Objective(metric="llm.latency.p95", goal=Goal.MINIMIZE, weight="0.5"),
)


@dataclass(frozen=True)
class Noise:
    """What makes two runs of the same settings differ."""

    between: float
    """Standard deviation of the logarithm of a run's level, of each service for itself."""
    spread: Mapping[str, float]
    """Of the logarithm of a request's latency within a run, by service."""
    requests: Mapping[str, int]
    """In a window, by service."""


@dataclass(frozen=True)
class FalseWinners:
    """Of A/A experiments: every candidate is the baseline under another name."""

    window: str
    repeats: int
    winners: int
    upper_bound: float
    """Of the rate of false winners, one-sided, 95 % sure."""


def recorded_noise(path: Path = _NOISE) -> Noise:
    """The noise of the recorded cells.

    Within a run: 95th percentile over median of each cell under load, taken for log-normal; the mean of the cells.
    Between runs: the LLM's medians in cells that differ only in a memory share that hardly moves latency. Whatever the
    share does is counted as noise, so this is an upper bound.
    """
    cells = [it for it in json.loads(path.read_text())["cells"] if it["llmConcurrency"]]
    pairs = [
        (first, second)
        for index, first in enumerate(cells)
        for second in cells[index + 1 :]
        if (first["whisper"], first["llmConcurrency"]) == (second["whisper"], second["llmConcurrency"])
    ]
    shifts = [math.log(second["llmP50Ms"] / first["llmP50Ms"]) for first, second in pairs]
    services = ("stt", "llm")
    return Noise(
        between=math.sqrt(fmean(it**2 for it in shifts) / 2),
        spread={
            it: fmean(math.log(cell[f"{it}P95Ms"] / cell[f"{it}P50Ms"]) / _NORMAL_P95 for cell in cells)
            for it in services
        },
        requests={it: round(fmean(cell[f"{it}Requests"] for cell in cells)) for it in services},
    )


def simulated_run(noise: Noise, level: float, draw: random.Random) -> Measurements:
    """One window: the 95th percentiles of latencies around `level`, in units of the baseline's median."""
    found: dict[str, float] = {}
    for service, spread in noise.spread.items():
        middle = math.log(level) + draw.gauss(0, noise.between)
        latencies = sorted(draw.lognormvariate(middle, spread) for _ in range(noise.requests[service]))
        found[f"{service}.latency.p95"] = latencies[math.ceil(0.95 * len(latencies)) - 1]
    return found


def simulated_experiment(noise: Noise, repeats: int, gain: float, confidence: float, seed: int) -> Outcome:
    """A search over candidates like the baseline, one of which may be better, and the verdict on its best."""
    draw = random.Random(seed)
    levels = [1.0] * (_CANDIDATES - 1) if gain == 0 else [1.0 - gain]
    reference = simulated_run(noise, 1.0, draw)
    searched = [score(_OBJECTIVES, simulated_run(noise, it, draw), reference).fitness for it in levels]
    best = levels[searched.index(max(searched))]
    if gain == 0 and max(searched) <= 0.5:
        return Outcome.NOT_BETTER
    baseline = [simulated_run(noise, 1.0, draw) for _ in range(repeats)]
    candidate = [simulated_run(noise, best, draw) for _ in range(repeats)]
    return compare(_OBJECTIVES, baseline, candidate, confidence).outcome


def upper_bound(events: int, of: int, confidence: float = 0.95) -> float:
    """The one-sided exact (Clopper-Pearson) upper bound of a rate."""
    if events == of:
        return 1.0
    low, high = events / of, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        at_most = math.fsum(math.comb(of, it) * rate**it * (1 - rate) ** (of - it) for it in range(events + 1))
        low, high = (rate, high) if at_most > 1 - confidence else (low, rate)
    return high


def main() -> int:
    """Print both tables and write build/bench/verdict.json; 1 when a bound is broken or the default does not follow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--experiments",
        type=int,
        default=1000,
        help="without a difference; half as many with a gain, for each number of repeats",
    )
    experiments = parser.parse_args().experiments
    short, default = recorded_noise(), Evaluation()
    confidence = float(default.confidence)
    windows = {
        "as recorded, 6 s": short,
        "200 requests": Noise(short.between, short.spread, dict.fromkeys(short.spread, 200)),
    }
    false: list[FalseWinners] = []
    with ProcessPoolExecutor() as pool:
        for name, noise in windows.items():
            for repeats in sorted({4, default.repeats}):
                outcomes = _outcomes(pool, noise, repeats, 0.0, confidence, experiments)
                winners = outcomes.count(Outcome.BETTER)
                false.append(FalseWinners(name, repeats, winners, upper_bound(winners, experiments)))
        print_table(
            ["A/A experiments", "repeats", "false winners", "of", "upper 95 % bound"],
            [[it.window, str(it.repeats), str(it.winners), str(experiments), f"{it.upper_bound:.1%}"] for it in false],
        )
        power = {name: _needed(pool, noise, confidence, experiments // 2) for name, noise in windows.items()}
    rows = [
        [
            name,
            f"{noise.between:.1%}",
            *(f"{noise.spread[it]:.2f} of {noise.requests[it]}" for it in noise.spread),
            _told(power[name]),
        ]
        for name, noise in windows.items()
    ]
    print_table(["window", "noise between runs", "STT spread", "LLM spread", "repeats: 10 % found in"], rows)
    needed = next((it for it, rate in power["200 requests"].items() if rate >= _POWER), None)
    print(
        f"a gain of {_GAIN:.0%} is found in {_POWER:.0%} of experiments with {needed} repeats; "
        f"the default is {default.repeats}\n"
    )
    write_result(
        "verdict",
        {
            "experiments": experiments,
            "confidence": confidence,
            "candidates": _CANDIDATES,
            "noise": {name: asdict(it) for name, it in windows.items()},
            "noiseSource": str(_NOISE.relative_to(_NOISE.parents[3])),
            "falseWinners": [asdict(it) for it in false],
            "power": power,
            "neededRepeats": needed,
            "defaultRepeats": default.repeats,
        },
    )
    holds = all(it.upper_bound <= _MOST_FALSE for it in false)
    return 0 if holds and needed == default.repeats else 1


def _outcomes(
    pool: ProcessPoolExecutor, noise: Noise, repeats: int, gain: float, confidence: float, experiments: int
) -> Sequence[Outcome]:
    one = functools.partial(simulated_experiment, noise, repeats, gain, confidence)
    return list(pool.map(one, range(experiments), chunksize=25))


def _needed(pool: ProcessPoolExecutor, noise: Noise, confidence: float, experiments: int) -> Mapping[int, float]:
    """Repeats to the share of experiments in which the gain was found, for those tried on the way to the fewest."""
    found: dict[int, float] = {}
    low, high = least_repeats(confidence), _MOST_REPEATS
    while low <= high:
        repeats = (low + high) // 2
        outcomes = _outcomes(pool, noise, repeats, _GAIN, confidence, experiments)
        found[repeats] = outcomes.count(Outcome.BETTER) / experiments
        low, high = (low, repeats - 1) if found[repeats] >= _POWER else (repeats + 1, high)
    return dict(sorted(found.items()))


def _told(power: Mapping[int, float]) -> str:
    return ", ".join(f"{repeats}: {rate:.0%}" for repeats, rate in power.items())


if __name__ == "__main__":
    raise SystemExit(main())
