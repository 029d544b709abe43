"""torch's caching allocator, as far as it decides how many bytes an allocation counts.

Source: `c10/cuda/CUDACachingAllocator.cpp` of torch 2.11 (`round_size`, `get_allocation_size`, `get_free_block`,
`should_split`). It counts whole blocks: what is left of a block that is not split counts as allocated, and vLLM's
"weights" are this count (`DeviceMemoryProfiler`). vLLM loads with `max_split_size_mb:20`
(`Worker._scoped_allocator_max_split`), so that a tensor of 20 MiB or more keeps all of its segment of whole 2 MiB, or
of a segment up to 20 MiB larger that an earlier tensor left behind.
"""

from dataclasses import dataclass, field

from cotune.planning.sizes import MIB

_ROUNDING = 512
_SMALL = MIB
"""Requests up to here come from the pool of small blocks; remainders up to here are not split off a large one."""
_SMALL_SEGMENT, _LARGE_SEGMENT, _OWN_SEGMENT, _SEGMENT_ROUNDING = 2 * MIB, 20 * MIB, 10 * MIB, 2 * MIB
LOADING_MAX_SPLIT = 20 * MIB
"""`max_split_size_mb` while vLLM loads a model."""


@dataclass(eq=False)
class Block:
    """A piece of a segment."""

    size: int
    is_small: bool
    is_free: bool = True
    before: "Block | None" = None
    after: "Block | None" = None


@dataclass
class CachingAllocator:
    """One process's allocator on one card; sizes in bytes."""

    max_split: int | None = None
    """Blocks of this size and more are neither split nor given to smaller requests; None: no limit."""
    allocated: int = 0
    """What `torch.cuda.memory_allocated` says."""
    reserved: int = 0
    """What it has taken from the driver, free blocks included."""
    _free: list[Block] = field(default_factory=list[Block])

    def take(self, size: int) -> Block:
        """Allocate `size` bytes, from a free block if one fits."""
        wanted = max(_ROUNDING, _up(size, _ROUNDING))
        block = self._fitting(wanted) or self._segment(wanted)
        rest = block.size - wanted
        if rest >= _ROUNDING if block.is_small else self._splits(wanted) and rest > _SMALL:
            remainder = Block(rest, block.is_small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = remainder
            block.size, block.after = wanted, remainder
            self._free.append(remainder)
        block.is_free = False
        self.allocated += block.size
        return block

    def give_back(self, block: Block) -> None:
        """Free a block: it grows together with free neighbours of its segment and stays reserved."""
        self.allocated -= block.size
        block.is_free = True
        if block.before is not None and block.before.is_free:
            block = _merged(block.before, block)
            self._free.remove(block)
        if block.after is not None and block.after.is_free:
            self._free.remove(block.after)
            block = _merged(block, block.after)
        self._free.append(block)

    def _fitting(self, wanted: int) -> Block | None:
        """The smallest free block, unless the limit on splitting forbids it."""
        candidates = (it for it in self._free if it.is_small == (wanted <= _SMALL) and it.size >= wanted)
        best = min(candidates, key=lambda it: it.size, default=None)
        if best is None or self.max_split is None:
            allowed = True
        elif wanted < self.max_split:
            allowed = best.size < self.max_split
        else:
            allowed = best.size < wanted + _LARGE_SEGMENT
        if best is None or not allowed:
            return None
        self._free.remove(best)
        return best

    def _segment(self, wanted: int) -> Block:
        if wanted <= _SMALL:
            size = _SMALL_SEGMENT
        else:
            size = _LARGE_SEGMENT if wanted < _OWN_SEGMENT else _up(wanted, _SEGMENT_ROUNDING)
        self.reserved += size
        return Block(size, wanted <= _SMALL)

    def _splits(self, wanted: int) -> bool:
        return self.max_split is None or wanted < self.max_split


def _merged(left: Block, right: Block) -> Block:
    left.size += right.size
    left.after = right.after
    if right.after is not None:
        right.after.before = left
    return left


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
