"""Cards as data: what is on them, and what a process takes before it has done anything.

Every figure says whether it was measured or modelled. A figure that was not measured is a guess worth replacing: one
start on the card calibrates it.
"""

from dataclasses import dataclass

from cotune.planning.sizes import GIB, MIB


@dataclass(frozen=True)
class Card:
    """One product."""

    product: str
    """As the label `nvidia.com/gpu.product` has it, without `-SHARED`."""
    total_bytes: int
    """What CUDA counts as the card's memory: NVML's total less what the driver keeps."""
    context_bytes: int
    """A process's CUDA context."""
    non_torch_bytes: int
    """What vLLM takes beside torch's allocator: libraries' workspaces and kernels."""
    is_large: bool
    """70 GiB or more: vLLM's defaults for batches differ."""
    measured: frozenset[str] = frozenset()
    """The fields that were measured; all others are modelled."""


_LARGE_BYTES = 70 * GIB


def _card(product: str, total_mib: int, context_mib: int, non_torch_mib: int, *measured: str) -> Card:
    total = total_mib * MIB
    return Card(product, total, context_mib * MIB, non_torch_mib * MIB, total >= _LARGE_BYTES, frozenset(measured))


CARDS = {
    it.product: it
    for it in (
        # total: the public report of 2025-10-28 counts 12 GiB.
        _card("NVIDIA-GeForce-RTX-3060", 12_288, 256, 82, "total_bytes"),
        _card("NVIDIA-GeForce-RTX-3090", 24_576, 256, 82),
        _card("NVIDIA-GeForce-RTX-4090", 24_564, 384, 92),
        _card("NVIDIA-A10", 23_028, 256, 82),
        _card("NVIDIA-L4", 23_034, 256, 92),
        _card("NVIDIA-L40S", 46_068, 384, 92),
        _card("NVIDIA-A100-SXM4-40GB", 40_960, 416, 143),
        _card("NVIDIA-A100-SXM4-80GB", 81_920, 416, 143),
        _card("NVIDIA-H100-80GB-HBM3", 81_044, 532, 225),
        # 2026-11-23, driver 580.159, torch 2.11.0, vLLM 0.26.0.
        _card("NVIDIA-H200", 143_156, 532, 225, "total_bytes", "context_bytes", "non_torch_bytes"),
    )
}


class UnknownCardError(KeyError):
    """There is no data on the card."""


def card(product: str) -> Card:
    """The card of a product's label; the device plugin's suffix `-SHARED` is ignored.

    Raises:
        UnknownCardError: none of this name is known.
    """
    try:
        return CARDS[product.removesuffix("-SHARED")]
    except KeyError as error:
        raise UnknownCardError(f"no data on card {product}; known: {', '.join(sorted(CARDS))}") from error
