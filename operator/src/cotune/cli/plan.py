"""`cotune plan -f experiment.yaml`: what fits on the card, before anything starts; needs no cluster and no GPU."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from cotune.api.experiment import Component, ExperimentSpec, MemoryModel, ModelConfigRef
from cotune.cli.model_files import NoModelError, model_folder, named_model, read_model_folder
from cotune.cli.plan_report import Report, as_html, as_json, as_table
from cotune.planning.candidates import Known, SpacePlanner, command_line, plan_space, read_published
from cotune.planning.cards import Card, UnknownCardError, card
from cotune.planning.model_config import ModelConfig, ModelConfigError
from cotune.planning.server import PlanningError
from cotune.planning.sizes import GIB, MIB
from cotune.search.space import Space

_DONE, _FAILED, _NOTHING_FEASIBLE = 0, 1, 3
_RENDER = {"table": as_table, "json": as_json, "html": as_html}


_LARGEST_LISTED = 100_000


class InputError(ValueError):
    """The files do not hold what a plan needs; the message is one line."""


@dataclass(frozen=True)
class _Input:
    """What a file says."""

    name: str
    spec: ExperimentSpec
    configs: Mapping[str, ModelConfig]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-f", "--filename", type=Path, required=True, help="YAML with the experiment and its ConfigMaps"
    )
    parser.add_argument("-o", "--output", choices=sorted(_RENDER), default="table")
    parser.add_argument(
        "--model",
        type=_assignment,
        action="append",
        default=[],
        metavar="COMPONENT=MODEL",
        help="a folder with config.json and the weights' files, or a name that the hub's cache has; without it the "
        "ConfigMap that the experiment names, else the model that vLLM's arguments name",
    )
    parser.add_argument(
        "--observed",
        type=_amount,
        action="append",
        default=[],
        metavar="COMPONENT=GIB",
        help='what the log of the baseline calls "Available KV cache memory": corrects the plan of all candidates',
    )
    parser.add_argument("--taken", type=int, default=0, metavar="MIB", help="what others hold on the card all the time")
    parser.add_argument(
        "--mps-replicas",
        type=_positive,
        default=0,
        metavar="N",
        help="into how many shares a node with MPS divides its card: each client may hold one of them",
    )
    parser.set_defaults(run=_run)


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"not of the form COMPONENT=...: {text}")
    return name, value


def _amount(text: str) -> tuple[str, int]:
    name, value = _assignment(text)
    try:
        return name, round(float(value) * GIB)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a number of GiB: {value}") from error


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _run(options: argparse.Namespace) -> int:
    try:
        found = _read(options.filename, dict(options.model))
        if found.spec.gpu is None:
            raise InputError("the experiment has no spec.gpu: there is no card to plan for")
        product = card(found.spec.gpu.product)
        size = len(Space(found.spec.parameters))
        if size > _LARGEST_LISTED:
            raise InputError(f"the parameters span {size:,} candidates, and at most {_LARGEST_LISTED:,} are listed")
        known = Known(taken=options.taken * MIB, shares=options.mps_replicas)
        known = _corrected(known, found, product, dict(options.observed))
        planned = plan_space(found.spec, product, found.configs, known)
        refused = [it.candidate for it in planned if not it.plan.fits]
        order = SpacePlanner(found.spec, product, found.configs, known).better_order(refused)
    except (InputError, PlanningError, UnknownCardError, ModelConfigError, NoModelError) as error:
        print(f"cotune: error: {error.args[0]}", file=sys.stderr)
        return _FAILED
    unplanned = tuple(it.name for it in found.spec.stack.components if it.memory is None)
    _print(_RENDER[options.output](Report(found.name, product, planned, unplanned, order or ())))
    return _DONE if any(it.plan.fits for it in planned) else _NOTHING_FEASIBLE


def _print(text: str) -> None:
    """To whoever reads: a pager that was closed early wants no more, and that is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _corrected(known: Known, found: _Input, product: Card, observed: Mapping[str, int]) -> Known:
    """With what the baseline's start took beyond the prediction, as a trial of it would have taught the operator."""
    baseline = SpacePlanner(found.spec, product, found.configs, known).plan(Space(found.spec.parameters).baseline)
    for name in observed:
        if name not in baseline.language_models:
            raise InputError(f"--observed: the plan of the baseline has no language model {name}")
    offsets = {name: baseline.language_models[name].kv_cache - size for name, size in observed.items()}
    return replace(known, offsets=offsets)


def _read(file: Path, models: Mapping[str, str]) -> _Input:
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
    if (source := spec.stack.from_namespace) is not None:
        raise InputError(f"the stack is copied from namespace {source.name}: spell its templates out to plan them here")
    maps: dict[str, dict[str, str]] = {
        it["metadata"]["name"]: it.get("data") or {} for it in found if it.get("kind") == "ConfigMap"
    }
    served = [it for it in spec.stack.components if it.memory is not None and it.memory.model is MemoryModel.VLLM]
    for name in models:
        if name not in {it.name for it in served}:
            raise InputError(f"--model: no component {name} with memory.model VLLM")
    configs = {it.name: _config(it, maps, models.get(it.name), file) for it in served}
    return _Input(str(experiments[0]["metadata"]["name"]), spec, configs)


def _config(component: Component, maps: Mapping[str, Mapping[str, str]], chosen: str | None, file: Path) -> ModelConfig:
    """As it was asked for, as the ConfigMap has it, or as this machine has the model that the server loads."""
    if chosen is not None:
        return read_model_folder(model_folder(chosen))
    reference = component.memory.config_ref if component.memory is not None else None
    if reference is not None and reference.config_map in maps:
        return read_published(component.name, reference, maps[reference.config_map])
    named = named_model(command_line(component))
    if named is not None:
        try:
            return read_model_folder(model_folder(named))
        except NoModelError as error:
            raise InputError(f"{component.name}: {_no_map(reference, file)}; {error.args[0]}") from error
    raise InputError(f"{component.name}: {_no_map(reference, file)}")


def _no_map(reference: ModelConfigRef | None, file: Path) -> str:
    return f"{file} has no ConfigMap {reference.config_map} with {reference.key}" if reference else "no configRef"
