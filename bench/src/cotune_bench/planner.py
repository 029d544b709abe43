"""`make bench-planner`: recorded starts of vLLM beside their prediction, before and after calibrating on one start."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from cotune.planning.calibration import ObservedStart, Subject, calibrate
from cotune.planning.cards import Card, card
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.planning.sizes import GIB, MIB, gib
from cotune.planning.vllm import CompileCache, Refusal, VllmSettings, plan_vllm, settings_from_arguments

from cotune_bench.table import print_table, write_result

_REFUSALS = (
    (Refusal.NO_CACHE_BLOCKS, "No available memory for the cache blocks"),
    (Refusal.CONTEXT_TOO_LONG, "To serve at least one request with the model"),
    (Refusal.CARD_TAKEN, "Free memory on device"),
    (Refusal.PROFILING_DISTURBED, "Error in memory profiling"),
    (Refusal.CUDA_OUT_OF_MEMORY, "CUDA out of memory"),
)
_UNKNOWN = "Unknown"
"""It ended with words that are none of these."""
_COMPILE_SECONDS = 17 - 3
"""By which a cold compilation cache makes a start longer, as the notes of the recorded H200 have it."""
_RELEASED = re.compile(r"held (\d+) GiB and released it while vLLM profiled")


@dataclass(frozen=True)
class Case:
    """One start that was recorded."""

    name: str
    model: str
    config: ModelConfig
    settings: VllmSettings
    taken: int
    freed_while_profiling: int
    measured_kv: float | None
    """GiB, as the log has it; None when vLLM refused before it knew."""
    refusal: str | None
    """None: it started."""
    seconds: float | None
    """To readiness."""
    is_cache_inferred: bool = False
    """Whether the state of the compilation cache is not recorded but inferred."""


@dataclass(frozen=True)
class Row:
    """One start and its prediction; sizes in GiB."""

    name: str
    measured: float | None
    predicted: float
    error: float | None
    calibrated_error: float | None
    """None: no measurement, or the start that was calibrated on."""
    compile_cache: str
    """As recorded, or with a `~` as inferred from the time that the start took; empty where nothing is compiled."""
    refusal: str
    predicted_refusal: str

    @property
    def is_right(self) -> bool:
        """Whether the start was predicted to end as it did."""
        return self.refusal == self.predicted_refusal


def read_cases(file: Path) -> tuple[Card, tuple[Case, ...]]:
    """The starts of a file in the schema of tests/data/planner.

    Raises:
        UnknownCardError: there is no data on the card.
        ModelConfigError: a configuration is none that the planner understands.
        KeyError: a field is missing.
    """
    recorded = cast("dict[str, Any]", json.loads(file.read_text()))
    meta: dict[str, Any] = recorded["meta"]
    product = card(str(meta["gpu"]).replace(" ", "-"))
    if "gpuTotalBytes" in meta:
        product = replace(product, total_bytes=int(meta["gpuTotalBytes"]))
    idle = int(meta.get("gpuIdleMiB", product.driver_bytes // MIB))
    configs = {name: read_model_config(json.dumps(it)) for name, it in meta["models"].items()}
    return product, tell_caches([_case(it, configs, idle) for it in recorded["starts"]])


def tell_caches(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Infer what is not recorded: which starts found a cold compilation cache.

    Of one model's compiled starts, those longer than the quickest by more than half of what compiling costs; where all
    took about as long, nothing can be told, and they stay unknown. Times of imports vary as well: an inference.
    """
    times: dict[str, list[float]] = {}
    for it in cases:
        if _is_compiled(it) and it.seconds is not None and it.refusal is None:
            times.setdefault(it.model, []).append(it.seconds)

    def told(case: Case) -> Case:
        known = times.get(case.model, [])
        unknown = _is_compiled(case) and case.settings.compile_cache is CompileCache.UNKNOWN
        if not unknown or case.seconds is None or max(known, default=0) - min(known, default=0) <= _COMPILE_SECONDS / 2:
            return case
        is_cold = case.refusal is None and case.seconds - min(known) > _COMPILE_SECONDS / 2
        state = CompileCache.COLD if is_cold else CompileCache.WARM
        return replace(case, settings=replace(case.settings, compile_cache=state), is_cache_inferred=True)

    return tuple(told(it) for it in cases)


def largest_calibrated_error(product: Card, cases: Sequence[Case]) -> float | None:
    """GiB, over every choice of the start to calibrate on, each predicting all others of its model."""
    names = [it.name for it in cases if it.measured_kv is not None and it.refusal is None]
    rows = [row for name in names for row in evaluate(product, cases, name)]
    return max((abs(it.calibrated_error) for it in rows if it.calibrated_error is not None), default=None)


def evaluate(product: Card, cases: Sequence[Case], calibrate_on: str | None = None) -> tuple[Row, ...]:
    """Predict every case; `calibrate_on` names the start to learn from, by default the first that has a figure."""
    known = [it for it in cases if it.measured_kv is not None and it.refusal is None]
    offsets: dict[str, int] = {}
    learned: set[str] = set()
    for model in dict.fromkeys(it.model for it in cases):
        first = next((it for it in known if it.model == model and calibrate_on in {None, it.name}), None)
        if first is not None and first.measured_kv is not None:
            subject = Subject(model, product.product, "")
            start = ObservedStart(subject, first.settings, round(first.measured_kv * GIB))
            offsets[model] = calibrate([start], {model: first.config}, product)[subject]
            learned.add(first.name)
    return tuple(_row(it, product, offsets.get(it.model), it.name in learned) for it in cases)


def main() -> int:
    """Print the table and write build/bench/planner.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        files = [read_cases(it) for it in options.cases]
    except (OSError, ValueError, KeyError) as error:
        print(f"bench-planner: error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    rows = [row for product, cases in files for row in evaluate(product, cases)]
    largest = [it for product, cases in files if (it := largest_calibrated_error(product, cases)) is not None]
    print_table(
        ("START", "CACHE", "MEASURED GiB", "PREDICTED", "ERROR", "CALIBRATED", "ENDED", "PREDICTED", ""),
        [
            (
                it.name,
                it.compile_cache,
                _figure(it.measured),
                _figure(it.predicted),
                _signed(it.error),
                _signed(it.calibrated_error),
                it.refusal,
                it.predicted_refusal,
                "" if it.is_right else "WRONG",
            )
            for it in rows
        ],
    )
    errors = [abs(it.error) for it in rows if it.error is not None]
    calibrated = [abs(it.calibrated_error) for it in rows if it.calibrated_error is not None]
    result = {
        "starts": [asdict(it) for it in rows],
        "largestErrorGiB": max(errors, default=None),
        "largestCalibratedErrorGiB": max(calibrated, default=None),
        "largestErrorCalibratedOnAnyStartGiB": max(largest, default=None),
        "wrongFits": sum(it.refusal != "starts" and it.predicted_refusal == "starts" for it in rows),
        "wrongDoesNotFit": sum(it.refusal == "starts" and it.predicted_refusal != "starts" for it in rows),
    }
    write_result("planner", result)
    if any(it.compile_cache.startswith("~") for it in rows):
        print("~ not recorded: inferred from the time that the start took (docs/how-to/plan-memory.md)")
    print(
        f"largest error {_fine(result['largestErrorGiB'])} GiB, calibrated on the first start of each model "
        f"{_fine(result['largestCalibratedErrorGiB'])} GiB, on any one of them "
        f"{_fine(result['largestErrorCalibratedOnAnyStartGiB'])} GiB; wrong 'fits' {result['wrongFits']}, "
        f"wrong 'does not fit' {result['wrongDoesNotFit']}"
    )
    return 0


def _case(start: Mapping[str, Any], configs: Mapping[str, ModelConfig], idle_mib: int) -> Case:
    released = _RELEASED.search(start.get("note") or "")
    return Case(
        name=str(start["name"]),
        model=str(start["model"]),
        config=configs[start["model"]],
        settings=replace(
            settings_from_arguments(start.get("arguments", ())),
            gpu_memory_utilization=start["gpuMemoryUtilization"],
            max_model_len=start["maxModelLen"],
            enforce_eager=bool(start["enforceEager"]),
            max_num_batched_tokens=start.get("maxNumBatchedTokens"),
            max_num_seqs=start.get("maxNumSeqs"),
            compile_cache=CompileCache(start.get("compileCache") or CompileCache.UNKNOWN),
        ),
        taken=max(0, int(start["gpuUsedMiBBefore"]) - idle_mib) * MIB,
        freed_while_profiling=int(released[1]) * GIB if released else 0,
        measured_kv=start.get("availableKvGiB"),
        refusal=_refusal(start.get("error")),
        seconds=start.get("startupSeconds"),
    )


def _refusal(error: str | None) -> str | None:
    if error is None:
        return None
    return next((str(refusal) for refusal, words in _REFUSALS if words in error), _UNKNOWN)


def _row(case: Case, product: Card, offset: int | None, is_learned: bool) -> Row:
    plan = plan_vllm(case.config, case.settings, product, case.taken, freed_while_profiling=case.freed_while_profiling)
    predicted = gib(plan.kv_cache)
    error = None if case.measured_kv is None else predicted - case.measured_kv
    calibrated = None if error is None or offset is None or is_learned else error - gib(offset)
    return Row(
        case.name,
        case.measured_kv,
        predicted,
        error,
        calibrated,
        _cache(case),
        case.refusal or "starts",
        str(plan.refusal or "starts"),
    )


def _is_compiled(case: Case) -> bool:
    return not case.settings.enforce_eager


def _cache(case: Case) -> str:
    return ("~" if case.is_cache_inferred else "") + case.settings.compile_cache if _is_compiled(case) else ""


def _figure(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "-"


def _fine(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _signed(value: float | None) -> str:
    return f"{value:+.3f}" if value is not None else "-"


if __name__ == "__main__":
    sys.exit(main())
