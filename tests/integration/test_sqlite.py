"""SQLite with many threads, through Django's own handler: readers wait for nobody, and writers for their turn."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import override_settings
from django.test.client import RequestFactory
from django.urls import path

import dbsupport  # noqa: F401  (sets Django up)

PATIENCE_S = 30.0
View = Callable[[Any], Any]


class SqliteSite:
    """A site on one SQLite file with a counter in it, whose only page is `view`."""

    def __init__(self, file: Path, **entry: Any) -> None:
        self.file = file
        self.entry = {"ENGINE": "fullhouse.db.sqlite3", "NAME": str(file), "ATOMIC_REQUESTS": True, **entry}
        self.view: View = lambda request: None
        connections.settings["lite"] = connections.configure_settings({"default": {}, "lite": self.entry})["lite"]
        self.handler: Any = None

    def page(self, request: Any) -> HttpResponse:
        return HttpResponse(str(self.view(request)))

    def ask(self, method: str = "GET") -> tuple[str, str]:
        """Status and body of one request, in this thread; its connection is closed after it."""
        statuses: list[str] = []
        environ = RequestFactory().generic(method, "/").environ
        response = self.handler(environ, lambda status, headers: statuses.append(status))
        body = b"".join(response).decode()
        response.close()
        return statuses[0], body

    def in_thread(self, method: str = "GET") -> Any:
        executor = ThreadPoolExecutor(1)
        future = executor.submit(self.ask, method)
        executor.shutdown(wait=False)
        return future


def execute(sql: str) -> list[Any]:
    with connections["lite"].cursor() as cursor:
        return list(cursor.execute(sql).fetchall())


def read() -> int:
    return int(execute("SELECT n FROM counter")[0][0])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SqliteSite]:
    file = tmp_path / "site.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE counter (n int)")
        connection.execute("INSERT INTO counter VALUES (0)")
    connection.close()
    site = SqliteSite(file)
    assert connections["lite"].vendor == "sqlite"  # imports the engine, which has to be there when a request begins
    with override_settings(ROOT_URLCONF=(path("", site.page),)):
        site.handler = WSGIHandler()
        yield site
    connections["lite"].close()
    del connections["lite"]
    del connections.settings["lite"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_readers_wait_neither_for_one_another_nor_for_a_writer(site: SqliteSite, method: str) -> None:
    everybody = threading.Barrier(8)

    def view(request: Any) -> int:
        found = read()
        everybody.wait(PATIENCE_S)  # all views are at work at once
        return found

    site.view = view
    with sqlite3.connect(site.file) as writer:
        writer.execute("BEGIN IMMEDIATE")
        answers = [site.in_thread(method) for _ in range(8)]
        assert {answer.result(PATIENCE_S)[0] for answer in answers} == {"200 OK"}
    writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_increment_is_lost(site: SqliteSite, method: str) -> None:
    def view(request: Any) -> int:
        if method == "GET":
            read()
            with transaction.atomic(using="lite"):  # what it reads, it may change
                execute(f"UPDATE counter SET n = {read() + 1}")
        else:
            execute(f"UPDATE counter SET n = {read() + 1}")
        return 0

    site.view = view
    answers = [site.in_thread(method) for _ in range(20)]
    assert {answer.result(PATIENCE_S)[0] for answer in answers} == {"200 OK"}
    assert read() == 20


WRITES = [
    "UPDATE counter SET n = n + 1",
    "WITH one AS (SELECT 1 AS n) UPDATE counter SET n = n + (SELECT n FROM one)",
    "/* why */ UPDATE counter SET n = n + 1",
]


@pytest.mark.parametrize("sql", WRITES)
def test_a_get_that_read_first_can_write(site: SqliteSite, sql: str) -> None:
    """Another has written since it read: SQLite would refuse to go on from there."""

    def view(request: Any) -> int:
        read()
        with sqlite3.connect(site.file) as other:
            other.execute("UPDATE counter SET n = 10")
        other.close()
        execute(sql)
        return read()

    site.view = view
    assert site.ask() == ("200 OK", "11")


def test_a_get_that_fails_writes_nothing(site: SqliteSite, caplog: pytest.LogCaptureFixture) -> None:
    def view(request: Any) -> int:
        read()
        execute("UPDATE counter SET n = 5")
        return 1 // 0

    site.view = view
    assert site.ask()[0] == "500 Internal Server Error"
    assert read() == 0


def test_many_rows_at_once_are_a_write(site: SqliteSite) -> None:
    def view(request: Any) -> int:
        read()
        with connections["lite"].cursor() as cursor:
            cursor.executemany("INSERT INTO counter VALUES (%s)", [(1,), (2,)])
        return 0

    site.view = view
    assert site.ask()[0] == "200 OK"
    assert execute("SELECT count(*) FROM counter") == [(3,)]


def read_only_uri(file: Path) -> str:
    return f"file:{file}?mode=ro"


def read_only_file(file: Path) -> str:
    file.chmod(0o444)
    return str(file)


@pytest.mark.parametrize("name", [read_only_uri, read_only_file])
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_database_that_cannot_be_written_is_read(
    site: SqliteSite, name: Callable[[Path], str], journal: str, method: str
) -> None:
    if name is read_only_file and os.geteuid() == 0:
        pytest.skip("root may write any file")
    keeps_journal = sqlite3.connect(site.file)  # the last one to close a file in WAL mode would have to write
    keeps_journal.execute(f"PRAGMA journal_mode = {journal}")
    keeps_journal.execute("SELECT n FROM counter").fetchall()
    connections.settings["lite"]["NAME"] = name(site.file)
    site.view = lambda request: read()
    assert site.in_thread(method).result(PATIENCE_S) == ("200 OK", "0")
    keeps_journal.close()
