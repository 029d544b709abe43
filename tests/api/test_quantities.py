import pytest
from cotune.api.quantities import canonical, digest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.40", "0.4"),
        ("0.4", "0.4"),
        ("4", "4"),
        ("40", "40"),
        ("4.0", "4"),
        ("-0.0", "0"),
        ("0", "0"),
        ("tiny", "tiny"),
        ("tiny.en", "tiny.en"),
        ("NaN", "NaN"),
    ],
)
def test_one_spelling_for_equal_values(value: str, expected: str) -> None:
    assert canonical(value) == expected


def test_a_digest_ignores_spelling_and_order_but_not_values() -> None:
    assert digest({"a": "0.40", "b": "x"}) == digest({"b": "x", "a": "0.4"})
    assert digest({"a": "0.40"}) != digest({"a": "0.41"})
