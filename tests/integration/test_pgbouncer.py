"""The pool behind PgBouncer in transaction mode: two poolers in a row keep transactions and sessions apart."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, transaction

from dbsupport import Database, create_tables, request, wait_until
from fullhouse.db import running
from pgbouncer import pgbouncer_to
from private_servers import PrivateServer

THREADS = 8


@pytest.fixture(scope="module")
def pgbouncer(postgresql_server: PrivateServer) -> Iterator[int]:
    with pgbouncer_to(postgresql_server) as port:
        yield port


@pytest.fixture
def behind(postgresql_server: PrivateServer, pgbouncer: int) -> Iterator[Database]:
    create_tables(postgresql_server)
    place = {"PORT": str(pgbouncer), "DISABLE_SERVER_SIDE_CURSORS": True}
    database = Database(postgresql_server, "behind", **place)
    with database.tried():
        yield database


def test_requests_share_few_sessions(behind: Database) -> None:
    def visit(number: int) -> None:
        with request():
            with transaction.atomic(using="behind"):
                behind.write(f"{number} first")
                with transaction.atomic(using="behind"):
                    behind.write(f"{number} second")
            assert behind.tokens.filter(value__startswith=f"{number} ").count() == 2
            assert len(list(behind.tokens.filter(value__startswith=f"{number} ").iterator(chunk_size=1))) == 2

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(visit, range(100)))
    assert behind.tokens.count() == 200
    assert 1 <= len(behind.observer.sessions()) <= 3


def test_a_transaction_rolls_back(behind: Database) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="behind"):
        behind.write("lost")
        raise ZeroDivisionError
    with request():
        transaction.set_autocommit(False, using="behind")
        behind.write("lost, too")
    behind.assert_clean()
    assert not behind.tokens.exists()


def test_what_a_transaction_sets_stays_in_it(behind: Database) -> None:
    with transaction.atomic(using="behind"):
        behind.query("SET LOCAL app.kept = 'x'")
        assert behind.value("SELECT current_setting('app.kept', true)") == "x"
    assert not behind.value("SELECT current_setting('app.kept', true)")


def test_sessions_ended_on_the_server(behind: Database) -> None:
    """PgBouncer notices first; at most the next request meets it."""
    behind.write("before")
    for session in behind.observer.sessions():
        behind.observer.kill(session)
    errors = 0
    for number in range(5):
        try:
            with request():
                behind.write(f"after {number}")
        except OperationalError:
            errors += 1
    assert errors <= 1
    assert behind.tokens.count() == 6 - errors


def test_a_cancelled_statement_ends_on_the_server_and_hits_nobody_else(behind: Database) -> None:
    """The process id that a client is told is the pooler's: only the protocol's own request finds its session."""
    thread = threading.get_ident()

    def cancel() -> None:
        wait_until(lambda: "600" in (running.statement_of(thread) or ""))
        assert running.cancel(thread) is None

    running.request_begins()
    canceller = threading.Thread(target=cancel)
    canceller.start()
    with request(), pytest.raises(OperationalError, match="canceling statement due to user request"):
        behind.query("SELECT pg_sleep(600)")
    canceller.join(60)
    running.request_begins()
    with request():
        assert behind.value("SELECT 1") == 1
