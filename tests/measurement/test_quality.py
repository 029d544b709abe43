"""Questions whose answers are known: what is right, what is near, and when they are asked."""

import math
from pathlib import Path

import pytest
from cotune.measurement.quality import (
    FARTHEST_NATS,
    AnsweredToken,
    ChosenToken,
    Match,
    Question,
    Reply,
    due_times,
    goodness,
    likeness,
    read_questions,
)
from cotune.measurement.requests import WorkloadError


@pytest.mark.parametrize(
    ("match", "expect", "text", "is_right"),
    [
        (Match.EXACT, "Paris", " Paris\n", True),
        (Match.EXACT, "Paris", "paris", False),
        (Match.EXACT, "Paris", "Paris.", False),
        (Match.EXACT, ("Paris", "Paris."), "Paris.", True),
        (Match.CONTAINS, "paris", "It is PARIS, of course.", True),
        (Match.CONTAINS, "Paris", "It is Lyon.", False),
        (Match.CONTAINS, "Paris", "", False),
        (Match.REGEX, r"\b42\b", "That makes 42.", True),
        (Match.REGEX, r"\b42\b", "That makes 142.", False),
        (Match.REGEX, "(?i)^yes", "Yes, it is.", True),
        (Match.CHOICE, "B", "B", True),
        (Match.CHOICE, "B", " (B) the second", True),
        (Match.CHOICE, "B", "Answer: B.", True),
        (Match.CHOICE, ("A", "B"), "B", True),
        (Match.CHOICE, "B", "C, not B", False),
        (Match.CHOICE, "B", "I think that it is B", True),
        (Match.CHOICE, "B", "Both", False),
        (Match.CHOICE, "B", "I'm sorry, but that is nothing for me.", False),
    ],
)
def test_an_answer_is_right_or_wrong(match: Match, expect: str | tuple[str, ...], text: str, is_right: bool) -> None:
    assert goodness(Reply(Question(prompt="?", expect=expect, match=match), text)) == float(is_right)


RECORDED = (ChosenToken(token=" Paris", logprob=-0.1), ChosenToken(token=".", logprob=-0.3))


@pytest.mark.parametrize(
    ("answer", "distances"),
    [
        ([AnsweredToken(" Paris", -0.1), AnsweredToken(".", -0.3)], [0.0, 0.0]),
        ([AnsweredToken(" Paris", -0.3), AnsweredToken(".", -0.2)], [0.2, 0.1]),
        ([AnsweredToken(" Paris", -0.1), AnsweredToken("!", -0.2, {".": -1.3})], [0.0, 1.0]),
        ([AnsweredToken(" Lyon", -0.1, {" Paris": -2.1}), AnsweredToken(".", -0.3)], [2.0]),
        ([AnsweredToken(" Lyon", -0.1, {" Rome": -2.1}), AnsweredToken(".", -0.3)], [FARTHEST_NATS]),
        ([AnsweredToken(" Paris", -0.1)], [0.0, FARTHEST_NATS]),
        ([], [FARTHEST_NATS]),
        ([AnsweredToken(" Paris", -9999.0), AnsweredToken(".", -0.3)], [FARTHEST_NATS, 0.0]),
        ([AnsweredToken(" Paris", -math.inf), AnsweredToken(".", math.nan)], [FARTHEST_NATS, FARTHEST_NATS]),
    ],
)
def test_an_answer_is_as_near_as_the_probabilities_of_the_recorded_tokens(
    answer: list[AnsweredToken], distances: list[float]
) -> None:
    expected = math.exp(-sum(distances) / len(distances))

    assert likeness(RECORDED, answer) == pytest.approx(expected)
    assert goodness(Reply(Question(prompt="?", logprobs=RECORDED), "", answer)) == pytest.approx(expected)


def test_half_the_probability_of_every_token_is_a_half() -> None:
    halved = [AnsweredToken(it.token, it.logprob - math.log(2)) for it in RECORDED]

    assert likeness(RECORDED, halved) == pytest.approx(0.5)


def test_a_question_with_recorded_tokens_asks_for_as_many() -> None:
    assert Question(prompt="?", logprobs=RECORDED, max_tokens=99).asked_tokens == 2
    assert Question(prompt="?", expect="yes").asked_tokens == 32


def test_a_file_has_one_question_a_line(tmp_path: Path) -> None:
    (tmp_path / "q").write_text(
        '{"prompt": "2 + 2 =", "expect": "4", "match": "Contains", "maxTokens": 3}\n\n'
        '{"messages": [{"role": "user", "content": "Yes?"}], "expect": ["yes", "Yes"]}\n'
        '{"prompt": "The capital is", "logprobs": [{"token": " Paris", "logprob": -0.1}]}\n'
    )

    first, second, third = read_questions(tmp_path / "q")

    assert (first.expected, first.match, first.asked_tokens) == (("4",), Match.CONTAINS, 3)
    assert (second.expected, second.match, second.shown()) == (("yes", "Yes"), Match.EXACT, "Yes?")
    assert third.logprobs == RECORDED[:1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"expect": "4"}', "either prompt or messages"),
        ('{"prompt": "?", "messages": [{"role": "user", "content": "?"}], "expect": "4"}', "either prompt or messages"),
        ('{"prompt": "?"}', "either expect or logprobs"),
        ('{"prompt": "?", "expect": []}', "either expect or logprobs"),
        (
            '{"prompt": "?", "expect": "4", "logprobs": [{"token": "4", "logprob": -1}]}',
            "either expect or logprobs",
        ),
        ('{"prompt": "?", "expect": "(", "match": "Regex"}', "no regular expression"),
        ('{"prompt": "?", "expect": "two", "match": "Choice"}', "one letter from A to H"),
        ('{"prompt": "?", "expect": "4", "match": "Nearly"}', "match"),
        ('{"prompt": "?", "expect": "4", "maxTokens": 0}', "maxTokens"),
        ("no JSON", "the whole"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "q").write_text('{"prompt": "?", "expect": "4"}\n' + line)

    with pytest.raises(WorkloadError, match=f"q:2: .*{words}"):
        read_questions(tmp_path / "q")


def test_questions_are_spread_over_the_window_and_each_is_asked_once() -> None:
    assert due_times(4, 20.0) == (2.5, 7.5, 12.5, 17.5)


def test_more_questions_than_a_second_each_are_refused() -> None:
    assert len(due_times(20, 20.0)) == 20
    with pytest.raises(WorkloadError, match="21 questions in a window of 20 s"):
        due_times(21, 20.0)
