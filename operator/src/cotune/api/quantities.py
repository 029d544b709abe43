"""Decimal strings: numbers that keep the user's spelling and compare by value."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from cotune.api.base import SET_LIST

DECIMAL_PATTERN = r"^-?[0-9]{1,12}(\.[0-9]{1,9})?$"

DecimalString = Annotated[str, Field(max_length=24, pattern=DECIMAL_PATTERN)]
"""A decimal number as a string, such as `"0.40"`: JSON's floats would not keep it."""

Value = Annotated[str, Field(min_length=1, max_length=253)]
"""A parameter's value as it is put into the environment variable."""

ValueSet = Annotated[tuple[Value, ...], Field(min_length=1, max_length=100, json_schema_extra=dict(SET_LIST))]
"""Values among which one is chosen."""


@lru_cache(maxsize=1 << 14)
def canonical(value: str) -> str:
    """One spelling for equal values: `0.4` for `0.40`; what is no finite decimal number stays as it is."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    if not number.is_finite():
        return value
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"", "-", "-0"} else text


def digest(values: Mapping[str, str]) -> str:
    """The SHA-256 of an assignment in hexadecimal, equal for equal values whatever their spelling and order."""
    text = json.dumps({name: canonical(value) for name, value in values.items()}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
