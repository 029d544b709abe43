"""Figures with their units, as docs/how-to/tune-your-stack.md names the metrics; no line breaks between both."""

import re

_UNITS = (
    (re.compile(r"\.(latency|ttft|itl)\.p\d+$"), "ms"),
    (re.compile(r"\.throughput$"), "requests/s"),
    (re.compile(r"\.tokensPerSecond$"), "tokens/s"),
    (re.compile(r"(\.errorRate|\.wer|^gpu\.utilization)$"), "%"),
    (re.compile(r"\.kvCache\.tokens$"), "tokens"),
    (re.compile(r"\.kvCache\.concurrency$"), "requests"),
    (re.compile(r"MiB$"), "MiB"),
    (re.compile(r"\.startup$"), "s"),
    (re.compile(r"\.slowdown\.p\d+$"), "×"),
)

_GAP = "\N{NO-BREAK SPACE}"


def figure(metric: str, value: float) -> str:
    """Such as `54.3 ms` or `3.7 %`."""
    unit = _unit(metric)
    return f"{number(value * 100 if unit == '%' else value)}{_GAP}{unit}".rstrip()


def change(metric: str, value: float) -> str:
    """A difference, with its sign; that of percentages is in points."""
    unit = _unit(metric)
    shown = number(abs(value * 100 if unit == "%" else value))
    return f"{_sign(value) if value else ''}{shown}{_GAP}{'points' if unit == '%' else unit}".rstrip()


def quantity(value: float, unit: str) -> str:
    """Such as `54.3 ms`."""
    return f"{number(value)}{_GAP}{unit}"


def share(value: float) -> str:
    """A relative change, such as `−89.2 %`."""
    return f"{_sign(value)}{number(abs(value) * 100)}{_GAP}%" if value else f"0{_GAP}%"


def percent(value: float) -> str:
    """A share, such as `95 %`."""
    return f"{value * 100:.0f}{_GAP}%"


def signed(value: float, digits: int = 3) -> str:
    """A difference without a unit, such as one in fitness."""
    return f"{_sign(value)}{abs(value):.{digits}f}"


def number(value: float) -> str:
    """Three or four digits that say something, thousands apart."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def _sign(value: float) -> str:
    return "−" if value < 0 else "+"


def _unit(metric: str) -> str:
    return next((unit for pattern, unit in _UNITS if pattern.search(metric)), "")
