"""Cards as data."""

from dataclasses import dataclass

from cotune_simulation.figures import MIB, load


@dataclass(frozen=True)
class CardProduct:
    """One product, as `nvidia.com/gpu.product` names it; figures and their sources are in figures/cards.json."""

    product: str
    """For example `NVIDIA-GeForce-RTX-3060`."""
    name: str
    """As NVML names it, for example `NVIDIA GeForce RTX 3060`."""
    family: str
    memory_bytes: int
    """All memory as NVML counts it."""
    idle_used_bytes: int
    """What the driver keeps for itself, part of `memory_bytes`."""
    torch_total_bytes: int
    """All memory as torch counts it."""
    has_ecc: bool
    """Whether its memory corrects errors, and counts those that it cannot."""
    compute_capability: tuple[int, int]
    driver_version: str
    cuda_version: tuple[int, int]
    time_slice_seconds: float
    """How long one process computes before the next one's turn."""
    context_bytes: int
    """What a process holds as soon as it uses the card."""
    graphics_clock_mhz: int
    sm_clock_mhz: int
    memory_clock_mhz: int
    video_clock_mhz: int
    idle_milliwatts: int
    busy_milliwatts: int
    limit_milliwatts: int
    idle_celsius: int
    busy_celsius: int


def products() -> list[str]:
    """The products that can be simulated."""
    return load("cards.json").entry("cards").names()


def card_product(product: str) -> CardProduct:
    """The figures of one product.

    :raises ValueError: there are none.
    """
    cards = load("cards.json").entry("cards")
    if product not in cards.names():
        raise ValueError(f"no simulated card {product}: choose from {', '.join(cards.names())}")
    card = cards.entry(product)
    clocks, power, temperature = card.entry("clocksMHz"), card.entry("power"), card.entry("temperature")
    return CardProduct(
        product=product,
        name=card.text("name"),
        family=card.text("family"),
        memory_bytes=card.integer("memoryMiB") * MIB,
        idle_used_bytes=card.integer("idleUsedMiB") * MIB,
        torch_total_bytes=card.integer("torchTotalMiB") * MIB,
        has_ecc=card.integer("ecc") > 0,
        compute_capability=_major_minor(card.text("computeCapability")),
        driver_version=card.text("driverVersion"),
        cuda_version=_major_minor(card.text("cudaVersion")),
        time_slice_seconds=card.number("timeSliceMs") / 1000,
        context_bytes=card.integer("contextMiB") * MIB,
        graphics_clock_mhz=clocks.integer("graphics"),
        sm_clock_mhz=clocks.integer("sm"),
        memory_clock_mhz=clocks.integer("memory"),
        video_clock_mhz=clocks.integer("video"),
        idle_milliwatts=power.integer("idleMilliwatts"),
        busy_milliwatts=power.integer("busyMilliwatts"),
        limit_milliwatts=power.integer("limitMilliwatts"),
        idle_celsius=temperature.integer("idleCelsius"),
        busy_celsius=temperature.integer("busyCelsius"),
    )


def _major_minor(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)
