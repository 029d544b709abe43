"""Plans of experiments, made once for a spec: ten thousand candidates take a second or two, and a pass must not."""

import asyncio
from collections import OrderedDict

from cotune.api.experiment import ExperimentSpec
from cotune.cluster.model_configs import model_configs
from cotune.cluster.objects import Objects
from cotune.experiments.predictions import predict
from cotune.experiments.step import Predictions
from cotune.planning.candidates import PlanningError
from cotune.planning.cards import UnknownCardError
from cotune.planning.model_config import ModelConfigError

_KEPT = 32


class Plans:
    """Remembers the plans of the last experiments; forgotten, they are made again and say the same."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._made: OrderedDict[tuple[str, str], Predictions] = OrderedDict()

    async def of(self, namespace: str, spec: ExperimentSpec, digest: str) -> tuple[Predictions, str]:
        """The predictions for a spec of this digest; without any, why not."""
        key = namespace, digest
        if key in self._made:
            return self._made[key], ""
        try:
            configs = await model_configs(self._objects, namespace, spec)
            predictions = await asyncio.to_thread(predict, spec, configs)
        except (PlanningError, ModelConfigError, UnknownCardError) as error:
            return {}, str(error.args[0])
        self._made[key] = predictions
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        return predictions, ""
