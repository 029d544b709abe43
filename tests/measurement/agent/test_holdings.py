from collections.abc import Mapping
from dataclasses import dataclass, field

from cotune.measurement.agent.contract import Holding, TenantProcess
from cotune.measurement.agent.holdings import holdings
from cotune.measurement.agent.ownership import Owner, Process
from cotune.measurement.agent.window import OwnedReading
from cotune.measurement.card import CardError, Reading

MINE, OTHER = "pod-1", "pod-2"
SERVER = Process(10, "vllm", Owner("a", MINE))
ENGINE = Process(11, "VLLM::EngineCor", Owner("a", MINE))
ANOTHER = Process(20, "python3", Owner("c", OTHER))


@dataclass
class PlayedCard:
    """A card that shows one reading after the other, and the last one for ever."""

    shown: list[OwnedReading]
    processes: int | None = None
    """As NVML counts them; None: those that it lists."""
    reads: int = field(default=0)

    def read(self) -> tuple[Reading, OwnedReading]:
        owned = self.shown[min(self.reads, len(self.shown) - 1)]
        self.reads += 1
        held = {it.pid: mib for it, mib in owned.held.items()} | dict.fromkeys(owned.lost, 1.0)
        return Reading(100, 900, 1000, 0.0, len(held) if self.processes is None else self.processes, held), owned


class DeadCard:
    def read(self) -> tuple[Reading, OwnedReading]:
        raise CardError("NVML: GPU is lost")


def card(held: Mapping[Process, float], *lost: int) -> PlayedCard:
    return PlayedCard([OwnedReading(held, frozenset(lost))])


def test_only_the_pods_that_were_asked_for_are_told_with_what_they_hold_on_each_card() -> None:
    cards = {"gpu-1": card({SERVER: 100.04, ENGINE: 5_000.0, ANOTHER: 700.0}), "gpu-2": card({SERVER: 50.0})}

    found = holdings("lab", cards, {MINE, "pod-3"})

    server = TenantProcess(pid=10, name="vllm", container="a")
    engine = TenantProcess(pid=11, name="VLLM::EngineCor", container="a")
    assert (found.node, found.cards, found.unknown) == ("lab", ("gpu-1", "gpu-2"), ())
    assert found.held == (
        Holding(pod=MINE, card="gpu-1", mib=5_100.0, processes=(server, engine)),
        Holding(pod=MINE, card="gpu-2", mib=50.0, processes=(server,)),
    )


def test_a_process_that_has_just_ended_is_looked_at_again() -> None:
    one = PlayedCard([OwnedReading({}, frozenset({10})), OwnedReading({}, frozenset({10})), OwnedReading({})])

    found = holdings("lab", {"gpu-1": one}, {MINE})

    assert (found.held, found.unknown, one.reads) == ((), (), 3)


def test_what_cannot_be_known_is_said_by_card() -> None:
    cards = {
        "dead": DeadCard(),
        "lost": card({ANOTHER: 1.0}, 33, 31),
        "mute": PlayedCard([OwnedReading({ANOTHER: 1.0})], processes=2),
        "good": card({ANOTHER: 1.0}),
    }

    found = holdings("lab", cards, {MINE})

    assert found.held == ()
    assert found.unknown == (
        "dead: NVML: GPU is lost",
        "lost: whose processes 31, 33 were",
        "mute: NVML does not say what each process holds",
    )
