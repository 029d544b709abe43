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
        self._waiting: dict[str, tuple[str, float, float]] = {}
        """What is waited for, since when, and when that was said last; by what it is about."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Something has happened."""
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f"[{minutes:2}:{seconds:02}] {self._lead}{text}", flush=True)

    def beside(self, lead: str) -> "Progress":
        """Of what goes on at the same time, by the same clock."""
        return Progress(self._every, lead, self._start)

    def waiting(self, text: str, about: str = "") -> None:
        """Something is waited for: said when it changes, and again every few seconds with its time.

        Args:
            text: what.
            about: several things may be waited for at the same time.
        """
        now = time.monotonic()
        before, since, said_at = self._waiting.get(about, ("", now, now))
        if text != before:
            since = said_at = now
            self.say(text)
        elif now - said_at >= self._every:
            said_at = now
            self.say(f"{text} ({now - since:.0f} s)")
        self._waiting[about] = (text, since, said_at)
