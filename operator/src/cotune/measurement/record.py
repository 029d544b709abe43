"""What the requests of one stream came to: counted where they were due in the window, thrown away elsewhere."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

from cotune.measurement.clients import Answer, ErrorKind, error_kind
from cotune.measurement.latency import LatencyRecorder
from cotune.measurement.quality import Reply
from cotune.measurement.word_error_rate import Heard

_MOST_ERRORS = 16


@dataclass(frozen=True)
class Window:
    """The part of the load that is measured; moments are those of `time.monotonic()`."""

    start: float
    seconds: float
    grace_seconds: float
    """How long after its end answers are waited for."""

    @property
    def end(self) -> float:
        """When the last request may be due."""
        return self.start + self.seconds

    def has(self, moment: float) -> bool:
        """Whether a request that is due then is measured."""
        return self.start <= moment < self.end


@dataclass
class StreamRecord:
    """All that is kept of one stream: histograms and counts, and two numbers for each request."""

    window: Window
    requests: int = 0
    errors: Counter[ErrorKind] = field(default_factory=Counter[ErrorKind])
    examples: list[str] = field(default_factory=list[str])
    """The first errors."""
    latency: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the due time. An error has none, but for a time-out: it counts with the time that it was waited for."""
    service: LatencyRecorder = field(default_factory=LatencyRecorder)
    """The same from the moment of sending: what a closed loop would report."""
    first_token: LatencyRecorder = field(default_factory=LatencyRecorder)
    """From the due time."""
    between_tokens: LatencyRecorder = field(default_factory=LatencyRecorder)
    lateness: LatencyRecorder = field(default_factory=LatencyRecorder)
    """How late the probe itself sent: the schedule error."""
    answered_in_window: int = 0
    """Good answers that ended within the window, whenever their requests were due."""
    tokens_in_window: int = 0
    tokens_unknown: int = 0
    """Streamed answers whose server did not say their tokens."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    streamed: int = 0
    heard: list[Heard] = field(default_factory=list[Heard])
    replies: list[Reply] = field(default_factory=list[Reply])
    audio_seconds: float = 0.0
    processing_seconds: float = 0.0
    backoff_seconds: float = 0.0
    """For which clients of a closed loop paused after errors."""
    due: "array[float]" = field(default_factory=lambda: array("d"))
    latencies: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def error_rate(self) -> float:
        """Errors over all requests, 0 without any."""
        return self.errors.total() / self.requests if self.requests else 0.0

    def sent(self, due: float, now: float, *, scheduled: bool) -> None:
        """A request was handed to its client."""
        if self.window.has(due):
            self.requests += 1
            if scheduled:
                self.lateness.finished(due, max(due, now))

    def answered(self, due: float, sent: float, now: float, answer: Answer) -> None:
        """A good answer."""
        if self.window.has(now):
            self.answered_in_window += 1
            self.tokens_in_window += answer.tokens or 0
            self.tokens_unknown += answer.first_token is not None and answer.tokens is None
        if not self.window.has(due):
            return
        self._took(due, now)
        self.service.finished(sent, now)
        self._streamed(due, answer)
        self.prompt_tokens += answer.prompt_tokens or 0
        self.output_tokens += answer.tokens or 0
        if answer.heard is not None:
            self.heard.append(answer.heard)
        if answer.reply is not None:
            self.replies.append(answer.reply)
        self.audio_seconds += answer.audio_seconds
        self.processing_seconds += answer.processing_seconds

    def failed(self, due: float, now: float, error: BaseException, answer: Answer, *, is_streamed: bool) -> None:
        """An error; a time-out is one, and its latency is at least the time that it was waited for."""
        if not self.window.has(due):
            return
        kind = error_kind(error)
        self.errors[kind] += 1
        if len(self.examples) < _MOST_ERRORS:
            self.examples.append(f"{type(error).__name__}: {error}"[:300])
        if kind is ErrorKind.TIMEOUT:
            self._given_up(due, now, answer, is_streamed=is_streamed)

    def open_at_end(self, due: float, now: float, answer: Answer, *, is_streamed: bool) -> None:
        """A request that was neither answered nor failed when the load ended."""
        if self.window.has(due):
            self._given_up(due, now, answer, is_streamed=is_streamed)

    def _given_up(self, due: float, now: float, answer: Answer, *, is_streamed: bool) -> None:
        self.latency.unfinished(due, now)
        self.due.append(due)
        self.latencies.append(now - due)
        if answer.first_token is not None:
            self._streamed(due, answer)
        elif is_streamed:
            self.first_token.unfinished(due, now)

    def _took(self, due: float, now: float) -> None:
        self.latency.finished(due, now)
        self.due.append(due)
        self.latencies.append(now - due)

    def _streamed(self, due: float, answer: Answer) -> None:
        if answer.first_token is None:
            return
        self.streamed += 1
        self.first_token.finished(due, answer.first_token)
        for gap in answer.between_tokens:
            self.between_tokens.finished(0.0, gap)

    def latencies_by_due_time(self) -> list[float]:
        """Seconds, in the order in which the requests were due."""
        return [latency for _, latency in sorted(zip(self.due, self.latencies, strict=True))]
