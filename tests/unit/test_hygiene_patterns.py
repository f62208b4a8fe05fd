"""Which statements pin their connection. tests/integration/test_hygiene.py asks the servers whether that is right."""

import math

import pytest

from fullhouse.db.mysql import statements as mysql
from fullhouse.db.mysql.statements import may_commit
from fullhouse.db.postgresql import statements as postgresql
from fullhouse.db.statements import NOTHING, Effect
from hygiene_tables import CHANGES, LEAVES_NOTHING, LEAVES_TRACE, ONLY

VENDORS = {"mysql": mysql.STATEMENTS, "postgresql": postgresql.STATEMENTS}


@pytest.mark.parametrize(
    ("vendor", "sql"),
    [
        *((vendor, sql) for vendor in VENDORS for sql in LEAVES_TRACE[vendor] + CHANGES[vendor]),
        *(("mysql", sql) for engine in ONLY for sql in ONLY[engine]),
    ],
)
def test_pins(vendor: str, sql: str) -> None:
    assert VENDORS[vendor].effect(sql) != NOTHING
    assert VENDORS[vendor].effect(sql.swapcase()) != NOTHING
    assert VENDORS[vendor].effect(f" \t\n/* {'long ' * 1000} */ {sql}") != NOTHING


@pytest.mark.parametrize(("vendor", "sql"), [(vendor, sql) for vendor in VENDORS for sql in LEAVES_NOTHING[vendor]])
def test_does_not_pin(vendor: str, sql: str) -> None:
    assert VENDORS[vendor].effect(sql) is NOTHING


@pytest.mark.parametrize(
    ("vendor", "sql", "effect"),
    [
        ("mysql", "SELECT GET_LOCK('a', 1), GET_LOCK('b', 1), RELEASE_LOCK('c')", Effect(takes=2, releases=1)),
        ("mysql", "SELECT release_all_locks()", Effect(releases=math.inf)),
        ("mysql", "SET @a = GET_LOCK('a', 1)", Effect(changes=True, takes=1)),
        ("postgresql", "SELECT pg_try_advisory_lock_shared(7, 8)", Effect(takes=1)),
        ("postgresql", "SELECT pg_advisory_unlock(7)", Effect(releases=1)),
        ("postgresql", "SELECT pg_advisory_unlock_all()", Effect(releases=math.inf)),
        ("postgresql", "LISTEN a; LISTEN b; UNLISTEN a", Effect(takes=2, releases=1)),
        ("postgresql", "UNLISTEN *", Effect(releases=math.inf)),
    ],
)
def test_counts_what_is_taken_and_released(vendor: str, sql: str, effect: Effect) -> None:
    assert VENDORS[vendor].effect(sql) == effect


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (n int)",
        "/* why */ alter table t ADD n int",
        "SELECT 1; TRUNCATE t",
        "/*!40000 DROP TABLE t */",
        "COMMIT",
        "ROLLBACK",
        "CALL anything()",
        "SET @@session.autocommit = 1",
        "SET DEFAULT ROLE ALL TO someone",
        "SET STATEMENT max_statement_time = 1 FOR TRUNCATE t",
        "IMPORT TABLE FROM '/tmp/t.sdi'",
        "BEGIN NOT ATOMIC COMMIT; END",
    ],
)
def test_may_commit(sql: str) -> None:
    assert may_commit(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "UPDATE t SET n = 1",
        "SAVEPOINT s1",
        "RELEASE SAVEPOINT s1",
        "ROLLBACK TO SAVEPOINT s1",
        "rollback work to s1",
        "SET foreign_key_checks = 0",
    ],
)
def test_does_not_commit(sql: str) -> None:
    assert not may_commit(sql)
