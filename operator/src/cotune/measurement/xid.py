"""Critical errors of a card (NVIDIA's Xid numbers) as its driver tells them, through NVML's events.

What they mean: https://docs.nvidia.com/deploy/xid-errors/. The driver tells them as they come and keeps none: whoever
wants to know of a window must listen over all of it.
"""

# pynvml has no types: they stop at this file's signatures.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import threading
import time
from contextlib import suppress
from typing import Any

import pynvml

_WAIT_MILLISECONDS = 500
_KEPT = 1024


class XidWatch:
    """Listens from its making until it is closed, in a thread of its own: waiting for events blocks."""

    def __init__(self, handle: Any) -> None:
        """Listen to one card.

        Args:
            handle: NVML's.
        """
        self._seen: list[tuple[float, int]] = []
        self._is_over = threading.Event()
        self._events: Any = None
        self._thread: threading.Thread | None = None
        with suppress(pynvml.NVMLError):
            supported = int(pynvml.nvmlDeviceGetSupportedEventTypes(handle))
            if not supported & pynvml.nvmlEventTypeXidCriticalError:
                return
            events = pynvml.nvmlEventSetCreate()
            try:
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
            except pynvml.NVMLError:
                pynvml.nvmlEventSetFree(events)
                return
            self._events = events
            self._thread = threading.Thread(target=self._listen, name="xid", daemon=True)
            self._thread.start()

    def since(self, moment: float) -> tuple[int, ...] | None:
        """The errors since a moment of the monotonic clock; None: they are not told, here or any more."""
        if self._thread is None or not self._thread.is_alive():
            return None
        return tuple(number for at, number in tuple(self._seen) if at >= moment)

    def close(self) -> None:
        """Stop listening; takes half a second at most."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _listen(self) -> None:
        try:
            while not self._is_over.is_set():
                try:
                    event = pynvml.nvmlEventSetWait_v2(self._events, _WAIT_MILLISECONDS)
                except pynvml.NVMLError as error:
                    if getattr(error, "value", None) == pynvml.NVML_ERROR_TIMEOUT:
                        continue
                    return  # The card is lost, or the driver: from here on nothing is known.
                if int(event.eventType) & pynvml.nvmlEventTypeXidCriticalError:
                    self._seen.append((time.monotonic(), int(event.eventData)))
                    del self._seen[:-_KEPT]
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._events)
