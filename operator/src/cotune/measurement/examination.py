"""The questions of one stream, asked within the window beside its load, and kept apart from it.

They are not counted in the stream's latencies, errors and throughput: their lengths are others, their answers are not
held to a length, and how many there are is not what the arrivals say. Those figures would depend on the set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cotune.measurement.load import Target, run_open_loop
from cotune.measurement.quality import Question, due_times
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.requests import Request


@dataclass(frozen=True)
class Examination:
    """A set of questions for one component."""

    component: str
    stream: int
    """Its place in the configuration."""
    questions: Sequence[Question]
    target: Target

    async def run(self, window: Window) -> StreamRecord:
        """Ask each of them once; one without an answer when the load has ended is given up."""
        record = StreamRecord(window)
        await run_open_loop(self._plan(window.seconds), self.target, record)
        return record

    def _plan(self, seconds: float) -> Iterator[tuple[float, Request]]:
        for number, due in enumerate(due_times(len(self.questions), seconds)):
            yield due, Request(key=number, number=number)
