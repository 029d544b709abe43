"""`make bench-plan-scale`: 10,000 candidates planned, beside a loop that reads everything anew each time.

100,000 (with `LARGE=1` 1,000,000, the most that are planned) are then surveyed as the operator does it: in a thread,
while its event loop goes on.
"""

import argparse
import asyncio
import resource
import sys
import time
from pathlib import Path

import yaml
from cotune.api.experiment import Bind, ExperimentSpec, Parameter, Range
from cotune.experiments.predictions import SpacePlan, plan_experiment
from cotune.planning.candidates import SpacePlanner, plan_space
from cotune.planning.cards import card
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.search.space import Space

from cotune_bench.table import print_table, write_result

_EXAMPLE = Path(__file__).parents[3] / "examples" / "voice-stack.yaml"
_NAIVE_SAMPLE = 500
_TICK_SECONDS = 0.005
_LENGTHS_OF_A_MILLION = 500


def main() -> int:
    """Print the table and write build/bench/plan-scale.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="survey 1,000,000 candidates: some minutes")
    lengths = _LENGTHS_OF_A_MILLION if parser.parse_args().large else _LENGTHS_OF_A_MILLION // 10
    models, experiment = yaml.safe_load_all(_EXAMPLE.read_text())
    text = next(iter(models["data"].values()))
    example = ExperimentSpec.model_validate(experiment["spec"])
    spec, configs = _enlarged(example), {"judge": read_model_config(text)}
    product = card("NVIDIA-GeForce-RTX-3060")
    resident = _resident_mib()
    started = time.perf_counter()
    planned = plan_space(spec, product, configs)
    seconds = time.perf_counter() - started
    fitting, size = sum(it.plan.fits for it in planned), len(planned)
    listed_mib = _resident_mib() - resident
    del planned

    candidates = list(Space(spec.parameters))[:_NAIVE_SAMPLE]
    started = time.perf_counter()
    for candidate in candidates:
        again = ExperimentSpec.model_validate(spec.model_dump(by_alias=True))
        SpacePlanner(again, product, {"judge": read_model_config(text)}).plan(candidate)
    naive = (time.perf_counter() - started) / len(candidates)

    resident, started = _resident_mib(), time.perf_counter()
    plan, longest_gap = asyncio.run(_surveyed(_huge(example, lengths), configs))
    huge_seconds = time.perf_counter() - started
    huge_mib, summary = _resident_mib() - resident, plan.summary
    if summary is None:
        raise ValueError(f"{_EXAMPLE}: no component says what it holds on the card")

    each = seconds / size
    print_table(
        ("WAY", "CANDIDATES", "SECONDS", "MICROSECONDS EACH", "RATIO", "MEMORY MiB"),
        [
            ("plan_space", f"{size:,}", f"{seconds:.2f}", f"{each * 1e6:.0f}", "1", f"{listed_mib:.0f}"),
            (
                f"naive loop (from {len(candidates)})",
                f"{size:,}",
                f"{naive * size:.2f}",
                f"{naive * 1e6:.0f}",
                f"{naive / each:.1f}",
                "-",
            ),
            (
                "survey, in a thread",
                f"{summary.candidates:,}",
                f"{huge_seconds:.2f}",
                f"{huge_seconds / summary.candidates * 1e6:.0f}",
                f"{huge_seconds / summary.candidates / each:.1f}",
                f"{huge_mib:.0f}",
            ),
        ],
    )
    print(f"{fitting:,} of {size:,} candidates fit; {summary.fitting:,} of {summary.candidates:,}")
    print(f"while the larger space was planned, the event loop waited at most {longest_gap * 1000:.0f} ms")
    print(f"the process's memory: {_resident_mib():.0f} MiB at most")
    write_result(
        "plan-scale",
        {
            "candidates": size,
            "seconds": seconds,
            "secondsEach": each,
            "naiveSecondsEach": naive,
            "surveyCandidates": summary.candidates,
            "surveySeconds": huge_seconds,
            "surveyMiB": huge_mib,
            "eventLoopLongestGapSeconds": longest_gap,
            "processMiB": _resident_mib(),
        },
    )
    return 0


async def _surveyed(spec: ExperimentSpec, configs: "dict[str, ModelConfig]") -> tuple[SpacePlan, float]:
    """The survey, and by how much it delayed a task that wants to run every few milliseconds; seconds."""
    survey = asyncio.create_task(asyncio.to_thread(plan_experiment, spec, configs, {}))
    longest = 0.0
    while not survey.done():
        before = time.perf_counter()
        await asyncio.sleep(_TICK_SECONDS)
        longest = max(longest, time.perf_counter() - before - _TICK_SECONDS)
    return await survey, longest


def _resident_mib() -> float:
    """The most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _enlarged(spec: ExperimentSpec) -> ExperimentSpec:
    """The example's space with 3,334 shares of memory for the language model: 10,002 candidates."""
    fine = Range(min="0.3000", max="0.6333", step="0.0001")
    memory, whisper = spec.parameters
    return spec.model_copy(update={"parameters": (memory.model_copy(update={"range": fine}), whisper)})


def _huge(spec: ExperimentSpec, lengths: int) -> ExperimentSpec:
    """1,000 shares of memory, so many lengths of the context, two sizes of Whisper: no two stacks are alike."""
    memory, whisper = spec.parameters
    length = Parameter(
        name="length",
        bind=Bind(component="judge", env="JUDGE_LENGTH"),
        range=Range(min="16", max=str(16 * lengths), step="16"),
        baseline="512",
    )
    parameters = (
        memory.model_copy(update={"range": Range(min="0.3000", max="0.6996", step="0.0004")}),
        length,
        whisper.model_copy(update={"values": ("tiny", "small")}),
    )
    neighbour, judge, stt = spec.stack.components
    pod = judge.template["spec"]
    server = pod["containers"][0]
    arguments = [it.replace("2048", "$(JUDGE_LENGTH)") if "max-model-len" in it else it for it in server["args"]]
    template = {**judge.template, "spec": {**pod, "containers": [{**server, "args": arguments}]}}
    components = (neighbour, judge.model_copy(update={"template": template}), stt)
    stack = spec.stack.model_copy(update={"components": components})
    return spec.model_copy(update={"parameters": parameters, "stack": stack})


if __name__ == "__main__":
    sys.exit(main())
