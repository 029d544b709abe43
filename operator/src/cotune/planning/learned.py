"""What services hold of which nobody says anything: a trial has shown it.

A card's memory is a sum, and everything else in it is predicted: what is missing is theirs. The store is the trials
themselves: each has its prediction in its spec and the least memory that was free in its status.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cotune.api.trial import Measurement, PredictedService, Prediction
from cotune.planning.sizes import MIB, gib

_STEP = 16 * MIB

Key = tuple[str, str]
"""Component, and what `settings_key` makes of the values that are bound to it."""


@dataclass(frozen=True)
class Shown:
    """What one service is known to hold."""

    held: int
    """Bytes."""
    doubt: str = ""
    """Why it may hold more; empty: it was seen with these very settings."""


@dataclass(frozen=True)
class Learned:
    """Services of unknown size and the most that they have shown to hold, in bytes, with each settings."""

    held: Mapping[Key, int] = field(default_factory=dict[Key, int])

    def of(self, component: str, settings: str) -> Shown:
        """What a service holds with these settings; of others, the most that it has shown with any."""
        if (component, settings) in self.held:
            return Shown(self.held[component, settings])
        most = max((it for (name, _), it in self.held.items() if name == component), default=0)
        if not most:
            return Shown(0, "what it holds is not known yet, and counts as nothing")
        return Shown(most, f"with other settings it held {gib(most):.2f} GiB at most; with these it has not run yet")


NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class ShownByTrial:
    """What one finished trial has shown of one service."""

    card: str
    key: Key
    held: int


def settings_key(image: str, values: Mapping[str, str]) -> str:
    """The image and the values of the variables that are bound to one component, in one line."""
    return " ".join([image, *(f"{name}={value}" for name, value in sorted(values.items()))])


def shown(prediction: Prediction, measurements: Iterable[Measurement]) -> tuple[ShownByTrial, ...]:
    """What a measured trial has shown of the services of unknown size.

    Where each process is known to be a component's, its own figure counts. Else it is what the card lacks beyond the
    prediction, which tells nothing where several such services share it.
    """
    found = {it.metric: float(it.value) for it in measurements}
    own = {it.component: found.get(f"{it.component}.gpuMemoryMiB") for it in prediction.services}
    return tuple(
        ShownByTrial(it.card, (it.component, it.settings), round(mib * MIB))
        for it in prediction.services
        if (mib := _held(it, own[it.component], prediction, found.get("gpu.freeMiB"))) is not None
    )


def learn_services(trials: Iterable[ShownByTrial], card: str) -> Learned:
    """The most that every service has held on a card, in whole steps: figures of repeats differ by a little."""
    most: dict[Key, int] = {}
    for it in trials:
        if it.card == card:
            most[it.key] = max(most.get(it.key, 0), -(-it.held // _STEP) * _STEP)
    return Learned(most)


def _held(service: PredictedService, own: float | None, prediction: Prediction, free_mib: float | None) -> float | None:
    if own is not None:
        return own
    if len(prediction.services) != 1 or prediction.free_mib is None or free_mib is None:
        return None
    return max(service.counted_mib + prediction.free_mib - free_mib, 0.0)
