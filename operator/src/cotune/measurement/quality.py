"""Questions whose answers are known: whether a setting that saves memory or time has broken the answers.

A question has an expected answer, or the log-probabilities of the tokens with which the model answered when it was
known to be well. Right and wrong are told after the window: it must not take time from the load.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel
from cotune.measurement.requests import Message, WorkloadError, read_lines

MOST_A_SECOND = 1.0
"""Questions are not the load: more of them than this change what it measures."""
FARTHEST_NATS = 10.0
"""How far a token's log-probability counts as off at most, and how far where the server does not show the token."""
SHOWN_TOKENS = 5
"""Alternatives that are asked for at each place: OpenAI's completions show no more."""
_SHOWN = 80
_LETTER = re.compile(r"(?<!\w)([A-H])(?!\w)")
"""Not I, which is a word."""


class Match(StrEnum):
    """When an answer is the expected one."""

    EXACT = "Exact"
    """Letter by letter, but for white space around it."""
    CONTAINS = "Contains"
    """It stands somewhere in the answer, in capitals or not."""
    REGEX = "Regex"
    """A regular expression of Python is found somewhere in the answer."""
    CHOICE = "Choice"
    """The first of the letters A to H that stands alone in the answer is the expected one."""


class ChosenToken(ApiModel):
    """One token of an answer, as the chat interface of OpenAI shows it."""

    token: str
    logprob: float
    """Natural logarithm of its probability."""


class Question(ApiModel):
    """One line of the file."""

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    expect: str | tuple[str, ...] | None = None
    """One of them is enough."""
    match: Match = Match.EXACT
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 32
    logprobs: tuple[ChosenToken, ...] | None = None
    """Of the answer that is known to be good, from its first token."""

    @property
    def expected(self) -> tuple[str, ...]:
        """All answers that are right."""
        return (self.expect,) if isinstance(self.expect, str) else self.expect or ()

    def shown(self) -> str:
        """Its end, as a person knows it by."""
        text = self.prompt or (self.messages[-1].content if self.messages else "")
        return text.strip()[-_SHOWN:]

    @property
    def asked_tokens(self) -> int:
        """How long the answer may be: no longer than what it is compared with."""
        return len(self.logprobs) if self.logprobs else self.max_tokens


@dataclass(frozen=True)
class AnsweredToken:
    """One token of the answer, and what else could have stood there."""

    token: str
    logprob: float
    alternatives: Mapping[str, float] = field(default_factory=dict[str, float])
    """Token to log-probability, as many as the server shows."""


@dataclass(frozen=True)
class Reply:
    """What a question was answered with."""

    question: Question
    text: str
    tokens: Sequence[AnsweredToken] = ()


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions, one a line.

    Raises:
        WorkloadError: the file is not there, or a line makes no sense; the message says which.
    """
    questions = read_lines(path, Question)
    for line, it in enumerate(questions, 1):
        if bool(it.prompt) == bool(it.messages):
            raise WorkloadError(f"{path}:{line}: give either prompt or messages")
        if bool(it.expected) == bool(it.logprobs):
            raise WorkloadError(f"{path}:{line}: give either expect or logprobs")
        if it.match is Match.REGEX:
            for pattern in it.expected:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise WorkloadError(f"{path}:{line}: {pattern!r} is no regular expression: {error}") from error
        if it.match is Match.CHOICE and not all(re.fullmatch("[A-H]", letter) for letter in it.expected):
            raise WorkloadError(f"{path}:{line}: a choice is one letter from A to H")
    return questions


def due_times(count: int, seconds: float) -> tuple[float, ...]:
    """When the questions are asked, in seconds from the start of the window: evenly, each once.

    Raises:
        WorkloadError: the window is too short for so many.
    """
    if count > seconds * MOST_A_SECOND:
        raise WorkloadError(
            f"{count} questions in a window of {seconds:g} s: more than {MOST_A_SECOND:g} a second would be a load of "
            "their own; give it a longer window or fewer questions"
        )
    return tuple((number + 0.5) * seconds / count for number in range(count))


def goodness(reply: Reply) -> float:
    """1 for a right answer, 0 for a wrong one; for log-probabilities how near they are to the recorded ones."""
    question = reply.question
    if question.logprobs:
        return likeness(question.logprobs, reply.tokens)
    return float(any(_is_right(question.match, it, reply.text) for it in question.expected))


def likeness(reference: Sequence[ChosenToken], answer: Sequence[AnsweredToken]) -> float:
    """exp of minus the mean distance of log-probabilities, up to the first token that differs, this one included.

    So it is the geometric mean of the factors by which the probabilities of the recorded tokens have changed: 1, none
    has; 0.5, by two on average. After a token that differs the contexts do, and nothing can be compared.
    """
    distances: list[float] = []
    for place, recorded in enumerate(reference):
        if place >= len(answer):
            distances.append(FARTHEST_NATS)
            break
        token = answer[place]
        is_same = token.token == recorded.token
        found = token.logprob if is_same else token.alternatives.get(recorded.token)
        distance = FARTHEST_NATS if found is None else abs(found - recorded.logprob)
        distances.append(min(distance, FARTHEST_NATS) if math.isfinite(distance) else FARTHEST_NATS)
        if not is_same:
            break
    return math.exp(-sum(distances) / len(distances))


def _is_right(match: Match, expected: str, text: str) -> bool:
    match match:
        case Match.EXACT:
            return text.strip() == expected.strip()
        case Match.CONTAINS:
            return expected.casefold() in text.casefold()
        case Match.REGEX:
            return re.search(expected, text) is not None
        case Match.CHOICE:
            return (found := _LETTER.search(text)) is not None and found[1] == expected
