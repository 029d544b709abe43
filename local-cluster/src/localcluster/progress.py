"""Progress lines of the command line: what is being done, and for how long."""

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

_HEARTBEAT_SECONDS = 15.0


def say(text: str) -> None:
    """Print one progress line to standard error, which leaves standard output to results."""
    print(f"local-cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Generator[None]:
    """Announce a step, repeat how long it has taken while it runs, and say when it is done."""
    started = time.monotonic()
    finished = threading.Event()

    def repeat() -> None:
        while not finished.wait(_HEARTBEAT_SECONDS):
            say(f"{text}: {time.monotonic() - started:.0f} s so far")

    say(f"{text} ...")
    heartbeat = threading.Thread(target=repeat, daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        finished.set()
        heartbeat.join()
    say(f"{text}: done after {time.monotonic() - started:.1f} s")
