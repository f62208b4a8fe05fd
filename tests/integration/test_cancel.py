"""A request that is over its time: its statement ends on the server, and it changes nothing any more."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.db import OperationalError, transaction

from dbsupport import Database, request, slot_file, wait_until
from fullhouse.db import running
from fullhouse.db.errors import RequestCancelled
from support import ask

SLEEP = {"mysql": "SELECT SLEEP(600)", "postgresql": "SELECT pg_sleep(600)"}


@pytest.fixture
def cancelling() -> Callable[[], threading.Thread]:
    """Cancels this thread's request as soon as it runs a statement that sleeps."""
    thread = threading.get_ident()

    def start() -> threading.Thread:
        def work() -> None:
            wait_until(lambda: "600" in (running.statement_of(thread) or ""))
            assert running.cancel(thread) is None

        canceller = threading.Thread(target=work)
        canceller.start()
        return canceller

    return start


@pytest.mark.parametrize("atomic", [True, False])
def test_a_cancelled_statement_fails_and_nothing_is_committed(
    database: Database, cancelling: Callable[[], threading.Thread], atomic: bool
) -> None:
    """A bare SELECT SLEEP of MySQL just returns early, and raises nothing by itself."""
    running.request_begins()
    canceller = cancelling()
    with request():
        if atomic:
            with pytest.raises(OperationalError), transaction.atomic(using=database.alias):
                database.write("before")
                database.query(SLEEP[database.vendor])
                database.write("after")
        else:
            with pytest.raises(OperationalError):
                database.query(SLEEP[database.vendor])
        with pytest.raises(RequestCancelled):
            database.write("later")
    canceller.join(60)
    running.request_begins()
    assert database.query("SELECT value FROM dbtests_token") == []


def test_a_request_that_is_cancelled_between_statements_commits_nothing(database: Database) -> None:
    running.request_begins()
    with request(), pytest.raises(RequestCancelled), transaction.atomic(using=database.alias):
        database.write("a")
        assert running.cancel(threading.get_ident()) is None
    running.request_begins()
    assert database.query("SELECT value FROM dbtests_token") == []
    with request():
        database.write("of the next request")
    assert database.query("SELECT value FROM dbtests_token") == [("of the next request",)]


def commit_over_the_driver(database: Database) -> None:
    database.connection.connection.commit()


def commit_by_autocommit(database: Database) -> None:
    database.connection.set_autocommit(True)


def commit_by_hand(database: Database) -> None:
    database.connection.commit()


@pytest.mark.parametrize("commit", [commit_over_the_driver, commit_by_autocommit, commit_by_hand])
def test_no_way_to_commit_is_left_to_a_request_that_was_cancelled(
    database: Database, commit: Callable[[Database], None]
) -> None:
    running.request_begins()
    with request():
        database.connection.set_autocommit(False)
        database.write("a")
        assert running.cancel(threading.get_ident()) is None
        with pytest.raises(RequestCancelled):
            commit(database)
    running.request_begins()
    assert database.query("SELECT value FROM dbtests_token") == []


@pytest.mark.parametrize("database", ["mysql"], indirect=True)
def test_statements_on_every_session_of_the_budget_can_be_cancelled(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account may have three sessions, and the budget is three: MySQL is asked to cancel over one of them."""
    server = database.server
    ask(
        server,
        f"CREATE USER spared@'%' IDENTIFIED BY '{server.password}' WITH MAX_USER_CONNECTIONS 3",
        f"GRANT ALL ON {server.database}.* TO spared@'%'",
        "SELECT 1",
        user=server.admin_user,
    )
    monkeypatch.setenv("FULLHOUSE_BUDGET", "3")
    slot_file(server, "spared").unlink(missing_ok=True)
    with database.another("other", USER="spared") as other, ThreadPoolExecutor(2) as executor:
        other.value("SELECT 1")  # makes the plan
        sleepers = [executor.submit(sleep_until_cancelled, other) for _ in range(2)]
        wait_until(lambda: other.pool.statistics().in_use == 2)
        for thread in list(running._running):
            assert running.cancel(thread) is None
        assert [sleeper.result(60) for sleeper in sleepers] == ["cancelled"] * 2
        assert other.pool.statistics().slots_budget == 2


def sleep_until_cancelled(database: Database) -> str:
    running.request_begins()
    with request(), suppress(OperationalError):
        database.query(SLEEP[database.vendor])
        return "slept"
    return "cancelled"
