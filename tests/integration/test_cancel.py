"""A request that is over its time: its statement ends on the server, and it changes nothing any more."""

import threading
from collections.abc import Callable

import pytest
from django.db import OperationalError, transaction

from dbsupport import Database, request, wait_until
from fullhouse.db import running
from fullhouse.db.errors import RequestCancelled

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
