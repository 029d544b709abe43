from typing import Annotated

import pytest
from cotune.api.structural import structural_schema
from pydantic import BaseModel, Field


class Unbounded(BaseModel):
    items: list[int]


class Endless(BaseModel):
    text: str


class Either(BaseModel):
    value: int | Annotated[str, Field(max_length=1)]


class Node(BaseModel):
    child: "Node | None" = None


class Optional(BaseModel):
    count: int | None = None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Unbounded, "a list without a maximum"),
        (Endless, "a string without a maximum"),
        (Either, "union of several types"),
        (Node, "recursive type"),
    ],
)
def test_what_a_crd_cannot_hold_is_refused_when_it_is_generated(model: type[BaseModel], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        structural_schema(model)


def test_an_optional_field_becomes_the_plain_type_without_a_null_default() -> None:
    assert structural_schema(Optional) == {"type": "object", "properties": {"count": {"type": "integer"}}}
