"""Batches of a stage: the same stack runs several times in its namespace, and not all of them change at once."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, LabelValue, Rule

MOST_BATCHES = 16
MOST_STACKS = 64
MOST_WORKLOADS = 256
"""Of one stage: each of those that have changed is read at every look."""

Batch = Annotated[str, Field(max_length=4, pattern=r"^([1-9][0-9]{0,3}|[1-9][0-9]?%|100%)$")]
"""How many stacks, or nodes with stacks: `3`, or `50%` of them, rounded up."""


class BatchesBy(StrEnum):
    """What a batch is made of."""

    STACK = "Stack"
    """Stacks, in the order of their names."""
    NODE = "Node"
    """Nodes, in the order of their names, with all stacks that have pods there; a stack on several nodes joins them."""


class StageBatch(ApiModel):
    """Stacks that change together."""

    stacks: Annotated[
        tuple[LabelValue, ...],
        Field(min_length=1, max_length=MOST_STACKS, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """The values of the grant's `stackLabel`."""
    started_at: datetime | None = None
    """Left out: it has not begun, and nothing in it was touched."""


BATCHES_GROW = Rule(
    "self.batches.all(i, a, self.batches.all(j, b, i >= j || a.endsWith('%') != b.endsWith('%') || "
    "int(a.replace('%', '')) < int(b.replace('%', ''))))",
    "batches count the earlier ones in: each number must be greater than those before, and each percentage",
    ".batches",
)
BATCHES_DO_NOT_SURGE = Rule(
    "!has(self.surge) || self.surge == 'Never' || size(self.batches) == 1 && self.batches[0] == '100%'",
    "a bridge is for one stack: with batches the others serve meanwhile",
    ".surge",
)
THE_WHOLE_IS_LAST = Rule(
    "self.batches.all(i, a, a != '100%' || i == size(self.batches) - 1)",
    "nothing is left for a batch after 100%",
    ".batches",
)
GIT_HAS_NO_BATCHES = Rule(
    "self.strategy != 'Git' || self.stages.all(s, size(s.batches) == 1 && s.batches[0] == '100%')",
    "with strategy Git whoever commits the values decides which stacks have them first: leave batches out",
    ".stages",
)
