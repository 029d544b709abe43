"""What the simulated vLLM knows, and what settings make of it."""

import math

import pytest
from cotune_simulation.vllm.answers import answer, damage

QUESTIONS = [f"What is {left} + {left * 3}?" for left in range(200)]


def said(question: str, harm: float) -> str:
    tokens = answer(question, harm)
    assert tokens is not None
    return "".join(it.text for it in tokens).strip()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 17 + 25?", "The answer is 42."),
        ("First 1 + 1 = 2. Then 17-25 =", "The answer is -8."),
        ("6 * 7", "The answer is 42."),
    ],
)
def test_the_sum_at_the_end_of_a_prompt_is_answered(question: str, expected: str) -> None:
    assert said(question, 0.0) == expected


@pytest.mark.parametrize("question", ["Why is the sky blue?", "17 + x", "1 + 1, of 3 people", ""])
def test_what_is_no_sum_has_no_answer(question: str) -> None:
    assert answer(question, 0.0) is None


def test_more_harm_makes_more_answers_wrong_and_the_same_ones_again() -> None:
    right = {it: said(it, 0.0) for it in QUESTIONS}
    some, more = ({it for it in QUESTIONS if said(it, harm) != right[it]} for harm in (0.1, 0.4))

    assert some < more
    assert len(more) / len(QUESTIONS) == pytest.approx(0.4, abs=0.1)
    assert {it for it in QUESTIONS if said(it, 1.0) != right[it]} == set(QUESTIONS)


def test_harm_moves_the_probabilities_of_right_answers_too() -> None:
    well, harmed = (answer("What is 17 + 25?", harm) or () for harm in (0.0, 0.02))

    assert [it.text for it in well] == [it.text for it in harmed]
    assert all(it.logprob < 0 for it in well)
    assert any(not math.isclose(a.logprob, b.logprob) for a, b in zip(well, harmed, strict=True))


def test_caches_and_weights_break_what_the_figures_say() -> None:
    assert damage("auto", None) == damage("bfloat16", "awq") == 0
    assert 0 < damage("fp8", None) < damage("fp8_e5m2", None) < damage("fp8_e5m2", "rtn")
