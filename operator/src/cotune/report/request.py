"""What was asked: the stack, what may change, how it is loaded, and what counts as better."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from cotune.api.base import ApiModel
from cotune.api.experiment import Component, Constraint, Goal, Memory, MemoryModel, Objective, Stack
from cotune.api.workload import ArrivalType, Stream
from cotune.report.resources import Experiment
from cotune.report.units import figure, percent
from cotune.search.space import Space, domain

_MOST_VALUES = 12


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is, and what is said of it."""

    cells: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """The experiment's spec, for people."""

    card: str
    components: tuple[Row, ...]
    """Name, protocol, image, memory."""
    parameters: tuple[Row, ...]
    """Name, where it goes, values, baseline."""
    streams: tuple[Row, ...]
    """Component, arrivals, what is sent."""
    window: str
    objectives: tuple[Row, ...]
    """Metric, goal, share of the fitness."""
    constraints: tuple[Row, ...]
    """Metric, bound."""
    search: str


def request(experiment: Experiment) -> Request:
    """What the experiment says."""
    spec = experiment.spec
    total = sum(float(it.weight) for it in spec.objectives)
    workload, search, evaluation = spec.workload, spec.search, spec.evaluation
    return Request(
        card=_said(spec.gpu) if spec.gpu is not None else "none: the stack runs on the CPU",
        components=tuple(
            Row((it.name, str(it.protocol), _image(spec.stack, it), _memory(it.memory))) for it in spec.stack.components
        ),
        parameters=tuple(Row((it.name, _said(it.bind), _shortened(domain(it)), it.baseline)) for it in spec.parameters),
        streams=tuple(Row((it.component, _arrivals(it), _sent(it))) for it in workload.streams),
        window=(
            f"{workload.warmup_seconds} s of warm-up, {workload.duration_seconds} s measured, "
            f"{workload.cooldown_seconds} s of cool-down; a metric that decides rests on at least "
            f"{workload.minimum_samples} {'sample' if workload.minimum_samples == 1 else 'samples'}"
        ),
        objectives=tuple(Row((it.metric, _goal(it), percent(float(it.weight) / total))) for it in spec.objectives),
        constraints=tuple(Row((it.metric, bound(it))) for it in spec.constraints),
        search=(
            f"{search.algorithm} over {len(Space(spec.parameters)):,} candidates, at most {search.max_trials:,} tried, "
            f"{_times(search.repeats)}; the best and the baseline again {_times(evaluation.repeats)} each, intervals "
            f"at {percent(float(evaluation.confidence))}"
        ),
    )


def bound(constraint: Constraint) -> str:
    """Such as `at most 15 %`."""
    said = (
        f"at least {figure(constraint.metric, float(constraint.min))}" if constraint.min is not None else "",
        f"at most {figure(constraint.metric, float(constraint.max))}" if constraint.max is not None else "",
    )
    return ", ".join(it for it in said if it)


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"


def _goal(objective: Objective) -> str:
    match objective.goal:
        case Goal.MINIMIZE:
            return "lower is better"
        case Goal.MAXIMIZE:
            return "higher is better"
        case Goal.TARGET:
            return f"as near as possible to {figure(objective.metric, float(objective.target or 0))}"


def _image(stack: Stack, component: Component) -> str:
    if stack.from_namespace is not None:
        return f"copied from {stack.from_namespace.name}"
    spec = cast("dict[str, Any]", component.template.get("spec") or {})
    containers = cast("list[dict[str, Any]]", spec.get("containers") or [])
    return ", ".join(str(it.get("image", "")) for it in containers)


def _memory(memory: Memory | None) -> str:
    match memory:
        case None:
            return "not planned"
        case Memory(model=MemoryModel.DECLARED):
            return f"{memory.memory_mib:,} MiB declared"
        case Memory(model=MemoryModel.WHISPER):
            return f"planned by Whisper's size (${memory.size_env})"
        case _:
            return "planned by vLLM's arithmetic"


def _arrivals(stream: Stream) -> str:
    arrivals = stream.arrivals
    match arrivals.type:
        case ArrivalType.BURST:
            return f"bursts of {arrivals.burst_size}, {arrivals.rate_per_second} requests/s in the mean"
        case ArrivalType.TRACE:
            return "as recorded in a trace"
        case ArrivalType.CLOSED_LOOP:
            return f"closed loop, {', '.join(str(it) for it in arrivals.concurrency or ())} clients"
        case _:
            return f"{arrivals.type}, {arrivals.rate_per_second} requests/s"


def _sent(stream: Stream) -> str:
    said: list[str] = []
    if stream.dataset_ref is not None:
        said.append(f"prompts of ConfigMap {stream.dataset_ref.config_map}")
    elif stream.prompt_tokens is not None:
        said.append(f"prompts of {stream.prompt_tokens:,} tokens")
    if stream.output_tokens is not None:
        said.append(f"answers of {stream.output_tokens:,} tokens")
    if stream.length_spread is not None:
        said.append(f"spread {stream.length_spread}")
    if stream.shared_prefix_tokens is not None:
        said.append(f"{stream.shared_prefix_tokens:,} tokens of prefix shared")
    if stream.corpus_ref is not None:
        said.append(f"speech: {', '.join(_named(stream.corpus_ref.model_dump(mode='json', by_alias=True)))}")
    if stream.path is not None:
        said.append(f"GET {stream.path}")
    return ", ".join(said)


def _said(part: ApiModel) -> str:
    """All that is said there, in the order of the resource, whatever a release has added to it."""
    values = part.model_dump(mode="json", exclude_none=True).values()
    return ", ".join(str(it) for it in values if not isinstance(it, dict))


def _named(part: Mapping[str, Any]) -> Iterator[str]:
    """The same with the fields' names, those of inner objects too."""
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _named(cast("Mapping[str, Any]", value))
        elif value is not None:
            yield f"{key} {value}"


def _shortened(values: tuple[str, ...]) -> str:
    if len(values) <= _MOST_VALUES:
        return ", ".join(values)
    return f"{values[0]}, {values[1]}, … {values[-1]} ({len(values)} values)"
