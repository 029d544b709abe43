"""Services of which nobody says what they hold: a trial has shown it."""

import pytest
from cotune.api.trial import Measurement, PredictedService, Prediction
from cotune.planning.learned import NOTHING_LEARNED, ShownByTrial, learn_services, settings_key, shown
from cotune.planning.sizes import MIB

CARD = "NVIDIA-H200"
SMALL, LARGE = settings_key("image:1", {"SIZE": "small"}), settings_key("image:1", {"SIZE": "large"})


def prediction(*services: PredictedService) -> Prediction:
    return Prediction(fits=True, free_mib=1000, services=services)


def service(component: str = "other", counted_mib: int = 0) -> PredictedService:
    return PredictedService(component=component, card=CARD, settings=SMALL, counted_mib=counted_mib)


def measured(**values: float) -> list[Measurement]:
    names = {"free": "gpu.freeMiB", "own": "other.gpuMemoryMiB"}
    return [Measurement(metric=names[key], value=str(it), samples=1) for key, it in values.items()]


def test_what_the_card_lacks_beyond_the_prediction_is_the_unknown_services() -> None:
    (first,) = shown(prediction(service()), measured(free=700))
    (again,) = shown(prediction(service(counted_mib=300)), measured(free=990))

    assert (first.key, first.held) == (("other", SMALL), 300 * MIB)
    assert again.held == 310 * MIB, "300 were counted, and 10 more were missing"
    assert shown(prediction(service()), measured(free=1200))[0].held == 0, "more was free than predicted"


def test_a_figure_of_its_own_wins_over_what_the_card_lacks() -> None:
    assert shown(prediction(service()), measured(free=700, own=444))[0].held == 444 * MIB


def test_two_unknown_services_that_share_the_difference_teach_nothing() -> None:
    assert shown(prediction(service("one"), service("two")), measured(free=700)) == ()
    assert shown(prediction(service()), []) == ()


def test_the_most_that_was_seen_counts_and_only_on_the_same_card() -> None:
    key = ("other", SMALL)
    trials = [ShownByTrial(CARD, key, 300 * MIB), ShownByTrial(CARD, key, 290 * MIB), ShownByTrial("A", key, 900 * MIB)]

    learned = learn_services(trials, CARD)

    assert learned.held == {key: 304 * MIB}, "in whole steps of 16 MiB"


@pytest.mark.parametrize(
    ("settings", "mib", "doubt"),
    [(SMALL, 304, ""), (LARGE, 304, "with other settings it held 0.30 GiB at most"), (None, 0, "is not known yet")],
)
def test_settings_that_were_not_seen_count_as_the_most_of_others_and_are_doubtful(
    settings: str | None, mib: int, doubt: str
) -> None:
    learned = learn_services([ShownByTrial(CARD, ("other", SMALL), 300 * MIB)], CARD)

    found = (learned if settings else NOTHING_LEARNED).of("other", settings or SMALL)

    assert found.held == mib * MIB
    assert doubt in found.doubt
    assert bool(found.doubt) == bool(doubt)
