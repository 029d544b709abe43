"""Taking memory as torch does, and its words for a card that is full or absent."""

from cotune_simulation.card.client import CardClient
from cotune_simulation.card.ledger import OutOfMemoryError
from cotune_simulation.figures import GIB, MIB

NO_CARD = "RuntimeError: No CUDA GPUs are available"


class TorchOutOfMemoryError(Exception):
    """The card is full; the text is torch's."""

    def __str__(self) -> str:
        return f"torch.OutOfMemoryError: {super().__str__()}"


async def take(card: CardClient, size: int) -> None:
    """Take `size` bytes for as long as the process lives.

    :raises TorchOutOfMemoryError: so much is not free.
    """
    try:
        await card.allocate(size)
    except OutOfMemoryError as error:
        raise TorchOutOfMemoryError(_message(card, size, error.free_bytes)) from error


def _message(card: CardClient, wanted_bytes: int, free_bytes: int) -> str:
    held = card.held_bytes
    return (
        f"CUDA out of memory. Tried to allocate {_size(wanted_bytes)}. GPU 0 has a total capacity of "
        f"{card.product.torch_total_bytes / GIB:.2f} GiB of which {_size(free_bytes)} is free. Including non-PyTorch "
        f"memory, this process has {_size(held)} memory in use. Of the allocated memory "
        f"{_size(max(0, held - card.product.context_bytes))} is allocated by PyTorch, and 0 bytes is reserved by "
        "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
        "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def _size(size: int) -> str:
    """Bytes as torch prints them."""
    if size >= GIB:
        return f"{size / GIB:.2f} GiB"
    if size >= MIB:
        return f"{size / MIB:.2f} MiB"
    return f"{size / 1024:.2f} KiB" if size >= 1024 else f"{size} bytes"
