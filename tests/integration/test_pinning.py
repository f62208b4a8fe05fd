"""What ends a pin: the release of what is held, the end of the request, and others who wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import close_old_connections, transaction
from django.test import override_settings

from dbsupport import PATIENCE_S, Database, request, wait_until
from fullhouse.db import pinning, running
from fullhouse.db.errors import PinnedConnectionTaken, PoolExhausted

TAKE = {"mysql": "SELECT GET_LOCK('held', 0)", "postgresql": "SELECT pg_advisory_lock(7)"}
RELEASE = {"mysql": "SELECT RELEASE_LOCK('held')", "postgresql": "SELECT pg_advisory_unlock(7)"}
RELEASE_ALL = {"mysql": "SELECT RELEASE_ALL_LOCKS()", "postgresql": "SELECT pg_advisory_unlock_all()"}
CHANGE = {"mysql": "SET @kept = 'mine'", "postgresql": "SET app.kept = 'mine'"}
CHANGED = {"mysql": "SELECT @kept", "postgresql": "SELECT current_setting('app.kept', true)"}


def in_use(database: Database) -> int:
    return int(database.pool.statistics().in_use)


@pytest.fixture
def requests_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker, where some thread serves requests: this one does not."""
    monkeypatch.setattr(running, "_requests", {0: running.RunningRequest()})


@pytest.fixture
def thread() -> Iterator[Callable[..., "Future[Any]"]]:
    """Run something in a thread that serves no request, always the same one."""
    with ThreadPoolExecutor(1, "chores") as executor:
        yield executor.submit
        executor.submit(close_old_connections).result(PATIENCE_S)


@pytest.mark.parametrize("release", [RELEASE, RELEASE_ALL])
def test_the_release_of_the_last_lock_ends_the_pin(database: Database, release: dict[str, str]) -> None:
    with request():
        database.query(TAKE[database.vendor])
        database.query(TAKE[database.vendor])
        if release is RELEASE:
            database.query(RELEASE[database.vendor])
            assert in_use(database) == 1
        session = database.session()
        database.query(RELEASE[database.vendor] if release is RELEASE else RELEASE_ALL[database.vendor])
        assert in_use(database) == 0
        if database.vendor == "postgresql":
            assert database.session() == session


def test_a_released_lock_does_not_end_the_pin_of_a_changed_session(database: Database) -> None:
    with request():
        database.query(CHANGE[database.vendor])
        database.query(TAKE[database.vendor])
        database.query(RELEASE[database.vendor])
        assert database.value(CHANGED[database.vendor]) == "mine"
        assert in_use(database) == 1


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_postgresql_itself_says_what_is_held(database: Database) -> None:
    with request():
        database.query("SELECT pg_advisory_lock(n) FROM generate_series(1, 3) AS n")
        database.query("SELECT pg_advisory_unlock(1)")
        assert in_use(database) == 1
        database.query("SELECT pg_advisory_unlock(n) FROM generate_series(2, 3) AS n")
        assert in_use(database) == 0
        with database.another("other") as other:
            other.query("SELECT pg_advisory_lock(9)")
            database.query("SELECT pg_try_advisory_lock(9)")  # it did not get it
            assert in_use(database) == 0
            other.query("SELECT pg_advisory_unlock(9)")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_last_channel_ends_the_pin(database: Database) -> None:
    with request():
        database.query("LISTEN one")
        database.query("LISTEN two")
        database.query("UNLISTEN one")
        assert in_use(database) == 1
        database.query("UNLISTEN *")
        assert in_use(database) == 0


def test_threads_that_release_their_locks_leave_the_pool_to_others(database: Database) -> None:
    """Twelve threads of an executor, and connections for two."""

    def lock_and_unlock(other: Database) -> None:
        other.query(TAKE[other.vendor])
        other.query(RELEASE[other.vendor])

    with database.another("other", max_size=2) as other:
        for number in range(12):
            with ThreadPoolExecutor(1, f"chores-{number}") as executor:
                executor.submit(lock_and_unlock, other).result(PATIENCE_S)
                assert in_use(other) == 0


def test_the_error_names_the_thread_that_keeps_a_lock(database: Database, thread: Callable[..., "Future[Any]"]) -> None:
    with database.another("other", max_size=1, checkout_timeout=0.1) as other:
        thread(other.query, TAKE[other.vendor]).result(PATIENCE_S)
        with pytest.raises(PoolExhausted, match=r"1 are pinned by a lock or a changed session: chores_0 for \d"):
            other.value("SELECT 1")
        thread(other.query, RELEASE[other.vendor]).result(PATIENCE_S)
        assert other.value("SELECT 1") == 1


@pytest.mark.usefixtures("requests_are_announced")
def test_an_idle_changed_session_outside_of_requests_goes_to_who_waits(
    database: Database, thread: Callable[..., "Future[Any]"]
) -> None:
    with database.another("other", max_size=1, checkout_timeout=PATIENCE_S) as other:
        thread(other.query, CHANGE[other.vendor]).result(PATIENCE_S)
        assert thread(other.value, CHANGED[other.vendor]).result(PATIENCE_S) == "mine"
        assert not other.value(CHANGED[other.vendor])
        with pytest.raises(PinnedConnectionTaken, match="what it had SET in the session is lost"):
            thread(other.value, CHANGED[other.vendor]).result(PATIENCE_S)
        assert not thread(other.value, CHANGED[other.vendor]).result(PATIENCE_S)


@pytest.mark.usefixtures("requests_are_announced")
@pytest.mark.parametrize("held", ["a lock", "pin()", "the driver's connection"])
def test_what_only_its_thread_can_judge_is_not_taken(
    database: Database, thread: Callable[..., "Future[Any]"], held: str
) -> None:
    def hold(other: Database) -> None:
        if held == "a lock":
            other.query(TAKE[other.vendor])
        elif held == "pin()":
            other.connection.pin()
        else:
            other.connection.ensure_connection()
            other.connection.connection.cursor().close()
        other.value("SELECT 1")

    with database.another("other", max_size=1) as other:
        thread(hold, other).result(PATIENCE_S)
        assert in_use(other) == 1
        assert not other.pool._state.parked


@pytest.mark.usefixtures("requests_are_announced")
def test_a_thread_that_closes_what_was_taken_is_told_nothing(
    database: Database, thread: Callable[..., "Future[Any]"]
) -> None:
    with database.another("other", max_size=1, checkout_timeout=PATIENCE_S) as other:
        thread(other.query, CHANGE[other.vendor]).result(PATIENCE_S)
        other.value("SELECT 1")
        thread(close_old_connections).result(PATIENCE_S)
        assert thread(other.value, "SELECT 1").result(PATIENCE_S) == 1
        wait_until(lambda: in_use(other) == 0)


ABOUT_SESSION = {
    "mysql": ["SHOW WARNINGS", "SELECT @@identity", "SELECT CONNECTION_ID()", "SELECT last_insert_id()"],
    "postgresql": ["SELECT pg_backend_pid()"],
}


def test_a_developer_is_warned_of_what_is_about_the_session(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for sql in ABOUT_SESSION[database.vendor]:
        pinning._warned_of.clear()
        caplog.clear()
        with override_settings(DEBUG=True), request():
            with transaction.atomic(using=database.alias):
                database.query(sql)
            with database.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            assert not caplog.records
            database.query(sql)
            database.query(sql)
        assert [record.getMessage().partition("own: ")[2].partition("\n")[0] for record in caplog.records] == [sql]
    caplog.clear()
    pinning._warned_of.clear()
    database.query(ABOUT_SESSION[database.vendor][0])
    assert not caplog.records
