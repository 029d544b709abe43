"""Every file of `examples/` as the API server takes it."""

from pathlib import Path

import pytest
from support.api_server import ApiServer
from support.examples import FILES

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> ApiServer:
    """A dry run needs its namespaces to exist."""
    for name in ("voice-lab", "voice-staging", "voice-prod", "edge-lab", "edge-staging", "edge-prod"):
        made = api_server.run("create", "namespace", name, "--save-config")
        assert made.accepted, made.text
    return api_server


@pytest.mark.parametrize("file", FILES)
def test_every_example_is_accepted_as_it_stands(server: ApiServer, file: str) -> None:
    answer = server.run("apply", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES / file))

    assert answer.accepted, answer.text
    assert "warning" not in answer.text.lower()
