"""How figures are stated: which percentiles of what, and with how many decimals."""

from collections.abc import Iterator
from decimal import Decimal

from cotune.api.trial import Measurement
from cotune.measurement.latency import Percentiles

PERCENTILES = {"latency": ("p50", "p95", "p99"), "ttft": ("p50", "p95", "p99"), "itl": ("p50", "p95")}
"""By quantity."""
_DECIMALS = 6


def percentiles(component: str, quantity: str, found: Percentiles) -> Iterator[Measurement]:
    """The percentiles of one quantity of a component."""
    values = {"p50": found.p50, "p95": found.p95, "p99": found.p99}
    return (measurement(f"{component}.{quantity}.{it}", values[it], found.samples) for it in PERCENTILES[quantity])


def measurement(metric: str, value: float, samples: int) -> Measurement:
    """A figure with six decimals, and without the zeros at their end."""
    text = format(round(Decimal(value), _DECIMALS), "f")
    return Measurement(metric=metric, value=text.rstrip("0").rstrip(".") if "." in text else text, samples=samples)
