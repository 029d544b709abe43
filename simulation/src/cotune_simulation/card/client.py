"""A process's side of the card: what CUDA and torch are to a real server."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast

from cotune_simulation.card.ledger import OutOfMemoryError
from cotune_simulation.card.products import CardProduct, card_product
from cotune_simulation.figures import Entry

_RECONNECT_SECONDS = 0.05
_LOST_AFTER_SECONDS = 60.0


class NoCardError(Exception):
    """There is no card here, or it does not come back."""


@dataclass
class Allocation:
    """Memory that this process holds; its number changes when the daemon is restarted."""

    size: int
    number: int


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lost: bool = False
    replies: dict[int, "asyncio.Future[Entry]"] = field(default_factory=dict[int, "asyncio.Future[Entry]"])


class CardClient:
    """One CUDA context.

    It outlives restarts of the daemon: it connects again, says what it holds, and repeats what was not answered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = count(1)
        self._held: list[Allocation] = []
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._receiver: asyncio.Task[None] | None = None
        self.product: CardProduct

    @classmethod
    async def connect(cls, path: Path) -> "CardClient":
        """The card at `path`.

        :raises NoCardError: nothing listens there.
        """
        client = cls(path)
        try:
            await client._open()
        except OSError as error:
            raise NoCardError(f"no simulated card at {path}: {error}") from error
        description = await client._call("describe")
        client.product = card_product(description.text("product"))
        return client

    async def allocate(self, size: int) -> Allocation:
        """Take `size` bytes.

        :raises OutOfMemoryError: so much is not free.
        """
        reply = await self._call("allocate", bytes=size)
        allocation = Allocation(size, reply.integer("allocation"))
        self._held.append(allocation)
        return allocation

    async def free(self, allocation: Allocation) -> None:
        """Give back what `allocate` took."""
        self._held.remove(allocation)
        await self._call("free", allocation=allocation.number)

    async def run(self, kernel_ms: float, launches: int = 1, gap_ms: float = 0.0) -> None:
        """Run kernels one after the other, `gap_ms` apart; returns when the last one has ended."""
        await self._call("run", kernel_ms=kernel_ms, launches=launches, gap_ms=gap_ms)

    async def free_bytes(self) -> int:
        """What nobody holds on the card."""
        return (await self._call("memory")).integer("free")

    async def throttle(self, reasons: int) -> None:
        """Have the card show these clock event reasons (NVML's bits) from now on; 0: none."""
        await self._call("throttle", reasons=reasons)

    async def fail(self, xid: int = 0, uncorrected: int = 0) -> None:
        """Have the driver tell a critical error (NVIDIA's Xid number; 0: none), and memory lose what was in it.

        :raises ValueError: memory errors of a card that does not count them.
        """
        await self._call("fail", xid=xid, uncorrected=uncorrected)

    @property
    def held_bytes(self) -> int:
        """What this process holds."""
        return sum(allocation.size for allocation in self._held)

    async def close(self) -> None:
        """End the context: everything is given back."""
        if self._receiver:
            self._receiver.cancel()
        if self._connection:
            self._connection.writer.close()

    async def _call(self, operation: str, **arguments: object) -> Entry:
        while True:
            connection = await self._connected()
            number = next(self._numbers)
            reply: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
            connection.replies[number] = reply
            try:
                await _send(connection.writer, {"id": number, "op": operation, **arguments})
                return _without_error(await reply)
            except ConnectionError:
                connection.lost = True
            finally:
                connection.replies.pop(number, None)

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection and not self._connection.lost:
                return self._connection
            try:
                async with asyncio.timeout(_LOST_AFTER_SECONDS):
                    return await self._reconnect()
            except TimeoutError as error:
                raise NoCardError(f"the simulated card at {self._path} was lost") from error

    async def _reconnect(self) -> _Connection:
        while True:
            try:
                return await self._open()
            except OSError:
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _open(self) -> _Connection:
        if self._receiver:
            self._receiver.cancel()
        if self._connection:
            self._connection.writer.close()
        reader, writer = await asyncio.open_unix_connection(self._path)
        connection = _Connection(reader, writer)
        for allocation in self._held:
            await _send(writer, {"id": 0, "op": "restore", "bytes": allocation.size})
            allocation.number = _entry(await reader.readline()).integer("allocation")
        self._connection = connection
        self._receiver = asyncio.create_task(self._receive(connection))
        return connection

    async def _receive(self, connection: _Connection) -> None:
        try:
            while line := await connection.reader.readline():
                reply = _entry(line)
                if waiting := connection.replies.get(reply.integer("id")):
                    waiting.set_result(reply)
        except ConnectionError:
            pass
        connection.lost = True
        for waiting in connection.replies.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the card's daemon ended"))
        if self._held:
            # What it holds must be said again at once, not at the next call.
            await self._reclaim(connection)

    async def _reclaim(self, lost: _Connection) -> None:
        async with self._connecting:
            if self._connection is lost:
                self._receiver = None
                # Without success the next call says that the card is lost.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOST_AFTER_SECONDS):
                        await self._reconnect()


async def _send(writer: asyncio.StreamWriter, message: dict[str, object]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


def _entry(line: bytes) -> Entry:
    if not line:
        raise ConnectionResetError("the card's daemon ended")
    return Entry(cast("object", json.loads(line)))


def _without_error(reply: Entry) -> Entry:
    if "error" not in reply:
        return reply
    if reply.text("error") == "out_of_memory":
        raise OutOfMemoryError(reply.integer("free"), reply.integer("total"))
    raise ValueError(reply.text("reason"))
