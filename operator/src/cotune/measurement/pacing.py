"""Waking up when a request is due, to a small part of a millisecond."""

import asyncio
import ctypes
import os
import time
from types import TracebackType
from typing import Self

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NANOSECONDS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Pacer:
    """Waits for moments of `time.monotonic()` by a timer of the Linux kernel (timerfd).

    An event loop's own timers are rounded up to whole milliseconds, which at 1,000 requests a second is the distance
    between two of them.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = -1
        self._waiting: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the timer.

        Raises:
            OSError: the kernel gives none.
        """
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        asyncio.get_running_loop().add_reader(self._descriptor, self._expired)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    async def until(self, due: float) -> None:
        """Return at `due`, in seconds of `time.monotonic()`; what is past only lets others run once."""
        if due <= time.monotonic():
            await asyncio.sleep(0)
            return
        self._waiting = asyncio.get_running_loop().create_future()
        seconds, rest = divmod(max(int(due * _NANOSECONDS), 1), _NANOSECONDS)
        setting = _Setting(_Timespec(0, 0), _Timespec(seconds, rest))
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiting

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
