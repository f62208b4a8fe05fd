"""Real database servers for the tests that need one; each starts at its first use."""

from collections.abc import Iterator

import pytest

from private_servers import PrivateServer, mariadb, postgresql


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[PrivateServer]:
    with mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PrivateServer]:
    with postgresql() as server:
        yield server
