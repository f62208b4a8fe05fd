"""Real database servers for the tests that need one; each starts at its first use. Time decides no verdict."""

import faulthandler
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from private_servers import PrivateServer, mysql_family, postgresql
from server_guard import take_default_signals
from sessions import count, observer_of

if TYPE_CHECKING:
    from dbsupport import Database

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

EXIT_TIMEOUT_S = 60
LEAVE_TIMEOUT_S = 10

take_default_signals()  # before anything starts: whatever a test starts inherits them


def pytest_unconfigure() -> None:
    """A thread that a failed test left must not keep this process for ever: it ends with the stacks of all threads."""
    faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True, file=sys.__stderr__)


_started: list[PrivateServer] = []


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[PrivateServer]:
    with mysql_family() as server:
        _started.append(server)
        yield server
        _started.remove(server)
        _forget_plan(server)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PrivateServer]:
    with postgresql() as server:
        _started.append(server)
        yield server
        _started.remove(server)
        _forget_plan(server)


def _forget_plan(server: PrivateServer) -> None:
    from dbsupport import forget_plan  # which sets Django up

    forget_plan(server)


@pytest.fixture(scope="module", autouse=True)
def no_session_outlives_its_module() -> Iterator[None]:
    """A statement that goes on after its test would be another's session too many."""
    yield
    for server in _started:
        with observer_of(server) as observer:
            deadline = time.monotonic() + LEAVE_TIMEOUT_S
            while (left := count(server, observer)[0]) and time.monotonic() < deadline:
                time.sleep(0.05)
        assert not left, f"{left} sessions of these tests are still open on {server.vendor}"


@pytest.fixture(params=["mysql", "postgresql"])
def server(request: pytest.FixtureRequest) -> PrivateServer:
    """Each in turn."""
    found: PrivateServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=["mysql", "postgresql"])
def database(request: pytest.FixtureRequest) -> "Iterator[Database]":
    """Django on a pool of its own, with an empty table of tokens; checked to be in order after the test."""
    from dbsupport import Database, create_tables

    server: PrivateServer = request.getfixturevalue(f"{request.param}_server")
    create_tables(server)
    database = Database(server, request.param)
    with database.tried():
        yield database
