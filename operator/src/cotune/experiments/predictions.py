"""The planner's word on an experiment's space: the whole as a survey, each candidate in the form that trials carry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cotune.api.experiment import (
    Component,
    ExperimentSpec,
    MemoryModel,
    RefusedCandidates,
    SpaceSummary,
)
from cotune.api.trial import ObservedServer, PredictedHolding, PredictedServer, PredictedService, Prediction
from cotune.planning.calibration import ComparedStart, Offsets, Subject, compared, model_digest
from cotune.planning.candidates import LARGEST_SPACE, Known, SpacePlanner, server_image
from cotune.planning.cards import Card, card
from cotune.planning.learned import ShownByTrial, learn_services
from cotune.planning.model_config import ModelConfig
from cotune.planning.server import Part, PlanningError
from cotune.planning.sizes import MIB
from cotune.planning.stack import OTHERS, StackPlan
from cotune.search.space import Candidate, Space
from cotune.trials.placement import ANY_SHARING, NO_SUITABLE_NODE, SharingModes

_LONGEST_EXAMPLE = 1024
_EXAMPLES = 8


class SpaceTooLargeError(PlanningError):
    """More candidates than are planned."""


@dataclass(frozen=True)
class SpacePlan:
    """What the planner says of a whole space; a million candidates take a megabyte."""

    predict: Callable[[Candidate], Prediction | None]
    """None: too little is known."""
    probe_skipped: float
    baseline: Candidate
    runnable: bytes | None
    """One byte for each candidate in the order of the space, 1: it may run. None: all may."""
    summary: SpaceSummary | None
    """None: nothing was planned."""
    skipped: int = 0
    """How many candidates are not run; the baseline is."""
    without_node: int = 0
    """Of them, those that no node is prepared for: no start would have failed."""
    examples: tuple[Candidate, ...] = ()
    """The first few that do not fit, of every reason."""

    def is_hopeless(self, candidate: Candidate) -> bool:
        """Whether it cannot start by arithmetic, and is not among those that are run all the same."""
        return is_hopeless(self.predict(candidate), candidate, self.probe_skipped)

    @property
    def is_nothing_feasible(self) -> bool:
        """Whether not one candidate may run: what fits by arithmetic or is to be probed, the baseline included."""
        return self.runnable is not None and 1 not in self.runnable

    def allowed(self, space: Space) -> Space:
        """The candidates that may run."""
        return space if self.runnable is None else space.only(self.runnable)

    def hopeless(self, space: Space) -> Space:
        """The candidates that may not, the baseline among them if it is one."""
        return space.only(b"" if self.runnable is None else self.runnable.translate(_INVERTED))


_INVERTED = bytes([1, *[0] * 255])
UNPLANNED: Mapping[Candidate, Prediction] = {}


def survey(space: Space, probe_skipped: float, predict: Callable[[Candidate], Prediction | None]) -> SpacePlan:
    """Look at every candidate once.

    Args:
        space: all candidates.
        probe_skipped: the share of those that cannot start that is run all the same.
        predict: what the planner says of one.
    """
    runnable = bytearray()
    fitting = doubtful = known = 0
    refused: dict[str, tuple[int, int, str]] = {}
    examples: dict[str, list[Candidate]] = {}
    baseline = space.baseline
    for candidate in space:
        prediction = predict(candidate)
        hopeless = is_hopeless(prediction, candidate, probe_skipped)
        runnable.append(not hopeless)
        if prediction is None:
            continue
        known += 1
        fitting += prediction.fits
        doubtful += prediction.doubtful
        if not prediction.fits:
            count, skipped, example = refused.get(prediction.reason, (0, 0, ""))
            words = example or f"{_words(candidate)}: {prediction.message}"[:_LONGEST_EXAMPLE]
            refused[prediction.reason] = count + 1, skipped + (hopeless and candidate != baseline), words
            if len(kept := examples.setdefault(prediction.reason, [])) < _EXAMPLES:
                kept.append(candidate)
    summary = SpaceSummary(
        candidates=len(runnable),
        fitting=fitting,
        doubtful=doubtful,
        refused=tuple(
            RefusedCandidates(reason=reason, count=count, skipped=skipped, example=example)
            for reason, (count, skipped, example) in sorted(refused.items())
        ),
    )
    few = tuple(it for kept in examples.values() for it in kept)
    skips = {reason: skipped for reason, (_, skipped, _) in refused.items()}
    return SpacePlan(
        predict=predict,
        probe_skipped=probe_skipped,
        baseline=baseline,
        runnable=bytes(runnable),
        summary=summary if known else None,
        skipped=sum(skips.values()),
        without_node=skips.get(NO_SUITABLE_NODE, 0),
        examples=few,
    )


def unplanned(space: Space) -> SpacePlan:
    """Nothing is known: every candidate may run."""
    return SpacePlan(UNPLANNED.get, 0.0, space.baseline, None, None)


def is_hopeless(prediction: Prediction | None, candidate: Candidate, probe_skipped: float) -> bool:
    """Whether a candidate cannot start by arithmetic, and is not among those that are run all the same.

    Those are the doubtful ones, and a share of the others. Which ones is a matter of their digest, so that a restarted
    operator chooses the same. One without a node is never run.
    """
    if prediction is None or prediction.fits or prediction.doubtful:
        return False
    if prediction.reason == NO_SUITABLE_NODE:
        return True
    return probe_skipped <= 0 or int(candidate.digest[:8], 16) / 0x1_0000_0000 >= probe_skipped


def plan_experiment(
    spec: ExperimentSpec,
    configs: Mapping[str, ModelConfig],
    offsets: Offsets,
    shown: Sequence[ShownByTrial] = (),
    modes: SharingModes = ANY_SHARING,
) -> SpacePlan:
    """Plan the whole space; a stack on the CPU, and one of which no component's memory is known, is unplanned.

    Args:
        spec: the experiment.
        configs: component to the configuration of its model.
        offsets: what earlier starts of language models have taught.
        shown: what earlier trials have shown of services whose memory is learned, in the order in which they ended.
        modes: which ways of sharing the card nodes are prepared for.

    Raises:
        UnknownCardError: there is no data on the card.
        PlanningError: a component's arguments or size make no sense.
        SpaceTooLargeError: the space has more candidates than are planned.
    """
    space = Space(spec.parameters)
    if spec.gpu is None or all(it.memory is None for it in spec.stack.components):
        return plan_without_memory(spec, modes)
    _refuse_too_large(space)
    product = card(spec.gpu.product)
    subjects = _subjects(spec, configs, product)
    learned = learn_services(shown, product.product)
    offset = {name: offsets.get(it, 0) for name, it in subjects.items()}
    planner = SpacePlanner(spec, product, configs, Known(offset, learned, shares=modes.mps_replicas or 0))

    def predict(candidate: Candidate) -> Prediction:
        if (missing := _without_node(spec, candidate, modes)) is not None:
            return missing
        plan, product = planner.plan(candidate), planner.card(candidate)
        found = _prediction(plan, subjects, offset, product)
        services = _services(plan, planner.learning(candidate), product)
        return found.model_copy(update={"services": services}) if services else found

    plan = survey(space, float(spec.planning.probe_skipped), predict)
    order = planner.better_order(plan.examples)
    if plan.summary is None or order is None:
        return plan
    return replace(plan, summary=plan.summary.model_copy(update={"start_order": order}))


def plan_without_memory(spec: ExperimentSpec, modes: SharingModes) -> SpacePlan:
    """All that is known is for which ways of sharing the card there are nodes.

    Raises:
        SpaceTooLargeError: the space has more candidates than are looked at.
    """
    space = Space(spec.parameters)
    if not modes.missing:
        return unplanned(space)
    _refuse_too_large(space)
    plan = survey(space, float(spec.planning.probe_skipped), lambda it: _without_node(spec, it, modes))
    return replace(plan, summary=None)


def _refuse_too_large(space: Space) -> None:
    if len(space) > LARGEST_SPACE:
        raise SpaceTooLargeError(
            f"the parameters span {len(space):,} candidates, and at most {LARGEST_SPACE:,} are planned: "
            "give ranges coarser steps, or split the experiment"
        )


def _without_node(spec: ExperimentSpec, candidate: Candidate, modes: SharingModes) -> Prediction | None:
    """What is said of a candidate that no node is prepared for; None: there is one."""
    if not modes.missing:
        return None
    sharing = spec.sharing(candidate.values)
    why = next((why for mode, why in modes.missing if mode is sharing), None)
    return None if why is None else Prediction(fits=False, reason=NO_SUITABLE_NODE, message=why[:4096])


def starts_of(
    trial: str, prediction: Prediction | None, servers: Sequence[ObservedServer], at: datetime | None
) -> tuple[ComparedStart, ...]:
    """What the starts of one finished trial teach."""
    return tuple(compared(trial, prediction, servers, at)) if prediction is not None and at is not None else ()


def _subjects(spec: ExperimentSpec, configs: Mapping[str, ModelConfig], product: Card) -> Mapping[str, Subject]:
    return {
        it.name: Subject(model_digest(configs[it.name], product), product.product, server_image(it))
        for it in spec.stack.components
        if _is_language_model(it) and it.name in configs
    }


def _is_language_model(component: Component) -> bool:
    return component.memory is not None and component.memory.model is MemoryModel.VLLM


def _prediction(
    plan: StackPlan, subjects: Mapping[str, Subject], offsets: Mapping[str, int], product: Card
) -> Prediction:
    models = plan.language_models.values()
    return Prediction(
        fits=plan.fits,
        doubtful=plan.is_doubtful,
        reason=str(plan.refusal or ""),
        message=plan.message,
        kv_cache_tokens=sum(it.tokens for it in models) if models and plan.fits else None,
        free_mib=plan.free // MIB if plan.fits else None,
        servers=tuple(
            PredictedServer(
                component=component,
                model=subjects[component].model,
                card=subjects[component].card,
                image=subjects[component].version,
                kv_cache_tokens=it.tokens,
                kv_cache_bytes=it.kv_cache,
                offset_bytes=offsets[component],
                if_compiled_bytes=it.if_compiled,
                if_loaded_bytes=it.if_loaded,
            )
            for component, it in plan.language_models.items()
        ),
        holdings=tuple(
            PredictedHolding(component=it.component, least_mib=least // MIB)
            for it in plan.parts
            if (least := _least_held(it, product)) is not None
        ),
    )


def _services(plan: StackPlan, learning: Mapping[str, str], product: Card) -> tuple[PredictedService, ...]:
    """What services whose memory is learned counted as; nothing can be learned of them from a stack that is refused."""
    if not plan.fits:
        return ()
    counted = {it.component: it.size // MIB for it in plan.parts if it.what == "held"}
    return tuple(
        PredictedService(component=it, card=product.product, settings=settings, counted_mib=counted[it])
        for it, settings in learning.items()
    )


def _least_held(part: Part, product: Card) -> int | None:
    """What shows that a component is on the card, in bytes; None: this part of it does not.

    A bare context is no proof, and holds more than the weights of a small model. Of a declared service it is not known
    what of it are weights.
    """
    match part.what:
        case "weights" | "Whisper weights":
            return part.size + product.context_bytes
        case "held" if part.component != OTHERS and part.size:
            return part.size // 2
        case _:
            return None


def _words(candidate: Candidate) -> str:
    return " ".join(f"{name}={value}" for name, value in candidate.values.items())
