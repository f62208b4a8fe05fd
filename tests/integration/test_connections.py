"""Who holds a connection, and when it comes back: modes, cursors, interrupts, threads, forks, several aliases."""

import asyncio
import gc
import os
import signal
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import Error, OperationalError, connections, transaction
from django.db.backends.signals import connection_created

from dbsupport import DRIVER, Database, begin_request, end_request, in_thread, request, slot_file, wait_until
from fullhouse.db import pools
from fullhouse.db.driver import PROBE_S, SILENCE_S, DjangoDriver
from fullhouse.db.pooled import _copied


def in_use(database: Database) -> int:
    return int(database.pool.statistics().in_use)


def slow(database: Database, seconds: float) -> str:
    return f"SELECT SLEEP({seconds})" if database.vendor == "mysql" else f"SELECT pg_sleep({seconds})"


def test_a_connection_whose_other_end_is_silent_is_given_up_in_seconds(database: Database) -> None:
    with database.connection.cursor():
        descriptor = database.connection.descriptor(database.connection.connection)
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * SILENCE_S
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "both drivers have the kernel ask"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == PROBE_S


def test_what_is_abandoned_in_a_statement_cannot_be_reached(
    database: Database, monkeypatch: Any, recwarn: pytest.WarningsRecorder
) -> None:
    """mysqlclient does not tell the descriptor of a connection that another thread uses."""
    driver = DjangoDriver(database.connection, SimpleNamespace(unplanned=False, is_fleet=False))
    connection = driver.connect(0)
    descriptor = database.connection.descriptor(connection)
    monkeypatch.setattr(type(database.connection), "descriptor", staticmethod(lambda connection: 1 / 0))
    with socket.socket(fileno=os.dup(descriptor)) as kept:
        kept.settimeout(0.5)
        driver.abandon(connection)
        with pytest.raises(TimeoutError):  # the server would hang up, had it been told that the session ends
            kept.recv(1)
        kept.shutdown(socket.SHUT_RDWR)
    del connection
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_options_that_cannot_be_copied(database: Database) -> None:
    context = ssl.create_default_context()
    options = {"ssl": context, "list": [1, (2, {"a": 3})]}
    assert _copied(options) == options
    assert _copied(options)["ssl"] is context
    assert _copied(options)["list"] is not options["list"]


def test_a_child_forked_while_a_pool_was_made_can_make_its_own() -> None:
    with warnings.catch_warnings(), pools._lock:
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            os._exit(0 if pools._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- Modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "held"), [("transaction", (0, 0)), ("request", (1, 0)), ("session", (1, 1))])
def test_modes(database: Database, mode: str, held: tuple[int, int]) -> None:
    with database.another("other", mode=mode) as other:
        begin_request()
        other.value("SELECT 1")
        in_view = in_use(other)
        end_request()
        assert (in_view, in_use(other)) == held
        other.connection.close()
        other.assert_clean()


def test_a_pinned_connection_stays_for_the_request(database: Database) -> None:
    with request():
        database.query("CREATE TEMPORARY TABLE kept (n int)")
        session = database.session()
        with transaction.atomic(using=database.alias):
            database.query("INSERT INTO kept VALUES (1)")
        assert database.value("SELECT count(*) FROM kept") == 1
        assert database.session() == session
        assert in_use(database) == 1
    database.assert_clean()
    with pytest.raises(Error):
        database.value("SELECT count(*) FROM kept")


def test_pin_by_hand(database: Database) -> None:
    """For what no statement shows: work on the driver's own connection."""
    with request():
        database.connection.ensure_connection()
        database.connection.pin()
        driver = database.connection.connection
        cursor = driver.cursor()
        cursor.execute("SET @a = 1" if database.vendor == "mysql" else "SET app.kept = 'x'")
        cursor.close()
        assert database.connection.connection is driver
    seen = database.value(
        "SELECT @a" if database.vendor == "mysql" else "SELECT coalesce(current_setting('app.kept', true), '')"
    )
    assert not seen


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_was_set_on_the_drivers_connection_is_reset(database: Database) -> None:
    with database.another("other", max_size=1) as other:
        with request():
            session = other.session()
            other.connection.ensure_connection()
            other.connection.connection.read_only = True
        with request(), transaction.atomic(using=other.alias):
            assert other.session() != session
            assert other.value("SHOW transaction_read_only") == "off"


def test_receivers_of_connection_created_set_up_every_session(database: Database) -> None:
    def set_up(connection: Any, **_: Any) -> None:
        if connection.alias == "other":
            with connection.cursor() as cursor:
                cursor.execute("SET lock_wait_timeout = 7" if database.vendor == "mysql" else "SET lock_timeout = '7s'")

    def timeout() -> str:
        return str(other.value("SELECT @@lock_wait_timeout" if database.vendor == "mysql" else "SHOW lock_timeout"))

    connection_created.connect(set_up)
    try:
        with database.another("other", max_size=1) as other:
            for _ in range(2):
                with request():
                    assert timeout().removesuffix("s") == "7"
                    other.query("SET @a = 1" if database.vendor == "mysql" else "SET app.kept = 'x'")  # pins
    finally:
        connection_created.disconnect(set_up)


# -- Cursors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hundred(database: Database) -> Iterator[Database]:
    """A hundred tokens, and a pool of one connection: who gets it next meets all that was left on it."""
    database.tokens.bulk_create(database.tokens.model(value=f"{n:03}") for n in range(100))
    with database.another("narrow", max_size=1) as narrow:
        yield narrow


def assert_next_is_well(database: Database) -> None:
    assert in_thread(lambda: database.value("SELECT count(*) FROM dbtests_token")) == 100
    database.assert_clean()
    if database.vendor == "postgresql":
        assert database.query("SELECT name FROM pg_cursors") == []


def test_cursor_never_closed(hundred: Database) -> None:
    with request():
        cursor = hundred.connection.cursor()
        cursor.execute("SELECT value FROM dbtests_token")
        cursor.fetchone()
        assert in_use(hundred) == 1
    assert_next_is_well(hundred)
    cursor.close()  # late, and without effect
    assert_next_is_well(hundred)


def test_cursor_dropped_half_read_gives_its_connection_back(hundred: Database) -> None:
    cursor = hundred.connection.cursor()
    cursor.execute("SELECT value FROM dbtests_token")
    cursor.fetchone()
    del cursor
    assert in_use(hundred) == 0
    assert_next_is_well(hundred)


def test_cursor_collected_while_another_is_opened(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is found, and not yet marked as used, when the collector closes a forgotten cursor."""
    wrapper, create_cursor = database.connection, database.connection.create_cursor
    forgotten: list[Any] = [wrapper.cursor()]
    forgotten.append(forgotten)

    def collect_then_create(name: str | None = None) -> Any:
        gc.collect()
        return create_cursor(name)

    del forgotten
    monkeypatch.setattr(wrapper, "create_cursor", collect_then_create)
    with wrapper.cursor() as cursor:
        assert in_use(database) == 1
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == ((1,),) or cursor.rowcount == 1
    database.assert_clean()


def test_cursor_collected_in_another_thread_is_closed_by_its_own(hundred: Database) -> None:
    """The driver would destroy its cursor in that thread, while this one may be using the connection."""
    closed_in: list[int] = []
    with request():
        cursor = hundred.connection.cursor()
        cursor.execute("SELECT value FROM dbtests_token")
        note_close(getattr(cursor.cursor, "cursor", cursor.cursor), closed_in)
        forgotten: list[Any] = [cursor]
        forgotten.append(forgotten)
        del cursor, forgotten
        in_thread(gc.collect)
        assert closed_in == []
        assert in_use(hundred) == 1
    assert closed_in == [threading.get_ident()]
    assert_next_is_well(hundred)


def note_close(cursor: Any, threads: list[int]) -> None:
    """Have the driver's cursor note which thread closes it."""
    close = cursor.close

    def noting() -> None:
        threads.append(threading.get_ident())
        close()

    cursor.close = noting


def test_iterator_dropped_half_read(hundred: Database) -> None:
    rows = hundred.tokens.iterator(chunk_size=10)
    next(rows)
    assert in_use(hundred) == 1
    del rows
    gc.collect()
    assert in_use(hundred) == 0
    assert_next_is_well(hundred)


def test_iterator_half_read_at_the_end_of_the_request(hundred: Database) -> None:
    with request():
        rows = hundred.tokens.iterator(chunk_size=10)
        next(rows)
    assert_next_is_well(hundred)
    rows.close()
    assert_next_is_well(hundred)


def test_iterator_half_read_in_an_atomic_block(hundred: Database) -> None:
    with request(), transaction.atomic(using=hundred.alias):
        rows = hundred.tokens.iterator(chunk_size=10)
        next(rows)
    assert_next_is_well(hundred)
    rows.close()


def test_iterator_collected_in_another_thread(hundred: Database) -> None:
    """That thread must not touch the connection; the end of the request resets it."""
    begin_request()
    rows = [hundred.tokens.iterator(chunk_size=10)]
    next(rows[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # psycopg's, of the cursor that nobody closed
        in_thread(rows.clear)
        in_thread(gc.collect)
    end_request()
    assert_next_is_well(hundred)


def test_two_iterators_share_a_connection(hundred: Database) -> None:
    rows, others = hundred.tokens.iterator(chunk_size=10), hundred.tokens.iterator(chunk_size=7)
    assert sum(1 for _ in zip(rows, others, strict=True)) == 100
    assert_next_is_well(hundred)


def test_rows_streamed_from_the_server(hundred: Database) -> None:
    """mysqlclient's and PyMySQL's SSCursor leave unread rows on the wire."""
    if hundred.vendor != "mysql":
        return
    if DRIVER == "pymysql":
        from pymysql.cursors import SSCursor
    else:
        from MySQLdb.cursors import SSCursor
    with hundred.another("streamed", max_size=1, OPTIONS={"cursorclass": SSCursor}) as streamed:
        with request():
            cursor = streamed.connection.cursor()
            cursor.execute("SELECT value FROM dbtests_token")
            cursor.fetchone()
        assert_next_is_well(streamed)


# -- Interrupts ------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """What a server raises in a thread that has worked too long."""


@contextmanager
def signal_during(database: Database, text: str, handler: Callable[..., Any]) -> Iterator[None]:
    """Raise in this thread, by a signal, as soon as the server works on a statement with `text`."""
    if database.vendor == "mysql":
        sql = f"SELECT count(*) FROM information_schema.processlist WHERE user = 'fullhouse' AND info LIKE '%{text}%'"
    else:
        sql = f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'fullhouse' AND query LIKE '%{text}%'"
        sql += " AND state = 'active'"
    observer = database.observer

    def watch() -> None:
        wait_until(lambda: observer.ask(sql)[0][0] > 0)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Interrupted])
@pytest.mark.parametrize("in_block", [False, True], ids=["autocommit", "atomic"])
def test_interrupted_query(database: Database, kind: type[BaseException], *, in_block: bool) -> None:
    def handler(*_: Any) -> None:
        raise kind

    with request(), pytest.raises(kind), signal_during(database, "leep", handler):
        if in_block:
            with transaction.atomic(using=database.alias):
                database.write("lost")
                database.query(slow(database, 1))
        else:
            database.query(slow(database, 1))
    database.assert_clean()
    assert not database.tokens.exists()
    with transaction.atomic(using=database.alias):
        database.write("after")
    assert database.value("SELECT 41 + 1") == 42


def test_interrupted_while_waiting_for_a_connection(database: Database) -> None:
    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    with database.another("narrow", max_size=1) as narrow:
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with narrow.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                held.set()
                done.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        before = signal.signal(signal.SIGUSR1, handler)  # SIGALRM is that of the test's own time limit
        interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        try:
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                narrow.value("SELECT 1")
        finally:
            interrupt.join()
            signal.signal(signal.SIGUSR1, before)
            done.set()
            holder.join()
        assert narrow.pool.statistics().waiting == 0
        narrow.assert_clean()
        assert narrow.value("SELECT 41 + 1") == 42


# -- Threads, tasks and processes --------------------------------------------------------------------------------------


def test_a_thread_that_ends_leaves_nothing(database: Database) -> None:
    def leave_open() -> None:
        transaction.set_autocommit(False, using=database.alias)
        database.write("lost")

    in_thread(leave_open)
    wait_until(lambda: in_use(database) == 0)
    database.assert_clean()
    assert not database.tokens.exists()


def test_close_all(database: Database) -> None:
    database.connection.ensure_connection()
    assert in_use(database) == 1
    connections.close_all()
    assert in_use(database) == 0
    database.assert_clean()
    database.write("after")


def test_async_views(database: Database) -> None:
    def block(value: str) -> None:
        with transaction.atomic(using=database.alias):
            database.write(value)

    async def view(number: int) -> None:
        await sync_to_async(block)(f"block {number}")
        await database.tokens.acreate(value=f"alone {number}")
        assert await database.tokens.filter(value=f"block {number}").aexists()
        async for _ in database.tokens.filter(value=f"alone {number}"):
            pass

    async def serve() -> None:
        await asyncio.gather(*(view(number) for number in range(10)))
        await sync_to_async(end_request)()

    asyncio.run(serve())
    assert database.tokens.count() == 20
    database.assert_clean()


def in_child(work: Callable[[], Any]) -> str:
    """Fork, run `work` in the child, and return how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome = str(work())
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # that is the test
def test_fork_outside_a_transaction(database: Database) -> None:
    with request():
        database.connection.ensure_connection()
        session = database.session()
        database.connection.ensure_connection()

        def work() -> int:
            database.write("by the child")
            other = database.session()
            connections.close_all()
            database.pool.close()
            return other

        theirs = int(in_child(work))
        assert theirs != session
        assert database.session() == session
        assert database.tokens.count() == 1
    wait_until(lambda: theirs not in database.observer.sessions())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fork_in_a_transaction(database: Database) -> None:
    """The transaction is the parent's: the child can neither add to it nor end it."""

    def write() -> None:
        database.write("by the child")

    with transaction.atomic(using=database.alias):
        database.write("by the parent")
        assert "Error" in in_child(write)
        assert "Error" in in_child(database.connection._commit)
        database.write("by the parent, later")
    assert sorted(database.tokens.values_list("value", flat=True)) == ["by the parent", "by the parent, later"]


# -- Several aliases ---------------------------------------------------------------------------------------------------


def test_replica_on_the_same_server(database: Database) -> None:
    """Two aliases of one server and user stand on the same slots."""
    with database.another("replica") as replica:
        with transaction.atomic(using=database.alias):
            database.write("uncommitted")
            assert not replica.tokens.exists()
            assert in_use(database) == 1
        assert replica.tokens.exists()
        assert database.session() != replica.session()
        assert database.pool.statistics().slots_budget == replica.pool.statistics().slots_budget
        with transaction.atomic(using=database.alias), transaction.atomic(using="replica"):
            database.write("a")
            replica.write("b")
        assert database.tokens.count() == 3
        replica.assert_clean()


def test_slot_file_deleted_while_in_use(database: Database) -> None:
    server = database.server
    account = {"USER": server.admin_user, "PASSWORD": server.admin_password}
    with database.another("orphan", checkout_timeout=0.3, **account) as orphan:
        orphan.plan()
        slot_file(server, server.admin_user).unlink()
        for _ in range(6):  # more often than connects are tried at once
            with pytest.raises(OperationalError, match="deleted while in use"):
                orphan.value("SELECT 1")
        assert orphan.pool.statistics().connecting == 0
