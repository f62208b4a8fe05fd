"""Real database servers for the tests that need one; each starts at its first use. Time decides no verdict."""

import faulthandler
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from private_servers import PrivateServer, mysql_family, postgresql
from server_guard import take_default_signals

if TYPE_CHECKING:
    from dbsupport import Database

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

EXIT_TIMEOUT_S = 60

take_default_signals()  # before anything starts: whatever a test starts inherits them


def pytest_unconfigure() -> None:
    """A thread that a failed test left must not keep this process for ever: it ends with the stacks of all threads."""
    faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True, file=sys.__stderr__)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[PrivateServer]:
    with mysql_family() as server:
        yield server
        forget_plan(server)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PrivateServer]:
    with postgresql() as server:
        yield server
        forget_plan(server)


def forget_plan(server: PrivateServer) -> None:
    """Another server may get this one's port, and must not find its slots."""
    from dbsupport import slot_file

    for user in (server.user, server.admin_user):
        slot_file(server, user).unlink(missing_ok=True)


@pytest.fixture(params=["mysql", "postgresql"])
def database(request: pytest.FixtureRequest) -> "Iterator[Database]":
    """Django on a pool of its own, with an empty table of tokens; checked to be in order after the test."""
    from dbsupport import Database, create_tables

    server: PrivateServer = request.getfixturevalue(f"{request.param}_server")
    create_tables(server)
    database = Database(server, request.param)
    with database.tried():
        yield database
