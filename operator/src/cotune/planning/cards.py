"""Cards as data: what is on them, and what a process takes before it has done anything.

Every figure says whether it was measured, published (by users, in the words of CUDA or torch) or modelled. A figure
that is modelled is a guess worth replacing: one start on the card calibrates it.
"""

import re
from dataclasses import dataclass, replace

from cotune.planning.sizes import GIB, KIB, MIB


@dataclass(frozen=True)
class Card:
    """One product, or a MIG slice of one."""

    product: str
    """As the label `nvidia.com/gpu.product` has it, without `-SHARED`."""
    total_bytes: int
    """What CUDA counts as the card's memory: NVML's total less what the driver keeps, ECC's share among it."""
    driver_bytes: int
    """What NVML shows as used on an idle card: the difference between its total and CUDA's."""
    context_bytes: int
    """A process's CUDA context."""
    non_torch_bytes: int
    """What vLLM takes beside torch's allocator: libraries' workspaces and kernels."""
    cache_bytes: int
    """The card's L2 cache: kernels are tuned with a buffer of its size at hand."""
    capability: tuple[int, int]
    """CUDA's compute capability; it decides how large torch makes cuBLAS's workspace."""
    ecc_bytes: int = 0
    """What error correction takes of the memory that is built in; 0 where it has memory of its own (HBM) or is off."""
    mig_profile: str = ""
    """Such as `1g.10gb`; empty for the whole card."""
    measured: frozenset[str] = frozenset()
    """The fields that were measured by us."""
    published: frozenset[str] = frozenset()
    """The fields that others have read and published; all that remain are modelled."""
    source: str = ""
    """Where the fields were read that are not modelled, and when."""

    @property
    def is_large(self) -> bool:
        """Whether vLLM's defaults for batches are the large ones: 70 GiB or more, but no A100.

        Source: `EngineArgs.get_batch_defaults` of vLLM 0.26.
        """
        return self.total_bytes >= _LARGE_BYTES and "A100" not in self.product

    @property
    def blas_workspace_bytes(self) -> int:
        """What torch's allocator holds for cuBLAS once the first matrix product has run.

        Source: `parseChosenWorkspaceSize` in `aten/src/ATen/cuda/CublasHandlePool.cpp`; 32 MiB is what the recorded
        starts on an H200 show.
        """
        return 32 * MIB if self.capability in _LARGE_WORKSPACE else 8 * MIB + 128 * KIB

    def client_limit(self, replicas: int) -> int:
        """What the NVIDIA device plugin's MPS lets each client have: an equal share for every replica.

        Source: `mps/device.go` of NVIDIA/k8s-device-plugin (`set_default_device_pinned_mem_limit`): whole MiB.
        """
        return self.total_bytes // MIB // replicas * MIB

    def under_mps(self, replicas: int) -> "Card":
        """The card as a client of the device plugin's MPS sees it: with its threads its context is capped, too.

        Source: `_CONTEXT_OF_NO_THREADS`.
        """
        of_threads = max(self.context_bytes - _CONTEXT_OF_NO_THREADS, 0) // replicas
        context = min(self.context_bytes, _CONTEXT_OF_NO_THREADS + of_threads)
        return replace(self, context_bytes=context, measured=self.measured - {"context_bytes"})

    def provenance(self, name: str) -> str:
        """`measured`, `published` or `modelled`, of one field."""
        if name in self.measured:
            return "measured"
        return "published" if name in self.published else "modelled"


_CONTEXT_OF_NO_THREADS = 32 * MIB
"""The rest of a context grows with the threads that its client may have.

Measured on an H200, 2026-11-27, driver 580.159: 516, 274, 144 and 78 MiB with 132, 66, 32 and 14 of its multiprocessors
(`set_default_active_thread_percentage` 100, 50, 25, 12), whether or not memory is capped; beside 66 MiB of the server.
"""

_LARGE_BYTES = 70 * GIB
_LARGE_WORKSPACE = frozenset({(9, 0), (10, 0), (10, 3)})
_MIG_LABEL = re.compile(r"(?P<product>.+)-MIG-(?P<profile>\d+g\.\d+gb)(\.me|\+me)?")


def _card(
    product: str,
    total_mib: int,
    driver_mib: int,
    context_mib: int,
    non_torch_mib: int,
    cache_mib: int,
    capability: tuple[int, int],
    source: str = "",
    measured: tuple[str, ...] = (),
    published: tuple[str, ...] = (),
    ecc_mib: int = 0,
) -> Card:
    return Card(
        product=product,
        total_bytes=total_mib * MIB,
        driver_bytes=driver_mib * MIB,
        context_bytes=context_mib * MIB,
        non_torch_bytes=non_torch_mib * MIB,
        cache_bytes=cache_mib * MIB,
        capability=capability,
        ecc_bytes=ecc_mib * MIB,
        measured=frozenset(measured),
        published=frozenset(published),
        source=source,
    )


_TOTAL = ("total_bytes",)


CARDS = {
    it.product: it
    for it in (
        # As the public report has it; in the words of torch others have 11.75 GiB of such a card.
        _card(
            *("NVIDIA-GeForce-RTX-3060", 12_288, 0, 256, 82, 3, (8, 6), "public report of 2025-10-28"),
            published=_TOTAL,
        ),
        _card(
            *("NVIDIA-GeForce-RTX-3090", 24_258, 318, 256, 82, 6, (8, 6), "vllm-project/vllm issue 2140"),
            published=_TOTAL,
        ),
        _card(
            *("NVIDIA-GeForce-RTX-4090", 24_207, 357, 384, 92, 72, (8, 9), "3DTopia/Phidias-Diffusion issue 8"),
            published=_TOTAL,
        ),
        _card(
            *("NVIDIA-A10", 22_712, 316, 256, 82, 6, (8, 6), "OpenBMB/MiniCPM-V issue 640"),
            published=_TOTAL,
            ecc_mib=1536,
        ),
        _card("NVIDIA-A30", 24_076, 500, 416, 143, 24, (8, 0)),
        _card("NVIDIA-L4", 22_579, 455, 256, 92, 48, (8, 9), ecc_mib=1536),
        _card("NVIDIA-L40S", 45_500, 568, 384, 92, 96, (8, 9), ecc_mib=3072),
        _card("NVIDIA-A100-SXM4-40GB", 40_460, 500, 416, 143, 40, (8, 0)),
        _card(
            *("NVIDIA-A100-SXM4-80GB", 81_224, 696, 416, 143, 40, (8, 0), "vllm-project/vllm-omni issue 276"),
            published=_TOTAL,
        ),
        _card("NVIDIA-H100-80GB-HBM3", 81_044, 515, 532, 230, 50, (9, 0)),
        _card(
            "NVIDIA-H200",
            143_156,
            615,
            532,
            230,
            60,
            (9, 0),
            "2026-11-23, driver 580.159, torch 2.11.0, vLLM 0.26.0",
            ("total_bytes", "driver_bytes", "context_bytes", "non_torch_bytes", "cache_bytes"),
        ),
    )
}

_MIG_PROFILES = {
    "NVIDIA-A30": (4, {"1g.6gb": 1, "2g.12gb": 2, "4g.24gb": 4}),
    "NVIDIA-A100-SXM4-40GB": (
        8,
        {"1g.5gb": 1, "1g.10gb": 2, "2g.10gb": 2, "3g.20gb": 4, "4g.20gb": 4, "7g.40gb": 8},
    ),
    "NVIDIA-A100-SXM4-80GB": (
        8,
        {"1g.10gb": 1, "1g.20gb": 2, "2g.20gb": 2, "3g.40gb": 4, "4g.40gb": 4, "7g.80gb": 8},
    ),
    "NVIDIA-H100-80GB-HBM3": (
        8,
        {"1g.10gb": 1, "1g.20gb": 2, "2g.20gb": 2, "3g.40gb": 4, "4g.40gb": 4, "7g.80gb": 8},
    ),
    "NVIDIA-H200": (
        8,
        {"1g.18gb": 1, "1g.35gb": 2, "2g.35gb": 2, "3g.71gb": 4, "4g.71gb": 4, "7g.141gb": 8},
    ),
}
"""Of how many slices of memory the card consists, and how many each profile has.

Source: NVIDIA's Multi-Instance GPU user guide, "Supported MIG Profiles" (column "Fraction of Memory")."""


class UnknownCardError(KeyError):
    """There is no data on the card."""


def card(product: str) -> Card:
    """The card of a product's label, such as `NVIDIA-H200` or `NVIDIA-A100-SXM4-40GB-MIG-1g.5gb`.

    The device plugin's suffix `-SHARED` is ignored.

    Raises:
        UnknownCardError: none of this name is known, or it has no such MIG profile.
    """
    name = product.removesuffix("-SHARED")
    if name in CARDS:
        return CARDS[name]
    slice_of = _MIG_LABEL.fullmatch(name)
    if slice_of is not None and slice_of["product"] in _MIG_PROFILES:
        return mig_slice(CARDS[slice_of["product"]], slice_of["profile"])
    raise UnknownCardError(f"no data on card {product}; known: {', '.join(sorted(CARDS))}")


def mig_slice(whole: Card, profile: str) -> Card:
    """A MIG instance as a card of its own: its share of the memory and of the L2 cache; all of it is modelled.

    Raises:
        UnknownCardError: the card has no such profile.
    """
    slices, profiles = _MIG_PROFILES.get(whole.product, (1, {}))
    if profile not in profiles:
        known = ", ".join(profiles) or "none"
        raise UnknownCardError(f"{whole.product} has no MIG profile {profile}; known: {known}")
    share = profiles[profile]
    return replace(
        whole,
        product=f"{whole.product}-MIG-{profile}",
        total_bytes=whole.total_bytes // MIB * share // slices * MIB,
        driver_bytes=whole.driver_bytes * share // slices,
        cache_bytes=whole.cache_bytes * share // slices,
        mig_profile=profile,
        measured=frozenset(),
        published=frozenset(),
        source="NVIDIA's Multi-Instance GPU user guide: fractions of the whole card",
    )
