from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.experiments.samples import too_few_requests
from support.examples import FILES, documents
from support.resources import manifest


def spec(arrivals: dict[str, Any], seconds: int, least: int) -> ExperimentSpec:
    """One stream with these arrivals to each component; the judge's p95 decides."""
    made = manifest("GpuAllocationExperiment")["spec"]
    made["workload"] |= {"durationSeconds": seconds, "minimumSamples": least}
    for it in made["workload"]["streams"]:
        it["arrivals"] = arrivals
    return ExperimentSpec.model_validate(made)


@pytest.mark.parametrize(
    ("arrivals", "seconds", "least", "is_too_few"),
    [
        ({"type": "Constant", "ratePerSecond": "1"}, 20, 20, False),
        ({"type": "Constant", "ratePerSecond": "1"}, 19, 20, True),
        ({"type": "Poisson", "ratePerSecond": "1"}, 5, 20, True),
        ({"type": "Poisson", "ratePerSecond": "1"}, 200, 20, False),
        ({"type": "Burst", "ratePerSecond": "1", "burstSize": 40}, 1, 40, True),
        ({"type": "ClosedLoop", "concurrency": [1]}, 1, 1_000, False),
        ({"type": "Trace", "traceRef": {"configMap": "trace", "key": "trace.jsonl"}}, 1, 1_000, False),
    ],
)
def test_a_window_that_cannot_bring_enough_answers_is_known_beforehand(
    arrivals: dict[str, Any], seconds: int, least: int, is_too_few: bool
) -> None:
    assert (too_few_requests("voice", spec(arrivals, seconds, least)) is not None) == is_too_few


def test_the_message_names_metric_component_figures_and_what_to_do() -> None:
    found = too_few_requests("voice", spec({"type": "Constant", "ratePerSecond": "1"}, 3, 20))

    assert found is not None
    assert "wants 20 samples (minimumSamples), and 3 requests are due for judge in a window of 3 s" in found
    assert found.endswith("give it a longer window or a higher rate")


@pytest.mark.parametrize(("seconds", "is_too_few"), [(59, True), (60, False)])
def test_the_requests_are_split_between_the_conditions_of_a_corpus(seconds: int, is_too_few: bool) -> None:
    made = spec({"type": "Constant", "ratePerSecond": "1"}, seconds, 20).model_dump(by_alias=True, exclude_none=True)
    made["workload"]["streams"][0]["corpusRef"]["noise"] = {"snrDb": [10, 0]}
    made["constraints"] = [{"metric": "stt.wer.snr10", "max": "0.2"}]

    found = too_few_requests("voice", ExperimentSpec.model_validate(made))

    assert (found is not None) == is_too_few
    assert found is None or "stt.wer.snr10 wants 20 samples (minimumSamples), and 19 requests are due" in found


@pytest.mark.parametrize("file", FILES)
def test_every_example_has_a_window_that_is_long_enough(file: str) -> None:
    for body in documents(file):
        if body["kind"] == "GpuAllocationExperiment":
            found = ExperimentSpec.model_validate(body["spec"])
            assert too_few_requests(body["metadata"]["name"], found) is None


@pytest.mark.parametrize(("seconds", "is_too_few"), [(20, False), (19, True)])
def test_a_slowdown_rests_on_a_round_of_its_own_that_may_be_shorter(seconds: int, is_too_few: bool) -> None:
    made = manifest("GpuAllocationExperiment")["spec"]
    made["workload"] |= {"durationSeconds": 60, "interference": {"durationSeconds": seconds}}
    for it in made["workload"]["streams"]:
        it["arrivals"] = {"type": "Constant", "ratePerSecond": "1"}
    made["objectives"] = [{"metric": "stt.slowdown.p95", "goal": "Minimize", "weight": "1"}]
    made["constraints"] = []

    found = too_few_requests("voice", ExperimentSpec.model_validate(made))

    assert (found is not None) == is_too_few
    assert found is None or "for stt in a window of 19 s" in found
