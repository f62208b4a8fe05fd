"""What one request does to its session is gone before the next one sees it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError
from pymysql.constants import CLIENT

from dbsupport import Database, in_thread, request
from hygiene_tables import LEAVES_NOTHING, LEAVES_TRACE, ONLY, PROBES
from private_servers import which_mysql


@pytest.fixture
def narrow(database: Database) -> Iterator[Database]:
    """An alias with one connection, so that whoever comes next gets it, or its replacement."""
    options = {}
    if database.server.engine == "mysql":
        database.observer.ask("GRANT SELECT ON performance_schema.* TO fullhouse@'%'")
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
    for probe in PROBES[database.server.engine]:
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
    each = [(vendor, sql) for vendor in ("mysql", "postgresql") for sql in table[vendor]]
    return pytest.mark.parametrize(("database", "sql"), each, indirect=["database"])


def only(engine: str) -> pytest.MarkDecorator:
    other = pytest.mark.skipif(which_mysql() != engine, reason=f"a statement of {engine} only")
    return pytest.mark.parametrize(
        ("database", "sql"), [pytest.param("mysql", sql, marks=other) for sql in ONLY[engine]], indirect=["database"]
    )


@only("mariadb")
def test_the_next_borrower_sees_nothing_of_mariadbs_own(narrow: Database, sql: str) -> None:
    check_trace(narrow, sql)


@only("mysql")
def test_the_next_borrower_sees_nothing_of_mysqls_own(narrow: Database, sql: str) -> None:
    check_trace(narrow, sql)


@cases(LEAVES_TRACE)
def test_the_next_borrower_sees_nothing(narrow: Database, sql: str) -> None:
    check_trace(narrow, sql)


def check_trace(narrow: Database, sql: str) -> None:
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
