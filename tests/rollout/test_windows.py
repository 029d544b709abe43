"""Windows on the clocks of a place: over midnight, and when the clocks are changed."""

from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.gate import BeginWindow
from cotune.api.profile import Approval, ProfilePhase, ProfileSpec, Stage
from cotune.rollout.progress import hindrance
from cotune.rollout.windows import opening
from hypothesis import given
from hypothesis import strategies as st
from support.resources import manifest

SPEC = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])


def window(zone: str = "UTC", begin: str = "00:00", end: str = "24:00", days: tuple[str, ...] = ()) -> BeginWindow:
    fields = {"timeZone": zone, "from": begin, "to": end} | ({"days": days} if days else {})
    return BeginWindow.model_validate(fields)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


NIGHT = window("Europe/Berlin", "22:00", "05:00", ("Friday",))
SKIPPED = window("Europe/Berlin", "01:00", "02:30")
TWICE = window("Europe/Berlin", "02:30", "02:45")
LONG_NIGHT = window("Europe/Berlin", "01:00", "04:00")


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        (window(), "2026-07-01T12:00Z", "2026-07-01T00:00Z"),
        (window(end="12:00"), "2026-07-01T11:59Z", "2026-07-01T00:00Z"),
        (window(end="12:00"), "2026-07-01T12:00Z", "2026-07-02T00:00Z"),
        (window("Asia/Tokyo", "09:00", "17:00"), "2026-07-01T00:00Z", "2026-07-01T00:00Z"),
        (window("Asia/Tokyo", "09:00", "17:00"), "2026-06-30T23:59Z", "2026-07-01T00:00Z"),
        (window(days=("Monday",)), "2026-07-06T23:59Z", "2026-07-06T00:00Z"),
        (window(days=("Monday",)), "2026-07-07T00:00Z", "2026-07-13T00:00Z"),
        (window(begin="08:00", end="09:00", days=("Monday",)), "2026-07-06T09:00Z", "2026-07-13T08:00Z"),
        # Friday night: it opens on Friday, and is open on Saturday morning.
        (NIGHT, "2026-07-03T21:59+02:00", "2026-07-03T22:00+02:00"),
        (NIGHT, "2026-07-04T04:59+02:00", "2026-07-03T22:00+02:00"),
        (NIGHT, "2026-07-04T05:00+02:00", "2026-07-10T22:00+02:00"),
        (NIGHT, "2026-07-03T04:00+02:00", "2026-07-03T22:00+02:00"),
        # 2026-03-29, the clocks go from 02:00 to 03:00: the night has an hour less.
        (LONG_NIGHT, "2026-03-29T00:59+01:00", "2026-03-29T01:00+01:00"),
        (LONG_NIGHT, "2026-03-29T03:59+02:00", "2026-03-29T01:00+01:00"),
        (LONG_NIGHT, "2026-03-29T04:00+02:00", "2026-03-30T01:00+02:00"),
        # 02:30 does not exist then: it is meant an hour later, as 03:30.
        (SKIPPED, "2026-03-29T03:29+02:00", "2026-03-29T01:00+01:00"),
        (SKIPPED, "2026-03-29T03:30+02:00", "2026-03-30T01:00+02:00"),
        (TWICE, "2026-03-29T01:00+01:00", "2026-03-29T03:30+02:00"),
        # 2026-10-25, they go from 03:00 back to 02:00: 02:30 comes twice.
        (TWICE, "2026-10-25T02:29+02:00", "2026-10-25T02:30+02:00"),
        (TWICE, "2026-10-25T02:50+02:00", "2026-10-25T02:30+02:00"),
        (TWICE, "2026-10-25T02:44+01:00", "2026-10-25T02:30+02:00"),
        (TWICE, "2026-10-25T02:45+01:00", "2026-10-26T02:30+01:00"),
        (LONG_NIGHT, "2026-10-25T03:59+01:00", "2026-10-25T01:00+02:00"),
        (LONG_NIGHT, "2026-10-25T04:00+01:00", "2026-10-26T01:00+01:00"),
    ],
)
def test_when_a_window_opens(window: BeginWindow, now: str, opens: str) -> None:
    assert opening(window, at(now)) == at(opens)


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
CLOCKS = st.times().map(lambda it: f"{it:%H:%M}")
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda it: it.replace(tzinfo=UTC))


@given(ZONES, CLOCKS, CLOCKS, MOMENTS)
def test_every_window_of_every_day_opens_within_a_day_and_is_open_when_it_opens(
    zone: str, begin: str, end: str, now: datetime
) -> None:
    if begin == end:
        return
    it = window(zone, begin, end)

    opens = opening(it, now)

    assert opens - now <= timedelta(hours=26)
    assert opening(it, opens) == opens


def held(stage: Stage, now: str) -> str | None:
    found = hindrance(SPEC, stage, at(now))
    return found.reason if found is not None else None


def test_a_stage_waits_for_its_window_and_says_when_it_opens() -> None:
    stage = SPEC.rollout.stages[0].model_copy(update={"window": NIGHT})

    found = hindrance(SPEC, stage, at("2026-07-03T12:00Z"))

    assert found is not None
    assert (found.reason, found.is_stalled, found.phase) == ("OutsideWindow", False, None)
    assert found.message == "stage staging: its window opens at 2026-07-03T22:00+02:00 (Europe/Berlin)"
    assert held(stage, "2026-07-03T20:00Z") is None


def test_a_stage_that_awaits_approval_says_so_whatever_its_window() -> None:
    stage = SPEC.rollout.stages[0].model_copy(update={"window": NIGHT, "approval": Approval.MANUAL})

    found = hindrance(SPEC, stage, at("2026-07-03T12:00Z"))

    assert found is not None
    assert found.phase is ProfilePhase.AWAITING_APPROVAL


def test_a_time_zone_that_only_the_api_server_knows_stalls_the_stage() -> None:
    stage = SPEC.rollout.stages[0].model_copy(update={"window": window("Mars/Phobos")})

    assert held(stage, "2026-07-03T12:00Z") == "UnknownTimeZone"
