"""From an experiment to the servers of one candidate: arguments and variables as its containers will see them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

from cotune.api.experiment import Component, ExperimentSpec, Memory, MemoryModel, ModelConfigRef, WhisperBackend
from cotune.api.sharing import Sharing
from cotune.planning.cards import Card
from cotune.planning.declared_service import DeclaredService
from cotune.planning.learned import NOTHING_LEARNED, Learned, settings_key
from cotune.planning.model_config import ModelConfig, read_model_config, read_weights_index
from cotune.planning.server import PlanningError, Server
from cotune.planning.sizes import MIB
from cotune.planning.stack import StackPlan, plan_stack
from cotune.planning.start_order import beside, better_order
from cotune.planning.vllm import CompileCache, Refusal, settings_from_arguments
from cotune.planning.vllm_server import VllmServer
from cotune.planning.vllm_settings import WRITTEN_ON, Version, read_version
from cotune.planning.whisper import Backend, Precision
from cotune.planning.whisper_server import WhisperServer
from cotune.search.space import Candidate, Space

LARGEST_SPACE = 1_000_000
"""More candidates are not planned: a space is held as one byte for each of them, and a pass walks over it."""

_REMEMBERED = 4_000
"""Plans of the same servers that are not computed again."""

_STAND_FOR_ALL = 8
"""Candidates for which orders of start are tried."""
_WHATEVER_THE_ORDER = frozenset({Refusal.NO_CACHE_BLOCKS, Refusal.CONTEXT_TOO_LONG, Refusal.CLIENT_LIMIT})
"""What a server finds out about its own budget, whoever started before it."""

_BACKENDS = {
    WhisperBackend.OPENAI_WHISPER: Backend.OPENAI,
    WhisperBackend.FASTER_WHISPER: Backend.CTRANSLATE2,
}

_FRESH_VOLUMES = frozenset({"emptyDir", "ephemeral", "configMap", "secret", "projected", "downwardAPI"})
"""Kinds of volumes in which nothing of an earlier pod is found."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True)
class PlannedCandidate:
    """One candidate and its plan."""

    candidate: Candidate
    plan: StackPlan


@dataclass(frozen=True)
class Known:
    """What is known of the experiment's surroundings."""

    offsets: Mapping[str, int] = field(default_factory=dict[str, int])
    """Component to the bytes that earlier starts took beyond the prediction."""
    learned: Learned = NOTHING_LEARNED
    """What services of unknown size have shown to hold."""
    taken: int = 0
    """Bytes that others hold on the card all the time."""
    shares: int = 0
    """Into how many shares the device plugin divides the card; 0: the fewest with which the stack can be placed."""


UNKNOWN = Known()


class SpacePlanner:
    """Plans the candidates of one experiment; what they have in common is read once."""

    def __init__(
        self, spec: ExperimentSpec, card: Card, configs: Mapping[str, ModelConfig], known: Known = UNKNOWN
    ) -> None:
        """Prepare to plan.

        Args:
            spec: the experiment.
            card: the card that it asks for.
            configs: component to the configuration of its model.
            known: what is known beside.

        Raises:
            PlanningError: a language model has no configuration.
        """
        parameter = spec.sharing_parameter
        self._sharing = parameter.name if parameter is not None else None
        self._is_always_mps = parameter is None and spec.baseline_sharing is Sharing.MPS
        self._card = card
        self._taken = known.taken
        replicas = known.shares or len(spec.stack.components) + 1
        self._card_under_mps, self._client_limit = card.under_mps(replicas), card.client_limit(replicas)
        self._components = spec.stack.components
        self._depends_on = {it.name: it.depends_on for it in spec.stack.components}
        self._beside = beside(self._depends_on)
        self._parts = tuple(
            _Part(it, it.memory, spec, configs.get(it.name), known)
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
            plan = self._planned[key] = self._stack(servers, self._beside, is_mps)
        return plan

    def card(self, candidate: Candidate) -> Card:
        """The card as the candidate's way of sharing it makes it."""
        return self._card_under_mps if self._is_under_mps(candidate) else self._card

    def _is_under_mps(self, candidate: Candidate) -> bool:
        return self._is_always_mps if self._sharing is None else candidate.values[self._sharing] == Sharing.MPS

    def servers(self, candidate: Candidate) -> tuple[Server, ...]:
        """The services that the planner knows, in their order of start.

        Raises:
            PlanningError: arguments or a size make no sense.
        """
        values = candidate.values
        return tuple(it.server(values) for it in self._parts)

    def learning(self, candidate: Candidate) -> Mapping[str, str]:
        """Component whose memory is learned to what tells its settings in this candidate apart."""
        values = candidate.values
        return {it.component: it.settings(values) for it in self._parts if it.is_learned}

    def better_order(self, refused: Sequence[Candidate]) -> tuple[str, ...] | None:
        """An order, one after the other, in which candidates fit that do not fit as declared; None: there is none.

        Args:
            refused: candidates that do not fit; of those whose refusal the order may change, a few stand for all.

        Raises:
            PlanningError: arguments or a size make no sense.
        """
        hopeful = (it for it in refused if self._depends_on_the_order(self.plan(it)))
        stacks = [
            ({part.component: part for part in self.servers(it)}, self._is_under_mps(it))
            for it in islice(hopeful, _STAND_FOR_ALL)
        ]
        if not stacks:
            return None

        def fitting(order: tuple[str, ...]) -> int:
            waiting = (([stack[name] for name in order if name in stack], is_mps) for stack, is_mps in stacks)
            return sum(self._stack(servers, {}, is_mps).fits for servers, is_mps in waiting)

        return better_order([it.name for it in self._components], self._depends_on, fitting, fitting_now=0)

    def _depends_on_the_order(self, plan: StackPlan) -> bool:
        """Neighbours that start at the same time may take away what a budget lacks."""
        if plan.refusal is None or plan.refused is None:
            return False
        return plan.refusal not in _WHATEVER_THE_ORDER or bool(self._beside[plan.refused])

    def _stack(self, servers: Sequence[Server], mates: Mapping[str, frozenset[str]], is_mps: bool) -> StackPlan:
        if is_mps:
            return plan_stack(servers, self._card_under_mps, self._taken, client_limit=self._client_limit, beside=mates)
        return plan_stack(servers, self._card, self._taken, beside=mates)


def plan_space(
    spec: ExperimentSpec, card: Card, configs: Mapping[str, ModelConfig], known: Known = UNKNOWN
) -> tuple[PlannedCandidate, ...]:
    """The plan of every candidate, in the order of the space.

    Args:
        spec: the experiment.
        card: the card that it asks for.
        configs: component to the configuration of its model.
        known: what is known beside.

    Raises:
        PlanningError: a component's arguments or size make no sense.
    """
    planner = SpacePlanner(spec, card, configs, known)
    return tuple(PlannedCandidate(it, planner.plan(it)) for it in Space(spec.parameters))


class _Part:
    """One component: its server for every combination of the values that are bound to it."""

    def __init__(
        self, component: Component, memory: Memory, spec: ExperimentSpec, config: ModelConfig | None, known: Known
    ) -> None:
        if memory.model is MemoryModel.VLLM and config is None:
            raise PlanningError(f"{component.name}: no config.json of its model is given")
        container = _container(component)
        self._name, self._memory, self._config = component.name, memory, config
        self._offset, self._learned = known.offsets.get(component.name, 0), known.learned
        self._image, self._version = server_image(component), server_version(component)
        self._literals = _literals(container)
        self._compile_cache = _compile_cache(component)
        self._words = command_line(component)
        bound = ((it.bind.variable, it.name) for it in spec.parameters)
        self._bound = [(at[1], name) for at, name in bound if at is not None and at[0] == component.name]
        self._made: dict[tuple[str, ...], Server] = {}

    @property
    def component(self) -> str:
        """Its name."""
        return self._name

    @property
    def is_learned(self) -> bool:
        """Whether nobody says what it holds."""
        return self._memory.model is MemoryModel.LEARNED

    def settings(self, values: Mapping[str, str]) -> str:
        """The values of the parameters that are bound to it, in one line."""
        return settings_key(self._image, {env: values[name] for env, name in self._bound})

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
                settings = replace(settings, compile_cache=self._compile_cache, version=self._version)
                return VllmServer(self._name, cast("ModelConfig", self._config), settings, self._offset)
            case MemoryModel.WHISPER:
                return WhisperServer(
                    self._name,
                    self._set(known, self._memory.size_env or ""),
                    Precision(
                        self._set(known, self._memory.precision_env, self._memory.precision or Precision.FLOAT16)
                    ),
                    _BACKENDS[self._memory.backend or WhisperBackend.OPENAI_WHISPER],
                    self._memory.beams,
                )
            case MemoryModel.DECLARED:
                return DeclaredService(self._name, (self._memory.memory_mib or 0) * MIB)
            case MemoryModel.LEARNED:
                settings = settings_key(self._image, {env: known[env] for env, _ in self._bound})
                found = self._learned.of(self._name, settings)
                return DeclaredService(self._name, found.held, found.doubt)

    def _set(self, known: Mapping[str, str], variable: str | None, otherwise: str | None = None) -> str:
        """The value of a variable of the container."""
        value = otherwise if variable is None else known.get(variable)
        if value is None:
            raise PlanningError(f"neither the template nor the candidate sets {variable}")
        return value


def read_published(component: str, reference: ModelConfigRef, data: Mapping[str, str]) -> ModelConfig:
    """A component's model, from the data of the ConfigMap that its reference names.

    Raises:
        PlanningError: a key is not there.
        ModelConfigError: a text is no configuration, or no index of weights.
    """
    for key in filter(None, (reference.key, reference.weights_key)):
        if key not in data:
            raise PlanningError(f"{component}: no ConfigMap {reference.config_map} with {key}")
    index = data[reference.weights_key] if reference.weights_key is not None else None
    return read_model_config(data[reference.key], read_weights_index(index) if index is not None else None)


def command_line(component: Component) -> tuple[str, ...]:
    """The words of the container that serves, with references to variables as they are written."""
    container = _container(component)
    return tuple(str(it) for it in (*(container.get("command") or ()), *(container.get("args") or ())))


def server_image(component: Component) -> str:
    """The image of the container that serves; empty when the template names none."""
    return str(_container(component).get("image", ""))[:512]


def server_version(component: Component) -> Version:
    """Of vLLM: what is said of it, else what the tag of an image of vLLM says, else the one that is known best."""
    stated = component.memory.server_version if component.memory is not None else None
    name, _, tag = server_image(component).partition("@")[0].rpartition(":")
    tagged = read_version(tag) if "vllm" in name.rpartition("/")[2] else None
    return (read_version(stated) if stated is not None else tagged) or WRITTEN_ON


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
