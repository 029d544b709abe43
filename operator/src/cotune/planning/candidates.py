"""From an experiment to the servers of one candidate: arguments and variables as its containers will see them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec, Memory, MemoryModel
from cotune.api.sharing import Sharing
from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import MIB
from cotune.planning.stack import DeclaredService, Server, StackPlan, VllmServer, WhisperServer, plan_stack
from cotune.planning.start_order import better_order
from cotune.planning.vllm import CompileCache, Refusal, settings_from_arguments
from cotune.search.space import Candidate, Space

LARGEST_SPACE = 1_000_000
"""More candidates are not planned: a space is held as one byte for each of them, and a pass walks over it."""

_REMEMBERED = 4_000
"""Plans of the same servers that are not computed again."""

_STAND_FOR_ALL = 8
"""Candidates for which orders of start are tried."""
_WHATEVER_THE_ORDER = frozenset({None, Refusal.NO_CACHE_BLOCKS, Refusal.CONTEXT_TOO_LONG, Refusal.CLIENT_LIMIT})
"""What a server finds out about its own budget, whoever started before it."""

_FRESH_VOLUMES = frozenset({"emptyDir", "ephemeral", "configMap", "secret", "projected", "downwardAPI"})
"""Kinds of volumes in which nothing of an earlier pod is found."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class PlanningError(ValueError):
    """The experiment cannot be planned; the message names the component and what is missing."""


@dataclass(frozen=True)
class PlannedCandidate:
    """One candidate and its plan."""

    candidate: Candidate
    plan: StackPlan


class SpacePlanner:
    """Plans the candidates of one experiment; what they have in common is read once."""

    def __init__(
        self,
        spec: ExperimentSpec,
        card: Card,
        configs: Mapping[str, ModelConfig],
        offsets: Mapping[str, int] | None = None,
        mps_replicas: int | None = None,
    ) -> None:
        """Prepare to plan.

        Args:
            spec: the experiment.
            card: the card that it asks for.
            configs: component to the configuration of its model.
            offsets: component to the bytes that earlier starts took beyond the prediction.
            mps_replicas: into how many shares a node with MPS divides its card; None: not known, no cap is planned.

        Raises:
            PlanningError: a language model has no configuration.
        """
        parameter = spec.sharing_parameter
        self._sharing = parameter.name if parameter is not None else None
        self._is_always_mps = parameter is None and spec.baseline_sharing is Sharing.MPS
        self._card = card
        self._card_under_mps = card.under_mps(mps_replicas) if mps_replicas is not None else card
        self._client_limit = card.client_limit(mps_replicas) if mps_replicas is not None else None
        self._components = spec.stack.components
        self._parts = tuple(
            _Part(it, it.memory, spec, configs.get(it.name), (offsets or {}).get(it.name, 0))
            for it in spec.stack.components
            if it.memory is not None
        )
        self._planned: dict[tuple[bool, tuple[int, ...]], StackPlan] = {}

    def plan(self, candidate: Candidate) -> StackPlan:
        """The plan of one candidate; equal servers have the same one.

        Raises:
            PlanningError: arguments or a size make no sense.
        """
        servers, is_mps = self.servers(candidate), self._is_under_mps(candidate)
        # A part keeps its servers as long as it remembers any plan of them.
        key = is_mps, tuple(id(it) for it in servers)
        plan = self._planned.get(key)
        if plan is None:
            if len(self._planned) >= _REMEMBERED:
                self._planned.clear()
                for part in self._parts:
                    part.forget()
                servers = self.servers(candidate)
                key = is_mps, tuple(id(it) for it in servers)
            plan = self._planned[key] = self._plan(servers, is_mps)
        return plan

    def card(self, candidate: Candidate) -> Card:
        """The card as the candidate's way of sharing it makes it."""
        return self._card_under_mps if self._is_under_mps(candidate) else self._card

    def _is_under_mps(self, candidate: Candidate) -> bool:
        return self._is_always_mps if self._sharing is None else candidate.values[self._sharing] == Sharing.MPS

    def _plan(self, servers: Sequence[Server], is_mps: bool) -> StackPlan:
        if is_mps:
            return plan_stack(servers, self._card_under_mps, client_limit=self._client_limit)
        return plan_stack(servers, self._card)

    def servers(self, candidate: Candidate) -> tuple[Server, ...]:
        """The services that the planner knows, in their order of start.

        Raises:
            PlanningError: arguments or a size make no sense.
        """
        values = candidate.values
        return tuple(it.server(values) for it in self._parts)

    def better_order(self, refused: Sequence[Candidate]) -> tuple[str, ...] | None:
        """An order of start in which candidates fit that do not fit in the declared one; None: there is none.

        Args:
            refused: candidates that do not fit; of those whose refusal the order may change, a few stand for all.

        Raises:
            PlanningError: arguments or a size make no sense.
        """
        hopeful = (it for it in refused if self.plan(it).refusal not in _WHATEVER_THE_ORDER)
        stacks = [
            ({part.component: part for part in self.servers(it)}, self._is_under_mps(it))
            for it in islice(hopeful, _STAND_FOR_ALL)
        ]
        if not stacks:
            return None

        def fitting(order: tuple[str, ...]) -> int:
            return sum(
                self._plan([stack[name] for name in order if name in stack], is_mps).fits for stack, is_mps in stacks
            )

        depends_on = {it.name: it.depends_on for it in self._components}
        return better_order([it.name for it in self._components], depends_on, fitting)


def plan_space(
    spec: ExperimentSpec,
    card: Card,
    configs: Mapping[str, ModelConfig],
    offsets: Mapping[str, int] | None = None,
    mps_replicas: int | None = None,
) -> tuple[PlannedCandidate, ...]:
    """The plan of every candidate, in the order of the space.

    Args:
        spec: the experiment.
        card: the card that it asks for.
        configs: component to the configuration of its model.
        offsets: component to the bytes that earlier starts took beyond the prediction.
        mps_replicas: into how many shares a node with MPS divides its card; None: not known, no cap is planned.

    Raises:
        PlanningError: a component's arguments or size make no sense.
    """
    planner = SpacePlanner(spec, card, configs, offsets, mps_replicas)
    return tuple(PlannedCandidate(it, planner.plan(it)) for it in Space(spec.parameters))


class _Part:
    """One component: its server for every combination of the values that are bound to it."""

    def __init__(
        self, component: Component, memory: Memory, spec: ExperimentSpec, config: ModelConfig | None, offset: int
    ) -> None:
        if memory.model is MemoryModel.VLLM and config is None:
            raise PlanningError(f"{component.name}: no config.json of its model is given")
        container = _container(component)
        self._name, self._memory, self._config, self._offset = component.name, memory, config, offset
        self._literals = _literals(container)
        self._compile_cache = _compile_cache(component)
        self._words = [str(it) for it in (*container.get("command", ()), *container.get("args", ()))]
        bound = ((it.bind.variable, it.name) for it in spec.parameters)
        self._bound = [(at[1], name) for at, name in bound if at is not None and at[0] == component.name]
        self._made: dict[tuple[str, ...], Server] = {}

    def server(self, values: Mapping[str, str]) -> Server:
        """The server with these values of the parameters."""
        key = tuple([values[name] for _, name in self._bound])
        found = self._made.get(key)
        if found is None:
            known = self._literals | {env: values[name] for env, name in self._bound}
            try:
                found = self._made[key] = self._make(known)
            except (ValueError, KeyError) as error:
                raise PlanningError(f"{self._name}: {error.args[0] if error.args else error}") from error
        return found

    def forget(self) -> None:
        """Give the memory back."""
        self._made.clear()

    def _make(self, known: Mapping[str, str]) -> Server:
        match self._memory.model:
            case MemoryModel.VLLM:
                settings = settings_from_arguments([expand(it, known) for it in self._words])
                settings = replace(settings, compile_cache=self._compile_cache)
                return VllmServer(self._name, cast("ModelConfig", self._config), settings, self._offset)
            case MemoryModel.WHISPER:
                size = known.get(self._memory.size_env or "")
                if size is None:
                    raise PlanningError(f"neither the template nor the candidate sets {self._memory.size_env}")
                return WhisperServer(self._name, size)
            case MemoryModel.DECLARED:
                return DeclaredService(self._name, (self._memory.memory_mib or 0) * MIB)


def server_image(component: Component) -> str:
    """The image of the container that serves; empty when the template names none."""
    return str(_container(component).get("image", ""))[:512]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: an unknown name stays as it is, `$$` is one dollar sign."""

    def one(found: "re.Match[str]") -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    return _REFERENCE.sub(one, text)


def _container(component: Component) -> Mapping[str, Any]:
    """The first container is the server, as in `kubectl logs`."""
    containers = cast("list[Mapping[str, Any]]", component.template.get("spec", {}).get("containers") or [{}])
    return containers[0]


def _compile_cache(component: Component) -> CompileCache:
    """Cold, for the container of a trial is fresh; unknown where it mounts a volume that outlives the pod."""
    mounted = {
        it.get("name") for it in cast("list[Mapping[str, Any]]", _container(component).get("volumeMounts") or [])
    }
    volumes = cast("list[Mapping[str, Any]]", component.template.get("spec", {}).get("volumes") or [])
    lasting = any(it.get("name") in mounted and not _FRESH_VOLUMES.intersection(it) for it in volumes)
    return CompileCache.UNKNOWN if lasting else CompileCache.COLD


def _literals(container: Mapping[str, Any]) -> dict[str, str]:
    entries = cast("list[Mapping[str, Any]]", container.get("env") or [])
    return {str(it["name"]): str(it["value"]) for it in entries if "value" in it}
