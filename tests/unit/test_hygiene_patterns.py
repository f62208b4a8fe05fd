"""Which statements pin their connection. tests/integration/test_hygiene.py asks the servers whether that is right."""

import pytest

from fullhouse.pool.hygiene import changes_session, may_commit
from hygiene_tables import CHANGES, LEAVES_NOTHING, LEAVES_TRACE, ONLY

VENDORS = ("mysql", "postgresql")


@pytest.mark.parametrize(
    ("vendor", "sql"),
    [
        *((vendor, sql) for vendor in VENDORS for sql in LEAVES_TRACE[vendor] + CHANGES[vendor]),
        *(("mysql", sql) for engine in ONLY for sql in ONLY[engine]),
    ],
)
def test_pins(vendor: str, sql: str) -> None:
    assert changes_session(sql, vendor)
    assert changes_session(sql.swapcase(), vendor)
    assert changes_session(f" \t\n/* {'long ' * 1000} */ {sql}", vendor)


@pytest.mark.parametrize(("vendor", "sql"), [(vendor, sql) for vendor in VENDORS for sql in LEAVES_NOTHING[vendor]])
def test_does_not_pin(vendor: str, sql: str) -> None:
    assert not changes_session(sql, vendor)


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
