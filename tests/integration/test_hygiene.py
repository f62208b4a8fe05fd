"""What one request does to its session is gone before the next one sees it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError
from pymysql.constants import CLIENT

from dbsupport import Database, in_thread, request
from hygiene_tables import LEAVES_NOTHING, LEAVES_TRACE, PROBES


@pytest.fixture
def narrow(database: Database) -> Iterator[Database]:
    """An alias with one connection, so that whoever comes next gets it, or its replacement."""
    options = {}
    if database.vendor == "mysql":
        database.query("CREATE TABLE IF NOT EXISTS another_token (n int)")
        options["client_flag"] = CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS  # which mysqlclient sets by itself
    else:
        database.observer.ask("GRANT pg_monitor TO fullhouse")
    with database.another("narrow", max_size=1, OPTIONS=options) as narrow:
        yield narrow


def look(database: Database) -> list[Any]:
    """What the probes see in the session, errors included."""
    seen: list[Any] = []
    for probe in PROBES[database.vendor]:
        try:
            seen.append(sorted(database.query(probe), key=str))
        except DatabaseError as error:
            seen.append(error.args[0])
    return seen


def visit(database: Database) -> list[Any]:
    with request():
        return look(database)


def run(database: Database, sql: str) -> None:
    """Execute the statement as it stands, all of its parts."""
    with database.connection.cursor() as cursor:
        cursor.execute(sql)
        with suppress(AttributeError):
            while cursor.nextset():
                pass


def differences(seen: list[Any], new: list[Any]) -> list[Any]:
    return [(was, now) for was, now in zip(new, seen, strict=True) if was != now]


def cases(table: dict[str, list[str]]) -> pytest.MarkDecorator:
    engines = {"mariadb": "mysql", "postgresql": "postgresql"}
    each = [(engine, sql) for engine, vendor in engines.items() for sql in table[vendor]]
    return pytest.mark.parametrize(("database", "sql"), each, indirect=["database"])


@cases(LEAVES_TRACE)
def test_the_next_borrower_sees_nothing(narrow: Database, sql: str) -> None:
    new = in_thread(lambda: visit(narrow))
    with request():
        run(narrow, sql)
        assert look(narrow) != new, "the statement leaves nothing, so that it proves nothing"
    assert differences(in_thread(lambda: visit(narrow)), new) == []
    narrow.assert_clean()


@cases(LEAVES_NOTHING)
def test_everyday_work_gives_the_connection_back_at_once(narrow: Database, sql: str) -> None:
    new = in_thread(lambda: visit(narrow))
    with request():
        with suppress(DatabaseError):  # some make sense in a transaction only
            run(narrow, sql)
        assert narrow.pool.statistics().in_use == 0
        assert differences(in_thread(lambda: visit(narrow)), new) == []
