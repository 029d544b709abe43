"""What a model takes and how fast it is, on one card and under one version of vLLM."""

from dataclasses import dataclass

from cotune_simulation.figures import GIB, Entry, load


@dataclass(frozen=True)
class StepTimes:
    """How long one step of the engine keeps the card busy, in milliseconds."""

    base_ms: float
    per_sequence_ms: float
    per_prompt_token_ms: float
    request_overhead_ms: float
    """The host's part of a request, before it reaches the engine."""

    def step_ms(self, sequences: int, prompt_tokens: int) -> float:
        """A step that works on so many sequences, of whose tokens so many belong to prompts."""
        return self.base_ms + self.per_sequence_ms * sequences + self.per_prompt_token_ms * prompt_tokens


@dataclass(frozen=True)
class StartupTimes:
    """How long the phases of a start take, in seconds."""

    imports: float
    weights: float
    profiling: float
    compilation: float
    """Not spent with --enforce-eager."""
    graphs: float
    """Not spent with --enforce-eager."""


@dataclass(frozen=True)
class ModelFigures:
    """Figures of one model, card and version; figures/language_models.json has their sources."""

    model: str
    version: str
    architecture: str
    layers: int
    kv_heads: int
    head_size: int
    kv_bytes_per_value: int
    max_position_embeddings: int
    weights_bytes: int
    activation_fixed_bytes: int
    activation_bytes_per_batched_token: float
    non_torch_bytes: int
    cuda_graph_bytes: int
    fragmentation_bytes: int
    growth_under_load_bytes: int
    default_max_batched_tokens: int
    default_max_sequences: int
    step: StepTimes
    startup: StartupTimes


def model_figures(model: str, card: str) -> ModelFigures:
    """The figures of `model` on the product `card`.

    :raises ValueError: there are none.
    """
    entries = load("language_models.json").entries("entries")
    for entry in entries:
        if entry.text("model") == model and entry.text("card") == card:
            return _figures(entry)
    known = ", ".join(f"{entry.text('model')} on {entry.text('card')}" for entry in entries)
    raise ValueError(f"the simulation has no figures for {model} on {card}; it has: {known}")


def _figures(entry: Entry) -> ModelFigures:
    step, startup = entry.entry("step"), entry.entry("startup")

    def gib(key: str) -> int:
        return round(entry.number(key) * GIB)

    return ModelFigures(
        model=entry.text("model"),
        version=entry.text("vllm"),
        architecture=entry.text("architecture"),
        layers=entry.integer("layers"),
        kv_heads=entry.integer("kvHeads"),
        head_size=entry.integer("headSize"),
        kv_bytes_per_value=entry.integer("kvBytesPerValue"),
        max_position_embeddings=entry.integer("maxPositionEmbeddings"),
        weights_bytes=gib("weightsGiB"),
        activation_fixed_bytes=gib("activationFixedGiB"),
        activation_bytes_per_batched_token=entry.number("activationGiBPer1024BatchedTokens") * GIB / 1024,
        non_torch_bytes=gib("nonTorchGiB"),
        cuda_graph_bytes=gib("cudaGraphGiB"),
        fragmentation_bytes=gib("fragmentationGiB"),
        growth_under_load_bytes=gib("growthUnderLoadGiB"),
        default_max_batched_tokens=entry.integer("defaultMaxBatchedTokens"),
        default_max_sequences=entry.integer("defaultMaxSequences"),
        step=StepTimes(
            base_ms=step.number("baseMs"),
            per_sequence_ms=step.number("perSequenceMs"),
            per_prompt_token_ms=step.number("perPromptTokenMs"),
            request_overhead_ms=step.number("requestOverheadMs"),
        ),
        startup=StartupTimes(
            imports=startup.number("importSeconds"),
            weights=startup.number("weightsSeconds"),
            profiling=startup.number("profilingSeconds"),
            compilation=startup.number("compileSeconds"),
            graphs=startup.number("graphsSeconds"),
        ),
    )
