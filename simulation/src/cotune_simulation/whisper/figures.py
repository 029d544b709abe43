"""What each size of Whisper takes, how fast it is and how often it errs."""

from dataclasses import dataclass

from cotune_simulation.figures import MIB, load

SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en")

CPU_FIGURES_CARD = "NVIDIA-GeForce-RTX-3060"
"""Without a card the figures are those of this card's machine; only their CPU part is used then."""


@dataclass(frozen=True)
class SizeFigures:
    """Figures of one size on one card; figures/speech_models.json has their sources."""

    size: str
    resident_bytes: int
    """All that the process holds on the card, its context included."""
    launches: int
    """Kernels of one transcription."""
    kernel_ms: float
    gap_ms: float
    """The host's work after each kernel."""
    cpu_ms: float
    """The host's work before the first kernel."""
    on_cpu_ms: float
    """A whole transcription on the CPU."""
    first_clip_ms: float
    """What the first clip of a length costs more."""
    startup_seconds: float
    word_error_rate: float


def size_figures(size: str, card: str) -> SizeFigures:
    """The figures of one of `SIZES` on the product `card`.

    :raises ValueError: there are none.
    """
    speech = load("speech_models.json")
    cards = speech.entry("cards")
    if size not in SIZES:
        raise ValueError(f"no simulated Whisper {size}: choose from {', '.join(SIZES)}")
    if card not in cards.names():
        raise ValueError(f"the simulation has no figures for Whisper on {card}; it has: {', '.join(cards.names())}")
    figures = cards.entry(card).entry(size.removesuffix(".en"))
    return SizeFigures(
        size=size,
        resident_bytes=figures.integer("residentMiB") * MIB,
        launches=figures.integer("launches"),
        kernel_ms=figures.number("kernelMs"),
        gap_ms=figures.number("gapMs"),
        cpu_ms=figures.number("cpuMs"),
        on_cpu_ms=figures.number("onCpuMs"),
        first_clip_ms=figures.number("firstClipMs"),
        startup_seconds=figures.number("startupSeconds"),
        word_error_rate=speech.entry("wordErrorRates").number(size),
    )
