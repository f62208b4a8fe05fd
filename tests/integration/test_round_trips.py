"""A request costs exactly the statements of its view and of its transactions: read in the server's own log."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from dbsupport import Database, in_thread, request

POSTGRESQL_STATEMENT = re.compile(r"^fullhouse\|LOG:  (?:statement|execute [^:]*): (.*)", re.MULTILINE)


class ServerLog:
    """What the server was asked by the site's user, by whatever command of the protocol."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._observer = database.observer
        self._path = database.server.folder / "server.log"
        self._offset = 0

    def turn(self, on: bool) -> None:
        if self._database.vendor == "mysql":
            self._observer.ask(f"SET GLOBAL log_output = 'TABLE', GLOBAL general_log = {on:d}")
        else:
            self._observer.ask(f"ALTER SYSTEM SET log_statement = '{'all' if on else 'none'}'")
            self._observer.ask("ALTER SYSTEM SET log_line_prefix = '%u|'")
            self._observer.ask("SELECT pg_reload_conf()")

    def forget(self) -> None:
        if self._database.vendor == "mysql":
            self._observer.ask("TRUNCATE mysql.general_log")
        self._offset = self._path.stat().st_size

    def statements(self) -> list[str]:
        """The first words since `forget`, with START TRANSACTION as BEGIN, and MySQL's commands that are no queries.

        MySQL's own client library writes COMMIT and ROLLBACK small.
        """
        if self._database.vendor == "mysql":
            rows = self._observer.ask(
                "SELECT command_type, CONVERT(argument USING utf8mb4) FROM mysql.general_log"
                " WHERE user_host LIKE 'fullhouse[%'"
            )
            texts = [text if kind == "Query" else kind for kind, text in rows]
        else:
            with self._path.open() as log:
                log.seek(self._offset)
                texts = POSTGRESQL_STATEMENT.findall(log.read())
        words = [text.replace("START TRANSACTION", "BEGIN").split(maxsplit=1)[0] for text in texts]
        return [word.upper() if word in ("commit", "rollback") else word for word in words]


@pytest.fixture
def log(database: Database) -> Iterator[ServerLog]:
    log = ServerLog(database)
    log.turn(on=True)
    database.connection.close_pool()  # PostgreSQL's sessions learn of a new setting when they please; new ones have it
    database.write("first")  # Django asks MySQL for its version once per thread, before its first INSERT
    yield log
    log.turn(on=False)


class Refused(Exception):
    pass


def read(database: Database) -> None:
    assert database.tokens.filter(value="nobody").first() is None


def without_query(_database: Database) -> None:
    pass


def plain(database: Database) -> None:
    read(database)
    database.write("plain")
    read(database)


def in_atomic(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        read(database)
        database.write("atomic")


def nested(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        read(database)
        with transaction.atomic(using=database.alias):
            database.write("nested")


def nested_before_anything(database: Database) -> None:
    with transaction.atomic(using=database.alias), transaction.atomic(using=database.alias):
        database.write("nested")


def without_savepoint(database: Database) -> None:
    with transaction.atomic(using=database.alias), transaction.atomic(using=database.alias, savepoint=False):
        database.write("nested")


def rolled_back(database: Database) -> None:
    with pytest.raises(Refused), transaction.atomic(using=database.alias):
        database.write("rolled back")
        raise Refused


def inner_rolled_back(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        read(database)
        with pytest.raises(Refused), transaction.atomic(using=database.alias):
            raise Refused


def empty(database: Database) -> None:
    with transaction.atomic(using=database.alias), transaction.atomic(using=database.alias):
        pass
    with pytest.raises(Refused), transaction.atomic(using=database.alias):
        raise Refused


def empty_inside(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        with transaction.atomic(using=database.alias):
            pass
        read(database)


def hooked(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        transaction.on_commit(lambda: read(database), using=database.alias)
        database.write("hooked")


def hooked_without_query(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        transaction.on_commit(lambda: read(database), using=database.alias)


def by_hand(database: Database) -> None:
    transaction.set_autocommit(False, using=database.alias)
    read(database)
    database.write("by hand")
    transaction.commit(using=database.alias)
    read(database)
    transaction.rollback(using=database.alias)
    transaction.set_autocommit(True, using=database.alias)


def by_hand_without_query(database: Database) -> None:
    transaction.set_autocommit(False, using=database.alias)
    transaction.commit(using=database.alias)
    transaction.set_autocommit(True, using=database.alias)


CASES: dict[Callable[[Database], None], str] = {
    without_query: "",
    plain: "SELECT INSERT SELECT",
    in_atomic: "BEGIN SELECT INSERT COMMIT",
    nested: "BEGIN SELECT SAVEPOINT INSERT RELEASE COMMIT",
    nested_before_anything: "BEGIN SAVEPOINT INSERT RELEASE COMMIT",
    without_savepoint: "BEGIN INSERT COMMIT",
    rolled_back: "BEGIN INSERT ROLLBACK",
    inner_rolled_back: "BEGIN SELECT SAVEPOINT ROLLBACK RELEASE COMMIT",
    empty: "",
    empty_inside: "BEGIN SELECT COMMIT",
    hooked: "BEGIN INSERT COMMIT SELECT",
    hooked_without_query: "SELECT",
    by_hand: "BEGIN SELECT INSERT COMMIT BEGIN SELECT ROLLBACK",
    by_hand_without_query: "",
}


@pytest.mark.parametrize("view", CASES, ids=lambda view: view.__name__)
def test_a_request_costs_what_its_view_asks(
    database: Database, log: ServerLog, view: Callable[[Database], None]
) -> None:
    log.forget()
    with request():
        view(database)
    assert log.statements() == CASES[view].split()


def test_other_threads_reuse_the_connection(database: Database, log: ServerLog) -> None:
    def visit() -> int:
        with request():
            return database.session()

    first = database.session()
    log.forget()
    assert [in_thread(visit) for _ in range(3)] == [first] * 3
    assert log.statements() == ["SELECT"] * 3


def serve(view: Callable[[HttpRequest], HttpResponse]) -> None:
    """One request through Django's own handler, to the close of the response."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }
    with override_settings(ROOT_URLCONF=(path("", view),)):
        response = WSGIHandler()(environ, lambda *_: None)
        assert response.status_code == 200
        response.close()


@pytest.mark.parametrize(("reads", "statements"), [(0, []), (1, ["BEGIN", "SELECT", "COMMIT"])])
def test_atomic_requests(database: Database, log: ServerLog, reads: int, statements: list[str]) -> None:
    def view(_request: HttpRequest) -> HttpResponse:
        for _ in range(reads):
            read(database)
        return HttpResponse()

    database.connection.settings_dict["ATOMIC_REQUESTS"] = True
    log.forget()
    checkouts = database.pool.statistics().checkouts
    serve(view)
    assert log.statements() == statements
    assert database.pool.statistics().checkouts - checkouts == reads
