"""What is sent: every request of a stream, known before the first is sent and the same for the same seed."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from cotune.api.base import ApiModel

_LONGEST = 8
"""A drawn length is at most so many times the mean: a server refuses what exceeds its context."""
_SHIFT, _ROUND_SHIFT = 40, 24
"""Of a request's key: phase and seed lie above the one, the round above the other, and the number below both."""

_Line = TypeVar("_Line", bound=ApiModel)


class WorkloadError(ValueError):
    """A trace or a dataset cannot be read; the message says where."""


class Recorded(ApiModel):
    """One request of a recorded trace."""

    at: float = Field(ge=0)
    """Seconds from the start of the recording."""
    prompt_tokens: int | None = Field(default=None, ge=1)
    output_tokens: int | None = Field(default=None, ge=1)


class Message(ApiModel):
    """One message of a chat."""

    role: str
    content: str


class Sample(ApiModel):
    """One prompt of a dataset."""

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    output_tokens: int | None = Field(default=None, ge=1)


class Phase(IntEnum):
    """In which part of the load a request is sent: no request is sent in two of them."""

    FIRST = 0
    WARM_UP = 1
    WINDOW = 2
    COOL_DOWN = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asks for."""

    key: int
    """Different for all requests of a probe: the seed of what is random in this one."""
    number: int
    """In its phase, from 0."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None

    def in_round(self, number: int) -> "Request":
        """The same once more, after the window: of the same lengths, and of words that no prefix cache has seen.

        Args:
            number: of the round, from 1; 0: the window itself.
        """
        return replace(self, key=self.key | (number << _ROUND_SHIFT)) if number else self


@dataclass(frozen=True)
class Lengths:
    """How long prompts and answers are, in tokens."""

    prompt_tokens: int | None
    output_tokens: int | None
    spread: float = 0.0
    """Standard deviation over mean, log-normal."""

    def request(self, seed: int, phase: Phase, number: int, recorded: Recorded | None = None) -> Request:
        """The request of this number; what a recording says of its lengths wins."""
        key = (((seed << 2) | phase) << _SHIFT) | number
        prompt, output = self.prompt_tokens, self.output_tokens
        if self.spread > 0:
            source = random.Random(key)
            prompt, output = (None if it is None else self._drawn(it, source) for it in (prompt, output))
        if recorded is not None:
            prompt, output = recorded.prompt_tokens or prompt, recorded.output_tokens or output
        return Request(key, number, prompt, output)

    def _drawn(self, mean: int, source: random.Random) -> int:
        variance = math.log1p(self.spread**2)
        drawn = source.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))
        return min(max(round(drawn), 1), _LONGEST * mean)


def requests_from(lengths: Lengths, seed: int, phase: Phase, in_round: int = 0) -> Iterator[Request]:
    """Requests without end, for a closed loop."""
    number = 0
    while True:
        yield lengths.request(seed, phase, number).in_round(in_round)
        number += 1


def read_trace(path: Path) -> tuple[Recorded, ...]:
    """A recorded trace: JSON lines with `at`, ascending.

    Raises:
        WorkloadError: the file is not there, a line makes no sense, or the times do not ascend.
    """
    entries = read_lines(path, Recorded)
    for line, (earlier, later) in enumerate(itertools.pairwise(entries), 2):
        if later.at < earlier.at:
            raise WorkloadError(f"{path}:{line}: at {later.at:g} comes after {earlier.at:g}")
    return entries


def read_dataset(path: Path) -> tuple[Sample, ...]:
    """Prompts, one a line.

    Raises:
        WorkloadError: the file is not there, or a line has neither or both of `prompt` and `messages`.
    """
    samples = read_lines(path, Sample)
    for line, sample in enumerate(samples, 1):
        if bool(sample.prompt) == bool(sample.messages):
            raise WorkloadError(f"{path}:{line}: give either prompt or messages")
    return samples


def shuffled(samples: Sequence[Sample], seed: int) -> tuple[Sample, ...]:
    """The samples in the order in which a stream sends them."""
    return tuple(random.Random(seed).sample(samples, len(samples)))


def read_lines(path: Path, model: type[_Line]) -> tuple[_Line, ...]:
    """A file of JSON lines; empty ones do not count.

    Raises:
        WorkloadError: the file is not there, a line makes no sense, or there is none.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: {error}") from error
    found: list[_Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append(model.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(it) for it in first["loc"]) or "the whole"
                raise WorkloadError(f"{path}:{number}: {where}: {first['msg']}") from error
    if not found:
        raise WorkloadError(f"{path} has no line")
    return tuple(found)
