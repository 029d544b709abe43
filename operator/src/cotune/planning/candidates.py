"""From an experiment to the servers of one candidate: arguments and variables as its containers will see them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec, Memory, MemoryModel
from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import MIB
from cotune.planning.stack import DeclaredService, Server, StackPlan, VllmServer, WhisperServer, plan_stack
from cotune.planning.vllm import settings_from_arguments
from cotune.search.space import Candidate, Space
from cotune.trials.render import environment

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class PlanningError(ValueError):
    """The experiment cannot be planned; the message names the component and what is missing."""


@dataclass(frozen=True)
class PlannedCandidate:
    """One candidate and its plan."""

    candidate: Candidate
    plan: StackPlan


def plan_space(
    spec: ExperimentSpec, card: Card, configs: Mapping[str, ModelConfig], offsets: Mapping[str, int] | None = None
) -> tuple[PlannedCandidate, ...]:
    """The plan of every candidate, in the order of the space.

    Args:
        spec: the experiment.
        card: the card that it asks for.
        configs: component to the configuration of its model.
        offsets: component to the bytes that earlier starts took beyond the prediction.

    Raises:
        PlanningError: a component's arguments or size make no sense.
    """
    return tuple(
        PlannedCandidate(it, plan_stack(servers(spec, it, configs, offsets or {}), card))
        for it in Space(spec.parameters)
    )


def servers(
    spec: ExperimentSpec, candidate: Candidate, configs: Mapping[str, ModelConfig], offsets: Mapping[str, int]
) -> tuple[Server, ...]:
    """The services that the planner knows, in their order of start.

    Raises:
        PlanningError: arguments or a size make no sense.
    """
    found: list[Server] = []
    for component in spec.stack.components:
        if component.memory is None:
            continue
        variables = environment(component.name, spec.parameters, candidate)
        try:
            found.append(_server(component, component.memory, variables, configs, offsets.get(component.name, 0)))
        except (ValueError, KeyError) as error:
            raise PlanningError(f"{component.name}: {error.args[0] if error.args else error}") from error
    return tuple(found)


def _server(
    component: Component,
    memory: Memory,
    variables: Mapping[str, str],
    configs: Mapping[str, ModelConfig],
    offset: int,
) -> Server:
    container = _container(component)
    known = {**_literals(container), **variables}
    match memory.model:
        case MemoryModel.VLLM:
            if component.name not in configs:
                raise PlanningError("no config.json of its model is given")
            words = [*container.get("command", ()), *container.get("args", ())]
            settings = settings_from_arguments([expand(str(it), known) for it in words])
            return VllmServer(component.name, configs[component.name], settings, offset)
        case MemoryModel.WHISPER:
            size = known.get(memory.size_env or "")
            if size is None:
                raise PlanningError(f"neither the template nor the candidate sets {memory.size_env}")
            return WhisperServer(component.name, size)
        case MemoryModel.DECLARED:
            return DeclaredService(component.name, (memory.memory_mib or 0) * MIB)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: an unknown name stays as it is, `$$` is one dollar sign."""

    def one(found: "re.Match[str]") -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    return _REFERENCE.sub(one, text)


def _container(component: Component) -> Mapping[str, Any]:
    """The first container is the server, as in `kubectl logs`."""
    containers = cast("list[Mapping[str, Any]]", component.template.get("spec", {}).get("containers") or [{}])
    return containers[0]


def _literals(container: Mapping[str, Any]) -> dict[str, str]:
    entries = cast("list[Mapping[str, Any]]", container.get("env") or [])
    return {str(it["name"]): str(it["value"]) for it in entries if "value" in it}
