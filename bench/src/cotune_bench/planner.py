"""`make bench-planner`: recorded starts of vLLM beside their prediction, before and after calibrating on one start.

Files are recordings of starts (tests/data/planner) and surfaces (tests/data/surfaces); of these
the speech servers' memory is held against its prediction as well.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from cotune.planning.calibration import ObservedStart, Subject, calibrate
from cotune.planning.cards import Card, UnknownCardError, card
from cotune.planning.model_config import ModelConfig, ModelConfigError, read_model_config
from cotune.planning.sizes import GIB, MIB, gib
from cotune.planning.vllm import (
    ArgumentError,
    CompileCache,
    Refusal,
    VllmPlan,
    VllmSettings,
    plan_vllm,
    settings_from_arguments,
)
from cotune.planning.vllm_settings import WRITTEN_ON, Version, read_version

from cotune_bench.speech_memory import SpeechRow, speech_rows
from cotune_bench.surface_starts import is_surface, recorded_starts
from cotune_bench.table import print_table, write_result

_REFUSALS = (
    (Refusal.NO_CACHE_BLOCKS, "No available memory for the cache blocks"),
    (Refusal.CONTEXT_TOO_LONG, "To serve at least one request with the model"),
    (Refusal.CARD_TAKEN, "Free memory on device"),
    (Refusal.PROFILING_DISTURBED, "Error in memory profiling"),
    (Refusal.CUDA_OUT_OF_MEMORY, "CUDA out of memory"),
)
_UNKNOWN = "Unknown"
"""It ended with words that are none of these; or the planner says that it does not know."""
_NO_REFUSAL = frozenset({"starts", _UNKNOWN})
_STATED = {
    "gpuMemoryUtilization": "gpu_memory_utilization",
    "maxModelLen": "max_model_len",
    "maxNumBatchedTokens": "max_num_batched_tokens",
    "maxNumSeqs": "max_num_seqs",
    "kvCacheDtype": "kv_cache_dtype",
    "blockSize": "block_size",
    "tensorParallelSize": "tensor_parallel_size",
    "quantization": "quantization",
    "dtype": "dtype",
}
"""Keys of a start that are arguments of vLLM."""
_COMPILE_SECONDS = 17 - 3
"""By which a cold compilation cache makes a start longer, as the notes of the recorded H200 have it."""
_RELEASED = re.compile(r"held (\d+) GiB and released it while vLLM profiled")


@dataclass(frozen=True)
class Case:
    """One start that was recorded."""

    name: str
    model: str
    config: ModelConfig | None
    """None: the planner does not understand it, and says nothing of the start."""
    why_not: str
    """What it does not understand of the model or the arguments."""
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
    predicted: float | None
    """None: the planner says that it does not know."""
    error: float | None
    calibrated_error: float | None
    """None: no measurement, or the start that was calibrated on."""
    compile_cache: str
    """As recorded, or with a `~` as inferred from the time that the start took; empty where nothing is compiled."""
    refusal: str
    predicted_refusal: str
    doubts: tuple[str, ...] = ()
    """Why the prediction may be wrong, or is none."""

    @property
    def is_right(self) -> bool:
        """Whether the start was predicted to end as it did."""
        return self.refusal == self.predicted_refusal


def read_cases(file: Path) -> tuple[Card, tuple[Case, ...]]:
    """The starts of a file in the schema of tests/data/planner or of a surface; what it lacks is vLLM's default.

    A model or an argument that the planner does not understand spoils its own starts only.

    Raises:
        UnknownCardError: there is no data on the card, and the file does not say how large it is.
        ValueError, KeyError: it is no such file.
    """
    recorded = cast("dict[str, Any]", json.loads(file.read_text()))
    if is_surface(recorded):
        recorded = recorded_starts(recorded, file.parent.name)
    meta: dict[str, Any] = recorded["meta"]
    product = _card(meta)
    idle = int(meta.get("gpuIdleMiB", product.driver_bytes // MIB))
    configs = {name: _config(it) for name, it in cast("dict[str, Any]", meta["models"]).items()}
    version = read_version(str(meta.get("vllm") or "")) or WRITTEN_ON
    return product, tell_caches([_case(it, configs, idle, version) for it in recorded["starts"]])


def _card(meta: Mapping[str, Any]) -> Card:
    """The card that a recording names, as large as it says; of an unknown one everything else is an H100's."""
    name = str(meta["gpu"]).replace(" ", "-")
    size = meta.get("gpuTotalBytes") or round(float(meta.get("gpuTotalGiB") or 0) * GIB)
    try:
        product = card(name)
    except UnknownCardError:
        if not size:
            raise
        print(f"no data on card {name}: its size is the recording's, the rest is modelled", file=sys.stderr)
        return replace(card("NVIDIA-H100-80GB-HBM3"), product=name, total_bytes=int(size), measured=frozenset())
    return replace(product, total_bytes=int(meta["gpuTotalBytes"])) if "gpuTotalBytes" in meta else product


def _config(published: Any) -> ModelConfig | str:
    """A model's configuration, or why it is not understood."""
    try:
        return read_model_config(json.dumps(published))
    except ModelConfigError as error:
        return str(error)


def tell_caches(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Infer what is not recorded: which starts found a cold compilation cache.

    A machine that is recorded on begins bare, so that a model's first compiled start compiles. Of one model's compiled
    starts, those longer than the quickest by more than half of what compiling costs did so, and the others did not;
    where all took about as long, all did. Times of imports vary as well: an inference. Without times, and for starts
    that were refused before the cache mattered, nothing is told.
    """
    times: dict[str, list[float]] = {}
    for it in cases:
        if _is_compiled(it) and it.seconds is not None and it.refusal is None:
            times.setdefault(it.model, []).append(it.seconds)

    def told(case: Case) -> Case:
        known = times.get(case.model, [])
        unknown = _is_compiled(case) and case.settings.compile_cache is CompileCache.UNKNOWN
        if not unknown or case.seconds is None or not known:
            return case
        are_alike = max(known) - min(known) <= _COMPILE_SECONDS / 2
        is_cold = are_alike or (case.refusal is None and case.seconds - min(known) > _COMPILE_SECONDS / 2)
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
        plan = _plan(first, product) if first is not None else ""
        if first is None or first.config is None or isinstance(plan, str):
            continue
        if first.measured_kv is not None:
            subject = Subject(model, product.product, "")
            start = ObservedStart(subject, first.settings, round(first.measured_kv * GIB))
            offsets[model] = calibrate([start], {model: first.config}, product)[subject]
            learned.add(first.name)
    return tuple(_row(it, product, offsets.get(it.model), it.name in learned) for it in cases)


def ends(row: Row) -> frozenset[str]:
    """How it ended and how it was to end."""
    return frozenset({row.refusal, row.predicted_refusal})


def main() -> int:
    """Print the table and write build/bench/planner.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        files = [read_cases(it) for it in options.cases]
        speech = speech_rows(options.cases)
    except (OSError, ValueError, KeyError) as error:
        print(f"bench-planner: error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    rows = [row for product, cases in files for row in evaluate(product, cases)]
    largest = [it for product, cases in files if (it := largest_calibrated_error(product, cases)) is not None]
    print_table(
        ("START", "CACHE", "MEASURED GiB", "PREDICTED", "ERROR", "CALIBRATED", "ENDED", "PREDICTED", "", ""),
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
                "" if it.is_right else "unknown" if it.predicted_refusal == _UNKNOWN else "WRONG",
                "; ".join(it.doubts),
            )
            for it in rows
        ],
    )
    errors = [abs(it.error) for it in rows if it.error is not None]
    calibrated = [abs(it.calibrated_error) for it in rows if it.calibrated_error is not None]
    _print_speech(speech)
    result = {
        "starts": [asdict(it) for it in rows],
        "speechServers": [{**asdict(it), "error": it.error} for it in speech],
        "largestSpeechErrorMiB": max((abs(it.error) for it in speech), default=None),
        "largestErrorGiB": max(errors, default=None),
        "largestCalibratedErrorGiB": max(calibrated, default=None),
        "largestErrorCalibratedOnAnyStartGiB": max(largest, default=None),
        "wrongFits": sum(it.refusal != "starts" and it.predicted_refusal == "starts" for it in rows),
        "wrongDoesNotFit": sum(it.refusal == "starts" and it.predicted_refusal not in _NO_REFUSAL for it in rows),
        "otherRefusal": sum("starts" not in ends(it) and not it.is_right for it in rows),
        "unknown": sum(it.predicted_refusal == _UNKNOWN for it in rows),
    }
    write_result("planner", result)
    if any(it.compile_cache.startswith("~") for it in rows):
        print("~ not recorded: inferred from the time that the start took (docs/how-to/plan-memory.md)")
    print(
        f"largest error {_fine(result['largestErrorGiB'])} GiB, calibrated on the first start of each model "
        f"{_fine(result['largestCalibratedErrorGiB'])} GiB, on any one of them "
        f"{_fine(result['largestErrorCalibratedOnAnyStartGiB'])} GiB; wrong 'fits' {result['wrongFits']}, "
        f"wrong 'does not fit' {result['wrongDoesNotFit']}, another refusal {result['otherRefusal']}, "
        f"not predicted {result['unknown']}"
    )
    return 0


def _print_speech(rows: Sequence[SpeechRow]) -> None:
    if rows:
        print_table(
            ("SPEECH SERVER", "SIZE", "READY MiB", "MEASURED MiB", "PREDICTED", "ERROR"),
            [
                (
                    it.recording,
                    it.size,
                    f"{it.at_start:.0f}",
                    f"{it.measured:.0f}",
                    f"{it.predicted:.0f}",
                    f"{it.error:+.0f}",
                )
                for it in rows
            ],
        )


def _case(start: Mapping[str, Any], configs: Mapping[str, ModelConfig | str], idle_mib: int, version: Version) -> Case:
    released = _RELEASED.search(start.get("note") or "")
    config = configs.get(start["model"], f"meta.models has no {start['model']}")
    settings, why_not = VllmSettings(), config if isinstance(config, str) else ""
    try:
        settings = settings_from_arguments([str(it) for it in start.get("arguments") or ()])
    except ArgumentError as error:
        why_not = why_not or str(error)
    stated = {ours: start[theirs] for theirs, ours in _STATED.items() if start.get(theirs) is not None}
    return Case(
        name=str(start["name"]),
        model=str(start["model"]),
        config=None if why_not or isinstance(config, str) else config,
        why_not=why_not,
        settings=replace(
            settings,
            **stated,
            enforce_eager=bool(start.get("enforceEager", settings.enforce_eager)),
            compile_cache=CompileCache(start.get("compileCache") or CompileCache.UNKNOWN),
            version=version,
        ),
        taken=max(0, int(start.get("gpuUsedMiBBefore") or idle_mib) - idle_mib) * MIB,
        freed_while_profiling=int(released[1]) * GIB if released else 0,
        measured_kv=_number(start.get("availableKvGiB")),
        refusal=_refusal(start.get("error"), is_started=start.get("started") is not False),
        seconds=_number(start.get("startupSeconds")),
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _refusal(error: str | None, is_started: bool) -> str | None:
    if not error:
        return None if is_started else _UNKNOWN
    return next((str(refusal) for refusal, words in _REFUSALS if words in error), _UNKNOWN)


def _row(case: Case, product: Card, offset: int | None, is_learned: bool) -> Row:
    ended = case.refusal or "starts"
    plan = _plan(case, product)
    if isinstance(plan, str):
        return Row(case.name, case.measured_kv, None, None, None, _cache(case), ended, _UNKNOWN, (plan,))
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
        ended,
        str(plan.refusal or "starts"),
        plan.doubts,
    )


def _plan(case: Case, product: Card) -> VllmPlan | str:
    """The prediction, or why there is none."""
    if case.config is None:
        return case.why_not
    try:
        freed = case.freed_while_profiling
        return plan_vllm(case.config, case.settings, product, case.taken, freed_while_profiling=freed)
    except ModelConfigError as error:
        return str(error)


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
