"""The simulated card that this folder's tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.simulated_card import RunningCard, start


@pytest.fixture
def card(tmp_path: Path) -> Iterator[RunningCard]:
    running = start(tmp_path / "card.sock")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def restart(card: RunningCard) -> Callable[[], None]:
    """Kill the card's daemon and start another one in its place."""

    def kill_and_start() -> None:
        card.stop()
        card.process = start(card.socket).process

    return kill_and_start
