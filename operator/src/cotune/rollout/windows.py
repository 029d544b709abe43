"""When a stage may begin: windows in the local time of a place, through its changes of the clock."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cotune.api.gate import BeginWindow, Weekday

_WEEKDAYS = tuple(Weekday)
_MIDNIGHT = "24:00"


def opening(window: BeginWindow, now: datetime) -> datetime:
    """When the window that is open has opened, else when the next one opens; in UTC.

    Raises:
        ZoneInfoNotFoundError: this Python knows no such time zone.
    """
    return span(window, now)[0]


def span(window: BeginWindow, now: datetime) -> tuple[datetime, datetime]:
    """When the window that is open has opened and will close, else those of the next one; in UTC.

    Raises:
        ZoneInfoNotFoundError: this Python knows no such time zone.
    """
    zone = ZoneInfo(window.time_zone)
    today = now.astimezone(zone).date()
    # From yesterday, for a window over midnight, to the same day of next week.
    for day in (today + timedelta(days=it) for it in range(-1, 8)):
        if _WEEKDAYS[day.weekday()] not in window.days:
            continue
        opens = _moment(day, window.from_, zone, is_end=False)
        is_next_day = window.to != _MIDNIGHT and window.to < window.from_
        closes = _moment(day + timedelta(days=1) if is_next_day else day, window.to, zone, is_end=True)
        if now < closes:
            return opens, closes
    raise AssertionError("a window opens on one day of the week at least")


def _moment(day: date, clock: str, zone: ZoneInfo, is_end: bool) -> datetime:
    """A time on the clocks of a place. One that does not exist is meant as much later as the clocks are put forward."""
    if clock == _MIDNIGHT:
        day, clock = day + timedelta(days=1), "00:00"
    first = datetime.combine(day, time.fromisoformat(clock), zone)
    second = first.replace(fold=1)
    comes_twice = second.astimezone(UTC) > first.astimezone(UTC)
    return (second if is_end and comes_twice else first).astimezone(UTC)
