import copy
from collections.abc import Callable
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from support.resources import manifest

SPEC = manifest("GpuAllocationExperiment")["spec"]


def digest(change: Callable[[Any], None] | None = None) -> str:
    spec = copy.deepcopy(SPEC)
    if change is not None:
        change(spec)
    return ExperimentSpec.model_validate(spec).digest()


def fill_in_every_default(spec: Any) -> None:
    """As the API server does, and as a newer release does for fields that the older one does not know."""
    filled = ExperimentSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert filled != spec
    spec |= filled


def test_a_default_that_is_filled_in_does_not_make_another_experiment() -> None:
    assert digest(fill_in_every_default) == digest()


def a_number(spec: Any) -> None:
    spec["workload"]["durationSeconds"] += 1


def a_baseline(spec: Any) -> None:
    spec["parameters"][0]["baseline"] = "0.45"


def a_pod_template(spec: Any) -> None:
    spec["stack"]["components"][0]["template"]["spec"]["hostname"] = "other"


def an_order(spec: Any) -> None:
    spec["stack"]["components"].reverse()


@pytest.mark.parametrize("change", [a_number, a_baseline, a_pod_template, an_order])
def test_what_is_said_otherwise_makes_another_experiment(change: Callable[[Any], None]) -> None:
    assert digest(change) != digest()
