"""A real etcd and kube-apiserver with cotune's CRDs, for this folder's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_server import ApiServer, running_api_server

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    with running_api_server("apitest", REPOSITORY / "crds") as server:
        yield server
