"""`cotune plan -f experiment.yaml`: what fits on the card, before anything starts; needs no cluster and no GPU."""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from cotune.api.experiment import ExperimentSpec, MemoryModel
from cotune.cli.plan_report import Report, as_html, as_json, as_table
from cotune.planning.candidates import PlanningError, SpacePlanner, plan_space
from cotune.planning.cards import UnknownCardError, card
from cotune.planning.model_config import ModelConfig, ModelConfigError, read_model_config
from cotune.search.space import Space

_DONE, _FAILED, _NOTHING_FEASIBLE = 0, 1, 3
_RENDER = {"table": as_table, "json": as_json, "html": as_html}


_LARGEST_LISTED = 100_000


class InputError(ValueError):
    """The files do not hold what a plan needs; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-f", "--filename", type=Path, required=True, help="YAML with the experiment and its ConfigMaps"
    )
    parser.add_argument("-o", "--output", choices=sorted(_RENDER), default="table")
    parser.add_argument(
        "--mps-replicas",
        type=_positive,
        help="into how many shares a node with MPS divides its card: each client may hold one of them",
    )
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _run(options: argparse.Namespace) -> int:
    try:
        name, spec, configs = _read(options.filename)
        if spec.gpu is None:
            raise InputError("the experiment has no spec.gpu: there is no card to plan for")
        product = card(spec.gpu.product)
        size = len(Space(spec.parameters))
        if size > _LARGEST_LISTED:
            raise InputError(f"the parameters span {size:,} candidates, and at most {_LARGEST_LISTED:,} are listed")
        planned = plan_space(spec, product, configs, None, options.mps_replicas)
        refused = [it.candidate for it in planned if not it.plan.fits]
        order = SpacePlanner(spec, product, configs, None, options.mps_replicas).better_order(refused)
    except (InputError, PlanningError, UnknownCardError, ModelConfigError) as error:
        print(f"cotune: error: {error.args[0]}", file=sys.stderr)
        return _FAILED
    unplanned = tuple(it.name for it in spec.stack.components if it.memory is None)
    print(_RENDER[options.output](Report(name, product, planned, unplanned, order or ())))
    return _DONE if any(it.plan.fits for it in planned) else _NOTHING_FEASIBLE


def _read(file: Path) -> tuple[str, ExperimentSpec, dict[str, ModelConfig]]:
    """The one experiment of a file, and the configurations of its models."""
    try:
        documents = cast("list[object]", list(yaml.safe_load_all(file.read_text())))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from error
    found = [cast("dict[str, Any]", it) for it in documents if isinstance(it, dict)]
    experiments = [it for it in found if it.get("kind") == "GpuAllocationExperiment"]
    if len(experiments) != 1:
        raise InputError(f"{file} holds {len(experiments)} GpuAllocationExperiments, and a plan is of one")
    try:
        spec = ExperimentSpec.model_validate(experiments[0].get("spec"))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{file}: spec.{'.'.join(str(it) for it in first['loc'])}: {first['msg']}") from error
    maps: dict[str, dict[str, str]] = {
        it["metadata"]["name"]: it.get("data") or {} for it in found if it.get("kind") == "ConfigMap"
    }
    return str(experiments[0]["metadata"]["name"]), spec, _configs(spec, maps, file)


def _configs(spec: ExperimentSpec, maps: "dict[str, dict[str, str]]", file: Path) -> dict[str, ModelConfig]:
    configs: dict[str, ModelConfig] = {}
    for component in spec.stack.components:
        memory = component.memory
        if memory is None or memory.model is not MemoryModel.VLLM or memory.config_ref is None:
            continue
        reference = memory.config_ref
        text = maps.get(reference.config_map, {}).get(reference.key)
        if text is None:
            raise InputError(f"{component.name}: {file} has no ConfigMap {reference.config_map} with {reference.key}")
        configs[component.name] = read_model_config(text)
    return configs
