from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec, InterferenceTrials
from cotune.api.trial import Purpose
from cotune.measurement.contract import GRACE_SECONDS, InterferenceCell, Spread
from cotune.search.space import Space
from cotune.trials.interference import figures, is_measured, longest, round_seconds, rounds
from cotune.trials.lifecycle import measuring_deadline
from cotune.trials.probe_pod import configuration
from cotune.trials.render import TrialIdentity
from support.resources import manifest

IDENTITY = TrialIdentity("voice-lab", "voice-7f3a0000-0", "uid-1", "voice")


def spec(services: int = 2, cooldown: int = 0, **asked: Any) -> ExperimentSpec:
    """The story's experiment with so many services more; `asked` is `workload.interference`."""
    made = manifest("GpuAllocationExperiment")["spec"]
    for number in range(services - 2):
        name = f"other{number}"
        made["stack"]["components"].append({"name": name, "protocol": "HTTP", "port": 80, "template": {}})
        made["workload"]["streams"].append({"component": name, "arrivals": {"ratePerSecond": "1"}})
    made["workload"]["cooldownSeconds"] = cooldown
    if asked:
        made["workload"]["interference"] = asked
    return ExperimentSpec.model_validate(made)


ASKED: dict[str, Any] = {"durationSeconds": 30, "warmupSeconds": 5}


def test_without_being_asked_for_it_is_not_measured() -> None:
    silent = spec()

    assert not is_measured(silent, Space(silent.parameters).baseline, Purpose.CONFIRMATION)
    assert (rounds(silent), round_seconds(silent)) == ((), 0)


@pytest.mark.parametrize(
    ("trials", "is_baseline", "purpose", "expected"),
    [
        (InterferenceTrials.ALL, False, Purpose.SEARCH, True),
        (InterferenceTrials.BASELINE_AND_CONFIRMATION, False, Purpose.SEARCH, False),
        (InterferenceTrials.BASELINE_AND_CONFIRMATION, True, Purpose.SEARCH, True),
        (InterferenceTrials.BASELINE_AND_CONFIRMATION, True, Purpose.DRIFT, True),
        (InterferenceTrials.BASELINE_AND_CONFIRMATION, False, Purpose.CONFIRMATION, True),
    ],
)
def test_it_is_measured_in_the_trials_that_it_was_asked_for(
    trials: InterferenceTrials, is_baseline: bool, purpose: Purpose, expected: bool
) -> None:
    asked = spec(**ASKED, trials=trials)
    space = Space(asked.parameters)
    candidate = space.baseline if is_baseline else next(it for it in space if it != space.baseline)

    assert is_measured(asked, candidate, purpose) == expected


def test_every_service_is_loaded_alone_then_every_pair_that_is_not_the_whole() -> None:
    assert rounds(spec(**ASKED)) == (("judge",), ("stt",))
    assert rounds(spec(**ASKED, pairs=True)) == (("judge",), ("stt",)), "the pair is the window itself"
    assert rounds(spec(3, **ASKED, pairs=True)) == (
        ("judge",),
        ("stt",),
        ("other0",),
        ("judge", "stt"),
        ("judge", "other0"),
        ("stt", "other0"),
    )


def test_its_time_grows_with_the_rounds() -> None:
    asked = spec(3, cooldown=2, **ASKED, pairs=True)

    assert round_seconds(asked) == 6 * (5 + 30 + 2)
    assert longest(asked).total_seconds() == 6 * (5 + 30 + 2 + GRACE_SECONDS)
    without = measuring_deadline(asked.workload)
    assert measuring_deadline(asked.workload, longest(asked)) == without + longest(asked)


def test_the_probe_is_told_of_the_rounds_where_they_are_measured() -> None:
    told = configuration(IDENTITY, spec(**ASKED), interference=True).interference

    assert told is not None
    assert (told.duration_seconds, told.warmup_seconds, told.rounds) == (30, 5, (("judge",), ("stt",)))
    assert configuration(IDENTITY, spec(**ASKED), interference=False).interference is None
    assert configuration(IDENTITY, spec(), interference=True).interference is None


def test_a_trials_status_has_the_figures_as_decimal_numbers() -> None:
    latency = Spread(p50=80.0004, p95=1e-3, p99=200.5, largest=12_345.678, samples=40, censored=2)
    cells = [
        InterferenceCell(loaded=("stt",), component="stt", latency=latency),
        InterferenceCell(loaded=("judge", "stt"), component="stt"),
    ]

    known, unknown = figures(cells)

    assert known.latency is not None
    assert (known.loaded, known.component, known.latency.p50, known.latency.p95) == (("stt",), "stt", "80.000", "0.001")
    assert (known.latency.samples, known.latency.censored) == (40, 2)
    assert unknown.latency is None
