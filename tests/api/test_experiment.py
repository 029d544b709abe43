import copy
from collections.abc import Callable
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.api.sharing import Sharing
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


def by_time_slicing(spec: Any) -> None:
    spec["gpu"]["sharing"] = "TimeSlicing"


def by_what_is_left_out(spec: Any) -> None:
    spec["gpu"].pop("sharing", None)


def by_mps(spec: Any) -> None:
    spec["gpu"]["sharing"] = "MPS"


def test_time_slicing_is_what_a_sharing_that_is_left_out_means_and_once_was_filled_in() -> None:
    assert digest(by_time_slicing) == digest(by_what_is_left_out) != digest(by_mps)


def with_parameter(baseline: str, sharing: str | None = None) -> ExperimentSpec:
    spec = copy.deepcopy(SPEC)
    by_what_is_left_out(spec)
    if sharing is not None:
        spec["gpu"]["sharing"] = sharing
    values = {"values": ["Exclusive", "TimeSlicing", "MPS"], "baseline": baseline}
    spec["parameters"].append({"name": "sharing", "bind": {"gpu": "sharing"}} | values)
    return ExperimentSpec.model_validate(spec)


@pytest.mark.parametrize("mode", list(Sharing))
def test_a_candidates_sharing_is_its_parameters_value(mode: Sharing) -> None:
    spec = with_parameter("MPS", "MPS")

    assert spec.baseline_sharing is Sharing.MPS
    assert spec.sharing({"sharing": str(mode)}) is mode


def test_without_a_parameter_all_candidates_share_alike_and_without_a_card_none_does() -> None:
    spec = ExperimentSpec.model_validate(SPEC)

    assert spec.sharing({}) is spec.baseline_sharing is Sharing.TIME_SLICING
    assert spec.model_copy(update={"gpu": None}).sharing({}) is None
