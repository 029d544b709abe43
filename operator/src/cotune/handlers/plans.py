"""Plans of experiments, made once for a spec and what was learned: large spaces take minutes, and a pass must not."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from cotune.api.experiment import ExperimentSpec, MemoryModel
from cotune.api.trial import TrialSpec, TrialStatus
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
from cotune.planning.candidates import PlanningError
from cotune.planning.cards import UnknownCardError
from cotune.planning.model_config import ModelConfigError
from cotune.trials.placement import SharingModes

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")

_KEPT = 32
_PATIENCE_SECONDS = 5.0
"""How long a pass waits for its plan; a larger one is looked for again in the next pass."""


@dataclass(frozen=True)
class MadePlan:
    """A plan, or why there is none."""

    plan: SpacePlan
    why_not: str = ""
    learned_from: int = 0
    """Starts."""


class PlanningInProgressError(Exception):
    """The plan is being made; ask again."""


class Plans:
    """Remembers the plans of the last experiments; forgotten, they are made again and say the same."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._made: OrderedDict[tuple[object, ...], asyncio.Task[SpacePlan]] = OrderedDict()
        self._elsewhere: OrderedDict[tuple[str, str], tuple[ComparedStart, ...]] = OrderedDict()

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
        starts: tuple[ComparedStart, ...] = ()
        if _has_language_model(spec):
            own = _starts(trials)
            names = {it.trial for it in own}
            starts = (*(it for it in await self._taught(namespace, digest) if it.trial not in names), *own)
        try:
            plan = await self._plan(namespace, spec, digest, learn(starts), modes)
        except SpaceTooLargeError:
            raise
        except (PlanningError, ModelConfigError, UnknownCardError) as error:
            return MadePlan(plan_without_memory(spec, modes), str(error.args[0]))
        return MadePlan(plan, learned_from=len(starts))

    async def _plan(
        self, namespace: str, spec: ExperimentSpec, digest: str, offsets: Offsets, modes: SharingModes
    ) -> SpacePlan:
        key = (namespace, digest, frozenset(offsets.items()), modes)
        task = self._made.get(key)
        if task is None:
            configs = await model_configs(self._objects, namespace, spec)
            task = asyncio.create_task(asyncio.to_thread(plan_experiment, spec, configs, offsets, modes))
            _remember(self._made, key, task)
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        if not done:
            raise PlanningInProgressError
        if task.exception() is not None:
            self._made.pop(key, None)  # A ConfigMap may be mended.
        return task.result()

    async def _taught(self, namespace: str, digest: str) -> tuple[ComparedStart, ...]:
        """What the namespace's trials had taught when the experiment was first seen: later ones are its own."""
        key = namespace, digest
        if key not in self._elsewhere:
            _remember(self._elsewhere, key, _starts(await self._objects.list(TRIAL, namespace)))
        return self._elsewhere[key]


def _starts(trials: Iterable[Object]) -> tuple[ComparedStart, ...]:
    """What finished trials have taught; only those with something to tell are parsed."""
    found: list[ComparedStart] = []
    for body in trials:
        if not status_of(body).get("servers") or "prediction" not in body["spec"]:
            continue
        status, spec = TrialStatus.model_validate(status_of(body)), TrialSpec.model_validate(body["spec"])
        if status.phase.is_finished():
            found += starts_of(body["metadata"]["name"], spec.prediction, status.servers, status.finished_at)
    return tuple(found)


def _has_language_model(spec: ExperimentSpec) -> bool:
    models = {it.memory.model for it in spec.stack.components if it.memory is not None}
    return spec.gpu is not None and MemoryModel.VLLM in models


def _remember(kept: "OrderedDict[_Key, _Made]", key: _Key, value: _Made) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        kept.popitem(last=False)
