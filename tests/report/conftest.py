import pytest
from support.played_experiment import Played, played


@pytest.fixture(scope="session")
def voice() -> Played:
    """The story, with a winner: 95 % sure."""
    return played()


@pytest.fixture(scope="session")
def alike() -> Played:
    """All candidates are as good as the baseline."""
    return played(gain=0.0)
