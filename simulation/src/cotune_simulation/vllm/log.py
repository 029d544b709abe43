"""Log lines with vLLM's prefixes."""

import os
import time


class Log:
    """Prints as one of vLLM's processes does; here they are all one."""

    def __init__(self, process: str) -> None:
        self._prefix = f"({process} pid={os.getpid()})"

    def info(self, place: str, message: str) -> None:
        """A line of the level INFO from a source file and line, for example `gpu_worker.py:298`."""
        self._print("INFO", place, message)

    def error(self, place: str, message: str) -> None:
        """A line of the level ERROR."""
        self._print("ERROR", place, message)

    def plain(self, message: str) -> None:
        """A line without level, as of a traceback."""
        print(f"{self._prefix} {message}", flush=True)

    def _print(self, level: str, place: str, message: str) -> None:
        now = time.strftime("%m-%d %H:%M:%S")
        print(f"{self._prefix} {level} {now} [{place}] {message}", flush=True)
