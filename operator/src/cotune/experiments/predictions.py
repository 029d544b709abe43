"""The planner's word on every candidate of an experiment, in the form in which trials carry it."""

from collections.abc import Mapping

from cotune.api.experiment import ExperimentSpec
from cotune.api.trial import Prediction
from cotune.experiments.step import Predictions
from cotune.planning.candidates import plan_space
from cotune.planning.cards import card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import MIB
from cotune.planning.stack import StackPlan


def predict(spec: ExperimentSpec, configs: Mapping[str, ModelConfig]) -> Predictions:
    """Plan the whole space; empty for a stack on the CPU, and for one of which no component's memory is known.

    Raises:
        UnknownCardError: there is no data on the card.
        PlanningError: a component's arguments or size make no sense.
    """
    if spec.gpu is None or all(it.memory is None for it in spec.stack.components):
        return {}
    return {it.candidate: _prediction(it.plan) for it in plan_space(spec, card(spec.gpu.product), configs)}


def _prediction(plan: StackPlan) -> Prediction:
    models = plan.language_models.values()
    return Prediction(
        fits=plan.fits,
        doubtful=plan.is_doubtful,
        reason=str(plan.refusal or ""),
        message=plan.message,
        kv_cache_tokens=sum(it.tokens for it in models) if models and plan.fits else None,
        free_mib=plan.free // MIB if plan.fits else None,
    )
