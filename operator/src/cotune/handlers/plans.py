"""Plans of experiments, made once for a spec and what was learned: large spaces take minutes, and a pass must not."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cotune.api.experiment import ExperimentSpec, MemoryModel
from cotune.api.trial import TrialPhase, TrialSpec, TrialStatus
from cotune.cluster.kinds import TRIAL
from cotune.cluster.model_configs import model_configs
from cotune.cluster.objects import Object, Objects
from cotune.experiments.predictions import (
    SpacePlan,
    SpaceTooLargeError,
    plan_experiment,
    plan_without_memory,
    starts_of,
)
from cotune.handlers.statuses import status_of
from cotune.planning.calibration import ComparedStart, Offsets, learn
from cotune.planning.cards import UnknownCardError
from cotune.planning.learned import ShownByTrial, learn_services, shown
from cotune.planning.model_config import ModelConfigError
from cotune.planning.server import PlanningError
from cotune.trials.placement import SharingModes

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")

_KEPT = 32
_PATIENCE_SECONDS = 5.0
"""How long a pass waits for its plan; a larger one is looked for again in the next pass."""


@dataclass(frozen=True)
class Taught:
    """What finished trials have taught."""

    starts: tuple[ComparedStart, ...] = ()
    """Of language models."""
    shown: Mapping[str, tuple[ShownByTrial, ...]] = field(default_factory=dict[str, tuple[ShownByTrial, ...]])
    """Trial to what it has shown of services whose memory is learned."""

    def without(self, trials: Collection[str]) -> "Taught":
        """What the others have taught."""
        return Taught(
            tuple(it for it in self.starts if it.trial not in trials),
            {name: it for name, it in self.shown.items() if name not in trials},
        )


@dataclass(frozen=True)
class MadePlan:
    """A plan, or why there is none."""

    plan: SpacePlan
    why_not: str = ""
    learned_from: int = 0
    """Starts of language models, and trials of services whose memory is learned."""


class PlanningInProgressError(Exception):
    """The plan is being made; ask again."""


class Plans:
    """Remembers the plans of the last experiments; forgotten, they are made again and say the same."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._made: OrderedDict[tuple[object, ...], asyncio.Task[SpacePlan]] = OrderedDict()
        self._elsewhere: OrderedDict[tuple[str, str], Taught] = OrderedDict()

    async def of(
        self, namespace: str, spec: ExperimentSpec, digest: str, trials: Iterable[Object], modes: SharingModes
    ) -> MadePlan:
        """The plan of a spec of this digest, with what its own trials and those of the namespace have taught so far.

        Args:
            namespace: the experiment's.
            spec: the experiment.
            digest: of its spec.
            trials: its own.
            modes: which ways of sharing the card nodes are prepared for.

        Raises:
            PlanningInProgressError: it takes longer than a pass may.
            SpaceTooLargeError: the space has more candidates than are planned.
        """
        own, other = Taught(), Taught()
        if _learns(spec):
            own = _taught(trials)
            other = (await self._taught(namespace, digest)).without({it.trial for it in own.starts} | set(own.shown))
        starts = (*other.starts, *own.starts)
        shown = tuple(it for found in (other.shown, own.shown) for trial in found.values() for it in trial)
        try:
            plan = await self._plan(namespace, spec, digest, learn(starts), shown, modes)
        except SpaceTooLargeError:
            raise
        except (PlanningError, ModelConfigError, UnknownCardError) as error:
            return MadePlan(plan_without_memory(spec, modes), str(error.args[0]))
        return MadePlan(plan, learned_from=len(starts) + len(shown))

    async def _plan(
        self,
        namespace: str,
        spec: ExperimentSpec,
        digest: str,
        offsets: Offsets,
        shown: tuple[ShownByTrial, ...],
        modes: SharingModes,
    ) -> SpacePlan:
        learned = {it: frozenset(learn_services(shown, it).held.items()) for it in {it.card for it in shown}}
        key = (namespace, digest, frozenset(offsets.items()), frozenset(learned.items()), modes)
        task = self._made.get(key)
        if task is None:
            configs = await model_configs(self._objects, namespace, spec)
            task = asyncio.create_task(asyncio.to_thread(plan_experiment, spec, configs, offsets, shown, modes))
            _remember(self._made, key, task)
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        if not done:
            raise PlanningInProgressError
        if task.exception() is not None:
            self._made.pop(key, None)  # A ConfigMap may be mended.
        return task.result()

    async def _taught(self, namespace: str, digest: str) -> Taught:
        """What the namespace's trials had taught when the experiment was first seen: later ones are its own."""
        key = namespace, digest
        if key not in self._elsewhere:
            _remember(self._elsewhere, key, _taught(await self._objects.list(TRIAL, namespace)))
        return self._elsewhere[key]


def _taught(trials: Iterable[Object]) -> Taught:
    """What finished trials have taught; only those with something to tell are parsed."""
    starts: list[ComparedStart] = []
    services: dict[str, tuple[ShownByTrial, ...]] = {}
    for body in trials:
        prediction = body["spec"].get("prediction")
        if prediction is None or not (status_of(body).get("servers") or prediction.get("services")):
            continue
        name, status = body["metadata"]["name"], TrialStatus.model_validate(status_of(body))
        said = TrialSpec.model_validate(body["spec"]).prediction
        if not status.phase.is_finished() or said is None:
            continue
        starts += starts_of(name, said, status.servers, status.finished_at)
        if status.phase is TrialPhase.SUCCEEDED and (found := shown(said, status.measurements)):
            services[name] = found
    return Taught(tuple(starts), services)


def _learns(spec: ExperimentSpec) -> bool:
    """Whether a component's memory is learned, wholly or as a correction."""
    models = {it.memory.model for it in spec.stack.components if it.memory is not None}
    return spec.gpu is not None and bool(models & {MemoryModel.VLLM, MemoryModel.LEARNED})


def _remember(kept: "OrderedDict[_Key, _Made]", key: _Key, value: _Made) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        kept.popitem(last=False)
