"""`make bench-plan-scale`: 10,000 candidates planned, beside a loop that reads the model's configuration every time."""

import sys
import time
from pathlib import Path

import yaml
from cotune.api.experiment import ExperimentSpec, Range
from cotune.planning.candidates import plan_space, servers
from cotune.planning.cards import card
from cotune.planning.model_config import read_model_config
from cotune.planning.stack import plan_stack
from cotune.search.space import Space

from cotune_bench.table import print_table, write_result

_EXAMPLE = Path(__file__).parents[3] / "examples" / "voice-stack.yaml"
_NAIVE_SAMPLE = 500


def main() -> int:
    """Print the table and write build/bench/plan-scale.json."""
    models, experiment = yaml.safe_load_all(_EXAMPLE.read_text())
    text = next(iter(models["data"].values()))
    spec = _enlarged(ExperimentSpec.model_validate(experiment["spec"]))
    product = card("NVIDIA-GeForce-RTX-3060")
    started = time.perf_counter()
    planned = plan_space(spec, product, {"judge": read_model_config(text)})
    seconds = time.perf_counter() - started

    candidates = list(Space(spec.parameters))[:_NAIVE_SAMPLE]
    started = time.perf_counter()
    for candidate in candidates:
        again = ExperimentSpec.model_validate(spec.model_dump(by_alias=True))
        plan_stack(servers(again, candidate, {"judge": read_model_config(text)}, {}), product)
    naive = (time.perf_counter() - started) / len(candidates)

    each = seconds / len(planned)
    print_table(
        ("WAY", "CANDIDATES", "SECONDS", "MICROSECONDS EACH", "RATIO"),
        [
            ("plan_space", f"{len(planned):,}", f"{seconds:.2f}", f"{each * 1e6:.0f}", "1"),
            (
                f"naive loop (from {len(candidates)})",
                f"{len(planned):,}",
                f"{naive * len(planned):.2f}",
                f"{naive * 1e6:.0f}",
                f"{naive / each:.1f}",
            ),
        ],
    )
    fitting = sum(it.plan.fits for it in planned)
    print(f"{fitting:,} of {len(planned):,} candidates fit")
    write_result(
        "plan-scale",
        {"candidates": len(planned), "seconds": seconds, "secondsEach": each, "naiveSecondsEach": naive},
    )
    return 0


def _enlarged(spec: ExperimentSpec) -> ExperimentSpec:
    """The example's space with 3,334 shares of memory for the language model: 10,002 candidates."""
    fine = Range(min="0.3000", max="0.6333", step="0.0001")
    memory, whisper = spec.parameters
    return spec.model_copy(update={"parameters": (memory.model_copy(update={"range": fine}), whisper)})


if __name__ == "__main__":
    sys.exit(main())
