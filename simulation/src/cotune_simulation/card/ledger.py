"""Who holds how much of the card's memory."""

from collections import Counter
from dataclasses import dataclass
from itertools import count


@dataclass
class OutOfMemoryError(Exception):
    """An allocation is larger than what is free."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class _Allocation:
    client: int
    size: int


class MemoryLedger:
    """All allocations on one card, by client (a CUDA context) and process.

    No client is kept from taking what is free, but for a limit that MPS sets. What a client holds is given back by that
    client, or when it ends.
    """

    def __init__(self, total_bytes: int, idle_used_bytes: int, client_limit: int | None = None) -> None:
        self._client_limit = client_limit
        self._total = total_bytes
        self._idle = idle_used_bytes
        self._allocations: dict[int, _Allocation] = {}
        self._pids: dict[int, int] = {}
        self._numbers = count(1)

    def open(self, client: int, pid: int) -> None:
        """A client appears, with the process id that its memory is counted under."""
        self._pids[client] = pid

    def close(self, client: int) -> None:
        """A client ends: everything it held is free again."""
        self._pids.pop(client, None)
        self._allocations = {key: held for key, held in self._allocations.items() if held.client != client}

    def allocate(self, client: int, size: int) -> int:
        """Take `size` bytes for `client`; returns the allocation's number.

        :raises OutOfMemoryError: so much is not free; nothing was taken.
        """
        if size > (free := self.free_for(client)):
            raise OutOfMemoryError(free, self._total)
        return self.restore(client, size)

    def free_for(self, client: int) -> int:
        """What one client may still take: under a limit the card looks as large as ever, and less of it is free."""
        if self._client_limit is None:
            return self.free_bytes
        return max(0, min(self.free_bytes, self._client_limit - self.held_bytes(client)))

    def restore(self, client: int, size: int) -> int:
        """Record what a client already held before this ledger began."""
        number = next(self._numbers)
        self._allocations[number] = _Allocation(client, size)
        return number

    def free(self, client: int, number: int) -> None:
        """Give back one allocation.

        :raises KeyError: this client does not hold it.
        """
        if number not in self._allocations or self._allocations[number].client != client:
            raise KeyError(number)
        del self._allocations[number]

    @property
    def allocated_bytes(self) -> int:
        """What all clients hold together."""
        return sum(held.size for held in self._allocations.values())

    @property
    def free_bytes(self) -> int:
        """What nobody holds, the driver's own share taken off."""
        return max(0, self._total - self._idle - self.allocated_bytes)

    def held_bytes(self, client: int) -> int:
        """What one client holds."""
        return sum(held.size for held in self._allocations.values() if held.client == client)

    def by_pid(self) -> dict[int, int]:
        """Bytes per process id, for processes that hold any."""
        held: Counter[int] = Counter()
        for allocation in self._allocations.values():
            held[self._pids[allocation.client]] += allocation.size
        return dict(sorted(held.items()))
