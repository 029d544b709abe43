"""Lines of progress: what happens, how long after the start."""

import time


class Progress:
    """Prints lines with the time since the start; that one still waits is said every few seconds only.

    Args:
        every_seconds: how long nothing may be said while something is waited for.
        lead: stands before every line.
        start: moment of `time.monotonic()`; None: now.
    """

    def __init__(self, every_seconds: float = 5.0, lead: str = "", start: float | None = None) -> None:
        self._start = time.monotonic() if start is None else start
        self._every = every_seconds
        self._lead = lead
        self._waiting_for, self._waiting_since, self._said_at = "", 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Something has happened."""
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f"[{minutes:2}:{seconds:02}] {self._lead}{text}", flush=True)
        self._said_at = time.monotonic()

    def beside(self, lead: str) -> "Progress":
        """Of what goes on at the same time, by the same clock."""
        return Progress(self._every, lead, self._start)

    def waiting(self, text: str) -> None:
        """Something is waited for: said when it changes, and again every few seconds with its time."""
        now = time.monotonic()
        if text != self._waiting_for:
            self._waiting_for, self._waiting_since = text, now
            self.say(text)
        elif now - self._said_at >= self._every:
            self.say(f"{text} ({now - self._waiting_since:.0f} s)")
