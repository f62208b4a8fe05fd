"""Django in this process on real servers, for the tests of the database backends, and an observer who looks at the
servers from outside.

TEST_MYSQL_DRIVER=pymysql makes the MySQL backend use PyMySQL in place of mysqlclient: a process can have
only one of them, so tests/integration/test_pymysql.py runs the tests again in another one.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import django
import psycopg
import pymysql
from django.conf import settings

from fullhouse.pool.statistics import PoolStatistics
from private_servers import PrivateServer

DRIVER = os.environ.get("TEST_MYSQL_DRIVER", "mysqlclient")
if DRIVER == "pymysql":
    sys.modules["MySQLdb"] = None  # type: ignore[assignment]  # as if mysqlclient were not installed
    import_module("fullhouse.db.mysql")  # puts PyMySQL in its place, which Django's own engine needs here too

if not settings.configured:
    settings.configure(
        DATABASES={}, USE_TZ=True, SECRET_KEY="test", ALLOWED_HOSTS=["*"], ROOT_URLCONF=(), LOGGING_CONFIG=None
    )
    django.setup()

from django.core.signals import request_finished, request_started  # noqa: E402  (needs the settings)
from django.db import connections, models  # noqa: E402

from fullhouse.budget.slots import SlotFile, slot_path  # noqa: E402
from fullhouse.db import host_slots, running  # noqa: E402
from fullhouse.plan.limits import server_address  # noqa: E402
from fullhouse.private_folder import runtime_folder  # noqa: E402

ENGINES = {"mysql": "fullhouse.db.mysql", "postgresql": "fullhouse.db.postgresql"}
STOCK_ENGINES = {"mysql": "django.db.backends.mysql", "postgresql": "django.db.backends.postgresql"}
SLOTS = 20
ESTABLISHED = "01"  # /proc/net/tcp
PATIENCE_S = 30.0  # for what takes milliseconds: only a broken machine or a real fault reaches it


class Token(models.Model):
    """Something written once: `value` says by whom."""

    value = models.CharField(max_length=100, unique=True)

    class Meta:
        app_label = "dbtests"


class Database:
    """One alias of Django's on one private server."""

    def __init__(self, server: PrivateServer, alias: str, *, engine: str | None = None, **options: Any) -> None:
        self.server = server
        self.alias = alias
        self.vendor = server.vendor
        self.add(alias, engine=engine, **options)

    def add(self, alias: str, *, engine: str | None = None, **options: Any) -> None:
        """Add another alias on the same server. Upper-case options are those of `DATABASES`, others of the pool."""
        entry: dict[str, Any] = {
            "ENGINE": engine or ENGINES[self.server.vendor],
            "HOST": self.server.host,
            "PORT": str(self.server.port),
            "USER": self.server.user,
            "PASSWORD": self.server.password,
            "NAME": self.server.database,
            **{name: value for name, value in options.items() if name.isupper()},
        }
        pool = {name: value for name, value in options.items() if not name.isupper()}
        if pool:
            entry["OPTIONS"] = {**entry.get("OPTIONS", {}), "pool": pool}
        connections.settings[alias] = connections.configure_settings({"default": {}, alias: entry})[alias]

    @contextmanager
    def another(self, alias: str, **options: Any) -> Iterator["Database"]:
        """A further alias on the same server, gone with its connections after the block."""
        other = Database(self.server, alias, **options)
        try:
            yield other
        finally:
            other.forget()

    def forget(self) -> None:
        """Close the alias's pool, and take it out of Django."""
        if hasattr(self.connection, "close_pool"):
            self.connection.close()
            self.connection.close_pool()
        if "observer" in self.__dict__:
            self.observer.close()
        del connections[self.alias]
        del connections.settings[self.alias]

    @property
    def connection(self) -> Any:
        """This thread's wrapper."""
        return connections[self.alias]

    @property
    def pool(self) -> Any:
        return self.connection.pool

    def plan(self, slots: int = SLOTS, fair_share: int = SLOTS) -> None:
        """Publish a plan, as `serve` does."""
        host_slots.allot(self.alias, fair_share)
        SlotFile.open(host_slots.path_of(self.vendor, self.connection.settings_dict), slots)

    def query(self, sql: str, params: Sequence[Any] | None = None) -> list[Any]:
        """The rows of one statement over Django."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, sql: str) -> Any:
        return self.query(sql)[0][0]

    @property
    def tokens(self) -> Any:
        return Token.objects.using(self.alias)

    def write(self, value: str) -> None:
        self.tokens.create(value=value)

    def session(self) -> int:
        """The server's number of the session that the next statement uses."""
        return int(self.value("SELECT CONNECTION_ID()" if self.vendor == "mysql" else "SELECT pg_backend_pid()"))

    # -- From outside ------------------------------------------------------------------------------------------

    @cached_property
    def observer(self) -> "Observer":
        return Observer(self.server)

    @contextmanager
    def tried(self, **plan: int) -> Iterator[None]:
        """For one test: planned, with an empty table of tokens, checked to be in order at the end, and forgotten."""
        self.plan(**plan)
        self.tokens.all().delete()
        try:
            yield
            end_request()
            self.assert_clean()
        finally:
            running._requests.clear()
            running.cancelled.clear()  # that of a test must not be another's
            self.forget()

    def assert_clean(self) -> None:
        """Nobody uses a connection, each one stands on a slot, and the server knows of no open transaction."""
        seen: list[PoolStatistics] = []

        def settled() -> bool:
            seen.append(self.pool.statistics())
            return bool(seen[-1].vetting == seen[-1].closing == seen[-1].connecting == 0)

        wait_until(settled)
        statistics = seen[-1]  # not a later one: another attempt to connect may have begun
        assert statistics.in_use == 0, statistics
        assert statistics.slots_held == statistics.total, statistics
        wait_until(lambda: self.observer.transactions() == 0)


class Observer:
    """A session of the server's administrator, who sees all others."""

    def __init__(self, server: PrivateServer) -> None:
        self.server = server
        self._connection = self._connect()

    def _connect(self) -> Any:
        server = self.server
        account = {"user": server.admin_user, "password": server.admin_password, "port": server.port}
        if server.vendor == "mysql":
            return pymysql.connect(host=server.host, autocommit=True, **account)
        return psycopg.connect(host=server.host, dbname=server.database, autocommit=True, **account)

    def again(self) -> None:
        """Come back after the server was restarted."""
        with suppress(pymysql.Error):
            self._connection.close()
        self._connection = self._connect()

    def ask(self, sql: str) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def sessions(self) -> dict[int, int]:
        """Of the site's user: the number of each session, and its client's TCP port."""
        if self.server.vendor == "mysql":
            rows = self.ask(f"SELECT id, host FROM information_schema.processlist WHERE user = '{self.server.user}'")
            return {row[0]: int(row[1].rpartition(":")[2]) for row in rows}
        return dict(self.ask(f"SELECT pid, client_port FROM pg_stat_activity WHERE usename = '{self.server.user}'"))

    def transactions(self) -> int:
        """How many transactions are open."""
        if self.server.vendor == "mysql":
            # Not information_schema.innodb_trx: asked more often than every 0.1 s, it repeats its first answer.
            status = str(self.ask("SHOW ENGINE INNODB STATUS")[0][2])
            return status[status.index("\nTRANSACTIONS\n") :].count(", ACTIVE")  # the last deadlock is told before
        sql = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{self.server.user}' AND xact_start IS NOT NULL"
        return int(self.ask(sql)[0][0])

    def kill(self, session: int) -> None:
        """End one session on the server's side."""
        if self.server.vendor == "mysql":
            self.ask(f"KILL {session}")
        else:
            self.ask(f"SELECT pg_terminate_backend({session})")
        wait_until(lambda: session not in self.sessions())

    def close(self) -> None:
        self._connection.close()


class Watch:
    """Counts the server's sessions, apart from those whose client has gone, which the server has yet to notice.

    First the server tells its sessions, then the kernel which of their clients still hold their end. So whatever is
    counted as held existed all at once.
    """

    def __init__(self, server: PrivateServer) -> None:
        self._observer = Observer(server)
        self._port = server.port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.samples = self.most_held = self.most_gone = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._observer.close()

    def _work(self) -> None:
        while not self._stop.wait(0.01):
            sessions = self._observer.sessions().values()
            held = len(self._clients() & set(sessions))
            self.samples += 1
            self.most_held = max(self.most_held, held)
            self.most_gone = max(self.most_gone, len(sessions) - held)

    def _clients(self) -> set[int]:
        """The ports of established client sockets of the server."""
        ports = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if state == ESTABLISHED and int(remote.rpartition(":")[2], 16) == self._port:
                ports.add(int(local.rpartition(":")[2], 16))
        return ports


def begin_request() -> None:
    request_started.send(sender=None)


def end_request() -> None:
    request_finished.send(sender=None)


@contextmanager
def request() -> Iterator[None]:
    """What a handler does around a view."""
    begin_request()
    try:
        yield
    finally:
        end_request()


def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread that ends, and return its result."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def wait_until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
    """Return how many seconds it took until `condition` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it never happened"
        time.sleep(0.005)
    return time.monotonic() - began


def create_tables(server: PrivateServer) -> None:
    """Make the table of tokens, through Django's own engine."""
    stock = Database(server, f"stock-{server.port}", engine=STOCK_ENGINES[server.vendor])
    try:
        if Token._meta.db_table not in stock.connection.introspection.table_names():
            with stock.connection.schema_editor() as editor:
                editor.create_model(Token)
    finally:
        stock.connection.close()
        stock.forget()


def slot_file(server: PrivateServer, user: str) -> Path:
    """Where the slots of that user are."""
    vendor = server.vendor
    host, port = server_address(vendor, {"HOST": server.host, "PORT": server.port})
    return slot_path(runtime_folder(), f"{vendor}-{host}-{port}", user)


def forget_plan(server: PrivateServer) -> None:
    """Another server may get this one's port, and must not find its slots."""
    for user in (server.user, server.admin_user):
        slot_file(server, user).unlink(missing_ok=True)
