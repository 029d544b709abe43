"""`GpuAllocationExperiment`: which stack to tune, which settings may change, and what counts as better."""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from cotune.api.base import (
    SET_LIST,
    ApiModel,
    ComponentName,
    DnsLabel,
    EnvironmentName,
    MetricName,
    ObjectName,
    Rule,
    map_list,
    with_rules,
)
from cotune.api.conditions import Condition
from cotune.api.profile import Stage
from cotune.api.quantities import DECIMAL_PATTERN, DecimalString, Value, ValueSet
from cotune.api.quiesce import Quiesce, QuiesceStatus
from cotune.api.sharing import Sharing
from cotune.api.workload import MOST_REQUESTS, REQUESTS_FIT, Protocol, Stream, config_maps


class Gpu(ApiModel):
    """The card that the stack shares."""

    product: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
    """Node label `nvidia.com/gpu.product`; the plugin's suffix `-SHARED` is matched too."""
    sharing: Sharing | None = None
    """Left out: `TimeSlicing`, or the baseline of the parameter that is bound to it."""


class MemoryModel(StrEnum):
    """By which formulas a component's memory on the card is planned."""

    VLLM = "VLLM"
    """From the model's `config.json` and the arguments of vLLM in the pod template."""
    WHISPER = "Whisper"
    """From the size, which an environment variable names."""
    DECLARED = "Declared"
    """As `memoryMiB` says."""
    LEARNED = "Learned"
    """As the first trial shows: what the card lacks beyond everything else. Until then it counts as nothing."""


class WhisperBackend(StrEnum):
    """Which library runs Whisper."""

    OPENAI_WHISPER = "OpenAIWhisper"
    FASTER_WHISPER = "FasterWhisper"
    """CTranslate2."""


class ModelConfigRef(ApiModel):
    """A model's `config.json`, as it is published with the weights."""

    config_map: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)] = "config.json"
    weights_key: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """The key of its `model.safetensors.index.json` in the same ConfigMap, of which `metadata.total_size` is read: what
    the files hold takes the place of what the formulas make of the configuration. Left out: the formulas."""


class Memory(ApiModel):
    """What the planner needs to know about a component before it ever runs."""

    model_config = with_rules(
        Rule(
            "(self.model == 'VLLM') == has(self.configRef)",
            "configRef belongs to model VLLM, and only to it",
            ".configRef",
        ),
        Rule(
            "(self.model == 'Declared') == has(self.memoryMiB)",
            "memoryMiB belongs to model Declared, and only to it",
            ".memoryMiB",
        ),
        Rule(
            "(self.model == 'Whisper') == has(self.sizeEnv)",
            "sizeEnv belongs to model Whisper, and only to it",
            ".sizeEnv",
        ),
        Rule(
            "self.model == 'Whisper' || "
            "!(has(self.backend) || has(self.precision) || has(self.precisionEnv) || has(self.beams))",
            "backend, precision, precisionEnv and beams belong to model Whisper only",
            ".model",
        ),
        Rule("!(has(self.precision) && has(self.precisionEnv))", "give precision or precisionEnv, not both"),
        Rule(
            "!has(self.precision) || self.precision in ['float16', 'float32'] || "
            "(has(self.backend) && self.backend == 'FasterWhisper')",
            "OpenAIWhisper computes in float16 or float32",
            ".precision",
        ),
        Rule(
            "self.model == 'VLLM' || !has(self.serverVersion)",
            "serverVersion belongs to model VLLM only",
            ".serverVersion",
        ),
    )

    model: MemoryModel
    config_ref: ModelConfigRef | None = None
    memory_mib: Annotated[int | None, Field(ge=0, le=10_000_000, alias="memoryMiB")] = None
    """All that the component holds on the card, its CUDA context included."""
    size_env: EnvironmentName | None = None
    """The variable that names the size, such as `tiny` or `large-v3`."""
    backend: WhisperBackend | None = None
    """Left out: OpenAIWhisper."""
    precision: (
        Annotated[
            str,
            Field(max_length=16, pattern=r"^(float32|float16|bfloat16|int8|int8_float16|int8_bfloat16|int8_float32)$"),
        ]
        | None
    ) = None
    """Of weights and computation, as CTranslate2 names it (`compute_type`). Left out: float16."""
    precision_env: EnvironmentName | None = None
    """The variable that names the precision, where it is a parameter, say."""
    beams: Annotated[int, Field(ge=1, le=32)] | None = None
    """Hypotheses of a transcription. Left out: the backend's default, 1 for OpenAIWhisper and 5 for FasterWhisper."""
    server_version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")] | None = None
    """Of vLLM, for memory differs between versions. Left out: as the tag of an image of vLLM says, else 0.26."""


def _without_nulls(template: object) -> object:
    return without_nulls(template, "template")


def without_nulls(value: object, path: str) -> object:
    """What YAML says, where a field that is null counts as left out, as it does everywhere else in Kubernetes.

    Raises:
        ValueError: an item of a list is null; nobody knows what that means. `path` begins the message.
    """
    match value:
        case dict():
            fields = cast("dict[str, object]", value)
            return {key: without_nulls(it, f"{path}.{key}") for key, it in fields.items() if it is not None}
        case list():
            items = cast("list[object]", value)
            for index, it in enumerate(items):
                if it is None:
                    raise ValueError(f"{path}[{index}] is null")
            return [without_nulls(it, f"{path}[{index}]") for index, it in enumerate(items)]
        case _:
            return value


class Component(ApiModel):
    """One service of the stack."""

    name: ComponentName
    protocol: Protocol
    port: Annotated[int, Field(ge=1, le=65535)]
    """The port on which the service answers."""
    depends_on: Annotated[tuple[ComponentName, ...], Field(max_length=15, json_schema_extra=dict(SET_LIST))] = ()
    """Components that must be ready before this one starts; they stand earlier in the list."""
    memory: Memory | None = None
    """Left out: the planner knows nothing of the component, and plans without it."""
    template: Annotated[
        dict[str, Any],
        BeforeValidator(_without_nulls),
        Field(default_factory=dict[str, Any], json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
    ]
    """The pod template: metadata and spec, as in a Deployment. With `stack.fromNamespace` it is copied, and left out
    here."""


class NamespaceRef(ApiModel):
    """A namespace whose owner lets its workloads be copied: a GpuTuningGrant there has `CopySpec`."""

    name: DnsLabel


class Stack(ApiModel):
    """The services that share the card, in the order in which they start."""

    model_config = with_rules(
        Rule(
            "has(self.fromNamespace) || self.components.all(c, has(c.template))",
            "every component needs a template, unless the stack is copied fromNamespace",
            ".components",
        ),
        Rule(
            "!has(self.fromNamespace) || !self.components.exists(c, has(c.template))",
            "templates are copied fromNamespace: leave them out here",
            ".components",
        ),
        Rule(
            "self.components.all(i, c, c.dependsOn.all(d, self.components.exists(j, x, j < i && x.name == d)))",
            "dependsOn may only name components that stand earlier in the list",
            ".components",
        ),
    )

    from_namespace: NamespaceRef | None = None
    """Copy what really runs there: the workloads that the grant names, those that are no component of the experiment
    beside the others, without a load. Left out: each component has its template."""
    components: Annotated[tuple[Component, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]


class CardSetting(StrEnum):
    """What of the card a parameter may choose."""

    SHARING = "sharing"
    """Among nodes that are prepared for each mode; no node is ever reconfigured."""


class Bind(ApiModel):
    """Where a parameter's value goes: to an environment variable of every container of a component, or to the card."""

    model_config = with_rules(
        Rule(
            "has(self.gpu) ? !has(self.component) && !has(self.env) : has(self.component) && has(self.env)",
            "bind either component and env, or gpu",
        ),
    )

    component: ComponentName | None = None
    env: EnvironmentName | None = None
    gpu: CardSetting | None = None

    @property
    def variable(self) -> tuple[str, str] | None:
        """Component and name of the environment variable; None: it is bound to the card."""
        return (self.component, self.env) if self.component is not None and self.env is not None else None


class Range(ApiModel):
    """Numbers from `min` to `max`, both included, in steps."""

    model_config = with_rules(
        Rule("double(self.min) < double(self.max)", "min must be smaller than max", ".min"),
        Rule("double(self.step) > 0.0", "step must be greater than 0", ".step"),
        Rule(
            "double(self.step) <= 0.0 || (double(self.max) - double(self.min)) / double(self.step) <= 1000.0",
            "a range may have 1000 steps at most",
            ".step",
        ),
    )

    min: DecimalString
    max: DecimalString
    step: DecimalString


class Parameter(ApiModel):
    """One setting that the search may change."""

    model_config = with_rules(
        Rule("has(self.range) != has(self.values)", "give either range or values"),
        Rule("!has(self.values) || self.baseline in self.values", "baseline must be one of values", ".baseline"),
        Rule(
            f"!has(self.range) || self.baseline.matches('{DECIMAL_PATTERN.replace(chr(92), chr(92) * 2)}')",
            "baseline of a range must be a decimal number",
            ".baseline",
        ),
        Rule(
            f"!has(self.range) || !self.baseline.matches('{DECIMAL_PATTERN.replace(chr(92), chr(92) * 2)}') || "
            "(double(self.baseline) >= double(self.range.min) && double(self.baseline) <= double(self.range.max))",
            "baseline must lie within range",
            ".baseline",
        ),
        Rule(
            "!has(self.bind.gpu) || has(self.range) || !has(self.values) || "
            "self.values.all(v, v in ['Exclusive', 'TimeSlicing', 'MPS'])",
            "values of sharing are Exclusive, TimeSlicing and MPS",
            ".values",
        ),
        Rule("!has(self.bind.gpu) || !has(self.range)", "sharing has values, and no range", ".range"),
    )

    name: Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[a-z][A-Za-z0-9]*$")]
    bind: Bind
    range: Range | None = None
    values: ValueSet | None = None
    baseline: Value
    """The value in use today; every gain is stated against it."""


class InterferenceTrials(StrEnum):
    """In which trials interference is measured: it costs time on the card."""

    ALL = "All"
    BASELINE_AND_CONFIRMATION = "BaselineAndConfirmation"
    """In every run of the baseline, and in those of the search's best candidate that the verdict rests on."""


class Interference(ApiModel):
    """What the services do to each other: after the window, each of them is loaded alone, and on request each pair.

    The window itself is over then, and as it would be without. Arrivals and lengths are the window's, prompts are not.
    """

    duration_seconds: Annotated[int, Field(ge=1, le=86_400)]
    """For which each service, or pair, is measured."""
    warmup_seconds: Annotated[int, Field(ge=0, le=86_400)] = 5
    """Before each of them."""
    pairs: bool = False
    """With n services n * (n - 1) / 2 more of them."""
    trials: InterferenceTrials = InterferenceTrials.ALL


class Workload(ApiModel):
    """The load on all services at once: warm-up, window and cool-down without a gap, only the window is measured."""

    model_config = with_rules(
        REQUESTS_FIT,
        Rule(
            "!has(self.interference) || self.streams.all(s, !has(s.arrivals.ratePerSecond) || "
            "double(s.arrivals.ratePerSecond) * "
            "double(self.interference.warmupSeconds + self.interference.durationSeconds + self.cooldownSeconds)"
            f" <= {MOST_REQUESTS}.0)",
            f"a stream has more than {MOST_REQUESTS} requests in a round of interference",
            ".interference",
        ),
    )

    warmup_seconds: Annotated[int, Field(ge=0, le=86_400)] = 20
    duration_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    minimum_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """What a percentile, an error rate or a word error rate must rest on, where an objective or constraint names it.

    A p95 that decides wants 200 or more.
    """
    cooldown_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """The load goes on for so long, so that the window's last requests are answered under it."""
    streams: Annotated[tuple[Stream, ...], Field(min_length=1, max_length=32)]
    interference: Interference | None = None
    """Left out: it is not measured, and there is no `slowdown`."""

    @property
    def load_seconds(self) -> int:
        """From the first request of the warm-up to the last of the cool-down; interference comes after it."""
        warm_up = max([self.warmup_seconds, *(it.warmup_seconds or 0 for it in self.streams)])
        return warm_up + self.duration_seconds + self.cooldown_seconds

    @property
    def config_maps(self) -> tuple[str, ...]:
        """The ConfigMaps that the streams read, by name."""
        return config_maps(self.streams)


class Goal(StrEnum):
    """Which way a metric is better."""

    MINIMIZE = "Minimize"
    MAXIMIZE = "Maximize"
    TARGET = "Target"


class Objective(ApiModel):
    """One metric's share of the fitness."""

    model_config = with_rules(
        Rule("(self.goal == 'Target') == has(self.target)", "target belongs to goal Target, and only to it", ".target"),
        Rule("double(self.weight) > 0.0", "weight must be greater than 0", ".weight"),
        Rule(
            "!has(self.target) || (double(self.target) > 0.0 && double(self.target) < 1.0)",
            "target must lie between 0 and 1",
            ".target",
        ),
    )

    metric: MetricName
    goal: Goal
    target: DecimalString | None = None
    weight: DecimalString


class Constraint(ApiModel):
    """Bounds that a trial must keep to be feasible."""

    model_config = with_rules(
        Rule("has(self.min) || has(self.max)", "give min, max or both"),
        Rule(
            "!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",
            "min must not be greater than max",
            ".min",
        ),
    )

    metric: MetricName
    min: DecimalString | None = None
    max: DecimalString | None = None


class Algorithm(StrEnum):
    """How the next candidates are chosen."""

    GRID = "Grid"


class Search(ApiModel):
    """How the space is searched."""

    algorithm: Algorithm = Algorithm.GRID
    max_trials: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many candidates are tried at most; each of them is run `repeats` times."""
    repeats: Annotated[int, Field(ge=1, le=20)] = 1
    """How often each candidate is run by the search; what is concluded rests on `evaluation.repeats` fresh runs."""


class Evaluation(ApiModel):
    """How sure a gain must be."""

    model_config = with_rules(
        Rule(
            "double(self.confidence) >= 0.5 && double(self.confidence) <= 0.99",
            "confidence must lie between 0.5 and 0.99",
            ".confidence",
        ),
        Rule(
            "double(self.confidence) <= (self.repeats == 2 ? 0.66 : self.repeats == 3 ? 0.9 : "
            "self.repeats == 4 ? 0.97 : 0.99)",
            "so few repeats cannot be so sure: 2 allow a confidence of 0.66, 3 of 0.90, 4 of 0.97, 5 of 0.99",
            ".repeats",
        ),
    )

    repeats: Annotated[int, Field(ge=2, le=20)] = 7
    """How often the best candidate of the search and the baseline are each run again, by turns: the verdict rests on
    these runs only, for the search's figures flatter whom it chose. 7 find a gain of 10 % in nine of ten experiments
    at the noise of `make bench-verdict`."""
    confidence: DecimalString = "0.95"
    """Of all intervals, two-sided."""
    baseline_every: Annotated[int, Field(ge=0, le=10_000)] = 10
    """The baseline is run once more after so many measured trials of the search, to see drift; 0: never."""


class Planning(ApiModel):
    """What is done with candidates that cannot start by arithmetic."""

    model_config = with_rules(
        Rule(
            "double(self.probeSkipped) >= 0.0 && double(self.probeSkipped) <= 1.0",
            "probeSkipped is a share between 0 and 1",
            ".probeSkipped",
        ),
    )

    probe_skipped: DecimalString = "0"
    """The share of them that is run all the same, to keep the planner honest; 1: nothing is skipped."""


class ProfileRollout(ApiModel):
    """The stages through which a profile of this experiment goes."""

    model_config = with_rules(
        Rule(
            "self.stages.all(s, !has(s.toRevision))",
            "toRevision is for a stage that has begun: say it in the profile",
            ".stages",
        ),
    )

    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]


class ProfileTemplate(ApiModel):
    """What the profile made of the winner carries beside its changes."""

    rollout: ProfileRollout


class Validation(ApiModel):
    """Where the winner's changes are run one by one before a profile is made of them."""

    from_namespace: NamespaceRef
    """On a copy of what really runs there, other services included."""


MOST_IN_PAIRS = 8
_IN_ALL_TRIALS = "has(self.workload.interference) && self.workload.interference.trials == 'All'"
_KNOWN_METRIC = (
    "{0}.metric.startsWith('gpu.') || {0}.metric == 'stability' || "
    "self.stack.components.exists(c, {0}.metric.startsWith(c.name + '.'))"
)


_MIXED_IN = (
    "self.workload.streams.exists(s, has(s.corpusRef) && has(s.corpusRef.noise) && "
    "o.metric.startsWith(s.component + '.wer.') && (o.metric.contains('.wer.snr') ? "
    "int(o.metric.substring(o.metric.lastIndexOf('.snr') + 4).replace('Minus', '-')) in s.corpusRef.noise.snrDb : "
    "s.corpusRef.noise.clean && o.metric.endsWith('.clean')))"
)


class ExperimentSpec(ApiModel):
    """What is tuned, how it is loaded and what is better."""

    model_config = with_rules(
        Rule(
            "self.parameters.all(p, !has(p.bind.component) || "
            "self.stack.components.exists(c, c.name == p.bind.component))",
            "bind.component must name a component of the stack",
            ".parameters",
        ),
        Rule(
            "self.parameters.all(p, !has(p.bind.env) || self.parameters.exists_one(q, "
            "has(q.bind.env) && q.bind.component == p.bind.component && q.bind.env == p.bind.env))",
            "two parameters are bound to the same environment variable",
            ".parameters",
        ),
        Rule(
            "size(self.parameters.filter(p, has(p.bind.gpu))) <= 1",
            "two parameters are bound to the card's sharing",
            ".parameters",
        ),
        Rule(
            "has(self.gpu) || !self.parameters.exists(p, has(p.bind.gpu))",
            "without spec.gpu the stack runs on the CPU, and no parameter is bound to a card",
            ".parameters",
        ),
        Rule(
            "!has(self.gpu) || !has(self.gpu.sharing) || "
            "self.parameters.all(p, !has(p.bind.gpu) || p.baseline == self.gpu.sharing)",
            "gpu.sharing must be the baseline of the parameter that is bound to it, or left out",
            ".gpu.sharing",
        ),
        Rule(
            "self.workload.streams.all(s, self.stack.components.exists(c, c.name == s.component))",
            "component must name a component of the stack",
            ".workload.streams",
        ),
        Rule(
            "self.stack.components.all(c, self.workload.streams.exists(s, s.component == c.name))",
            "every component needs a stream: a trial loads all services at once",
            ".workload.streams",
        ),
        Rule(
            "self.workload.streams.all(s, self.stack.components.all(c, c.name != s.component || "
            "!(c.protocol in ['OpenAICompletions', 'OpenAIChat']) || "
            "((has(s.promptTokens) || has(s.datasetRef)) && has(s.outputTokens))))",
            "a stream to OpenAICompletions or OpenAIChat needs promptTokens (or datasetRef) and outputTokens",
            ".workload.streams",
        ),
        Rule(
            "self.workload.streams.all(s, self.stack.components.all(c, c.name != s.component || "
            "c.protocol != 'OpenAITranscriptions' || has(s.corpusRef)))",
            "a stream to OpenAITranscriptions needs corpusRef",
            ".workload.streams",
        ),
        Rule(
            "self.workload.streams.all(s, !has(s.qualityRef) || self.stack.components.all(c, c.name != s.component || "
            "c.protocol in ['OpenAICompletions', 'OpenAIChat']))",
            "qualityRef belongs to a stream to OpenAICompletions or OpenAIChat",
            ".workload.streams",
        ),
        *(
            Rule(
                f"self.{named}.all(o, !o.metric.endsWith('.quality') || "
                "self.workload.streams.exists(s, has(s.qualityRef) && o.metric == s.component + '.quality'))",
                "a quality is measured only where a stream to the component has qualityRef",
                f".{named}",
            )
            for named in ("objectives", "constraints")
        ),
        *(
            Rule(
                f"self.{named}.all(o, !o.metric.contains('.wer.') || {_MIXED_IN})",
                "a word error rate under a condition is measured only where corpusRef.noise of a stream has it",
                f".{named}",
            )
            for named in ("objectives", "constraints")
        ),
        Rule(
            f"self.objectives.all(o, {_KNOWN_METRIC.format('o')})",
            "metric must belong to the card, the stack or one of its components",
            ".objectives",
        ),
        Rule(
            f"self.constraints.all(o, {_KNOWN_METRIC.format('o')})",
            "metric must belong to the card, the stack or one of its components",
            ".constraints",
        ),
        Rule(
            "has(self.gpu) || !self.objectives.exists(o, o.metric.startsWith('gpu.'))",
            "without spec.gpu the stack runs on the CPU and has no gpu metrics",
            ".objectives",
        ),
        Rule(
            "has(self.gpu) || !self.constraints.exists(o, o.metric.startsWith('gpu.'))",
            "without spec.gpu the stack runs on the CPU and has no gpu metrics",
            ".constraints",
        ),
        Rule(
            f"{_IN_ALL_TRIALS} || !self.objectives.exists(o, o.metric.contains('.slowdown.'))",
            "slowdown needs workload.interference, in All trials",
            ".objectives",
        ),
        Rule(
            f"{_IN_ALL_TRIALS} || !self.constraints.exists(o, o.metric.contains('.slowdown.'))",
            "slowdown needs workload.interference, in All trials",
            ".constraints",
        ),
        Rule(
            "!has(self.workload.interference) || size(self.stack.components) > 1",
            "a single service has nobody to interfere with",
            ".workload.interference",
        ),
        Rule(
            "!has(self.workload.interference) || !self.workload.interference.pairs || "
            f"size(self.stack.components) <= {MOST_IN_PAIRS}",
            f"pairs are measured of at most {MOST_IN_PAIRS} services",
            ".workload.interference.pairs",
        ),
        Rule(
            "!has(self.profileTemplate) || self.profileTemplate.rollout.stages.all(it, !has(it.probe) || "
            "it.probe.streams.all(s, self.stack.components.exists(c, c.name == s.component)))",
            "the probe of a stage must name components of the stack",
            ".profileTemplate.rollout.stages",
        ),
        Rule(
            "!has(self.validation) || has(self.profileTemplate)",
            "only what goes into a profile is validated: give profileTemplate",
            ".validation",
        ),
        Rule(
            "has(self.gpu) || !has(self.quiesce)",
            "without spec.gpu the trials take no card, and nothing has to be stopped for them",
            ".quiesce",
        ),
    )

    gpu: Gpu | None = None
    """Left out: the stack runs on the CPU."""
    stack: Stack
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]
    workload: Workload
    objectives: Annotated[
        tuple[Objective, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("metric"))
    ]
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=16, json_schema_extra=map_list("metric"))] = ()
    search: Search = Search()
    evaluation: Evaluation = Evaluation()
    planning: Planning = Planning()
    profile_template: ProfileTemplate | None = None
    """Left out: no profile is made."""
    validation: Validation | None = None
    """Left out: on a copy of what runs in the namespace of the first stage, if a grant there allows it, else on the
    experiment's own stack; the condition TargetCopied says which."""
    quiesce: Quiesce | None = None
    """Left out: trials run beside whatever uses the card, or on cards of their own."""

    @property
    def validated_in(self) -> str | None:
        """The namespace whose stack a change must hold on; None: no profile is made."""
        if self.profile_template is None:
            return None
        if self.validation is not None:
            return self.validation.from_namespace.name
        return self.profile_template.rollout.stages[0].namespace

    @property
    def loaded_components(self) -> tuple[str, ...]:
        """Those that a stream goes to: all but what a copied stack has beside the experiment's own."""
        loaded = {it.component for it in self.workload.streams}
        return tuple(it.name for it in self.stack.components if it.name in loaded)

    @property
    def sharing_parameter(self) -> Parameter | None:
        """The one that chooses how the card is shared."""
        return next((it for it in self.parameters if it.bind.gpu is CardSetting.SHARING), None)

    def sharing(self, values: Mapping[str, str]) -> Sharing | None:
        """How the card of a candidate with these values of the parameters is shared; None: the stack has no card."""
        if self.gpu is None:
            return None
        if (parameter := self.sharing_parameter) is not None:
            return Sharing(values[parameter.name])
        return self.gpu.sharing or Sharing.TIME_SLICING

    @property
    def baseline_sharing(self) -> Sharing | None:
        """How the card is shared today."""
        return self.sharing({it.name: it.baseline for it in self.parameters})

    def digest(self) -> str:
        """The SHA-256 of all that was said, pod templates included, as `sha256:` and 64 hexadecimal digits.

        A field that has its default counts as one that was left out: a release that adds a field to the resource, with
        a default that the API server then fills in, does not make another experiment of one that is running.
        """
        said = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.gpu is not None and self.gpu.sharing is Sharing.TIME_SLICING:
            del said["gpu"]["sharing"]  # What it means when it is left out, and was once filled in.
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class ExperimentPhase(StrEnum):
    """The summary of an experiment's conditions."""

    PENDING = "Pending"
    PLANNING = "Planning"
    RUNNING = "Running"
    VALIDATING = "Validating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class TrialCounts(ApiModel):
    """How many trials are in which state."""

    total: Annotated[int, Field(ge=0)] = 0
    finished: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[int, Field(ge=0)] = 0
    skipped: Annotated[int, Field(ge=0)] = 0
    """Candidates not run, for they cannot start by arithmetic, or no node shares its card as they want it; those that
    are only counted are in no other figure. One that is impossible in the target, too, counts there once more."""
    wrong_fits: Annotated[int, Field(ge=0)] = 0
    """Run because they were predicted to start, and failed for want of memory."""
    wrong_does_not_fit: Annotated[int, Field(ge=0)] = 0
    """Predicted not to start, run all the same, and started."""


class RefusedCandidates(ApiModel):
    """Candidates that cannot start for the same reason."""

    reason: Annotated[str, Field(max_length=200)]
    count: Annotated[int, Field(ge=1)]
    skipped: Annotated[int, Field(ge=0)]
    """Of them, those that are not run: all but the doubtful, the share that `planning.probeSkipped` asks for, and the
    baseline."""
    example: Annotated[str, Field(max_length=1024)]
    """The first of them, with its figures."""


class SpaceSummary(ApiModel):
    """What the planner says of the whole space."""

    candidates: Annotated[int, Field(ge=0)]
    fitting: Annotated[int, Field(ge=0)]
    doubtful: Annotated[int, Field(ge=0)]
    """So near to a bound that the planner's own error could tip them, whether they fit or not."""
    refused: Annotated[tuple[RefusedCandidates, ...], Field(max_length=16, json_schema_extra=map_list("reason"))] = ()
    learned_from: Annotated[int, Field(ge=0)] = 0
    """Starts of the same models on this card that were compared with their prediction."""
    start_order: Annotated[tuple[ComponentName, ...], Field(max_length=16)] = ()
    """An order in which candidates fit that do not fit as declared, where each component waits for the one before it
    (`dependsOn`); empty: there is none."""


class Winner(ApiModel):
    """The best feasible candidate of the search, when its fresh repeats beat the baseline's."""

    trial: DnsLabel
    """Its first trial in the search."""
    fitness: DecimalString
    """Of the mean of its fresh repeats."""
    baseline_fitness: DecimalString
    """Of the mean of the baseline's."""
    sharing: Sharing | None = None
    """How it wants the card to be shared, where that is not how it is shared today: nodes must be prepared for it."""


class Outcome(StrEnum):
    """What can be said of a candidate beside the baseline."""

    BETTER = "Better"
    NOT_BETTER = "NotBetter"
    CANNOT_TELL = "CannotTell"


class Estimate(ApiModel):
    """A difference, and where the true one lies with the confidence that was asked for."""

    value: DecimalString
    lower: DecimalString
    upper: DecimalString


class ObjectiveEffect(ApiModel):
    """What the candidate changes in an objective's metric, in the metric's unit."""

    metric: MetricName
    baseline: DecimalString
    """The mean of the baseline's fresh repeats."""
    candidate: DecimalString
    change: Estimate | None = None
    """Candidate less baseline. Left out: too few repeats to say how sure that is."""


class VerdictSummary(ApiModel):
    """The best candidate of the search against the baseline, by fresh repeats of both."""

    outcome: Outcome
    trial: DnsLabel
    """The candidate's first trial in the search."""
    confidence: DecimalString
    repeats: Annotated[int, Field(ge=0)]
    """Fresh repeats of the candidate that were measured."""
    baseline_repeats: Annotated[int, Field(ge=0)]
    gain: Estimate | None = None
    """In fitness. Left out: not known, and then the outcome is not Better."""
    objectives: Annotated[tuple[ObjectiveEffect, ...], Field(max_length=16, json_schema_extra=map_list("metric"))] = ()


class ValidatedChange(ApiModel):
    """One of the winner's changes, and whether the profile makes it."""

    parameter: Annotated[str, Field(min_length=1, max_length=50)]
    value: Value
    kept: bool
    reason: Annotated[str, Field(max_length=200)]
    message: Annotated[str, Field(max_length=4096)] = ""
    """In figures."""
    gain: Estimate | None = None
    """In fitness, of this change alone. Left out: it was not measured, or too seldom."""


class ValidationSummary(ApiModel):
    """The winner's changes one by one, and together."""

    changes: Annotated[tuple[ValidatedChange, ...], Field(max_length=16, json_schema_extra=map_list("parameter"))] = ()
    gain: Estimate | None = None
    """In fitness, of all changes that are kept, together. Left out: there are none, or too few runs."""
    interaction: DecimalString | None = None
    """The same less the sum of their gains alone; left out with fewer than two."""


class TargetSummary(ApiModel):
    """Where the winner's changes are validated, and what runs there."""

    namespace: DnsLabel
    stack_ref: ObjectName | None = None
    """The copy, a ControllerRevision of the experiment's namespace. Left out: nothing could be copied, as the condition
    TargetCopied says, and the changes are validated on the experiment's own stack."""
    beside: Annotated[tuple[ComponentName, ...], Field(max_length=16)] = ()
    """What runs there and is no component of the experiment."""
    read_for_validation: bool = False
    """It was read again when validation began: nothing else is run in it."""


class Noise(ApiModel):
    """What repeats of the same settings differ by, in fitness."""

    standard_deviation: DecimalString
    """Of one run, pooled over all candidates with several."""
    degrees_of_freedom: Annotated[int, Field(ge=1)]
    drift: Estimate | None = None
    """The baseline's change from the first to the last of its runs, by a straight line; with fewer than 4 of them left
    out."""


class ExperimentStatus(ApiModel):
    """A summary only; every trial is a resource of its own."""

    phase: ExperimentPhase = ExperimentPhase.PENDING
    observed_generation: Annotated[int, Field(ge=0)] = 0
    spec_digest: Annotated[str, Field(max_length=71)] | None = None
    """Of the spec that the trials run: CEL's immutability rule cannot see into pod templates."""
    stack_ref: ObjectName | None = None
    """With `stack.fromNamespace`: what was copied, a ControllerRevision of the experiment's namespace."""
    target: TargetSummary | None = None
    """Left out: no profile is wanted."""
    trials: TrialCounts = TrialCounts()
    plan: SpaceSummary | None = None
    """Left out: the planner knows too little of the stack or of the card."""
    gpu_seconds_saved: DecimalString | None = None
    """Skipped candidates times the mean time for which failed starts held the card; where none was run, that of
    measured trials without warm-up and window."""
    gpu_seconds: DecimalString | None = None
    """For which ended trials have held their cards, all together. Left out: none has."""
    winner: Winner | None = None
    verdict: VerdictSummary | None = None
    """Left out: the search has not ended, or found no candidate that is worth confirming."""
    validation: ValidationSummary | None = None
    """Left out: it has not ended, there was no winner, or no profile is wanted."""
    noise: Noise | None = None
    """Left out: nothing was measured twice."""
    quiesce: QuiesceStatus | None = None
    """Left out: `spec.quiesce` is, or production was never stopped."""
    profile: Annotated[str, Field(max_length=63)] | None = None
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=map_list("type"))] = ()


NAMED_AS_A_LABEL = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "the name must be a label (at most 63 lower-case letters, digits and inner hyphens, a letter first): "
    "trials and their services are named after it",
    ".metadata.name",
)

IMMUTABLE_AFTER_FIRST_TRIAL = Rule(
    "!has(oldSelf.status) || !has(oldSelf.status.trials) || oldSelf.status.trials.total == 0 || "
    "self.spec == oldSelf.spec",
    "an experiment's spec is immutable after its first trial: apply it under a new name",
    ".spec",
)
