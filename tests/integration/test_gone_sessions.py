"""A session that the server has ended is not lent again, whatever the drivers call its end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import DatabaseError

from dbsupport import DRIVER, Database, create_tables, forget_plan, request
from private_servers import PrivateServer, mysql_family, which_mysql
from support import make_certificate

TLS = {"mysqlclient": {"ssl_mode": "REQUIRED"}, "pymysql": {"ssl": {"verify_mode": "none"}}}[DRIVER]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One with a certificate that the user of the server can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        certificate, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        make_certificate(certificate, key)
        key.chmod(0o644)
        with mysql_family(**{"ssl-cert": str(certificate), "ssl-key": str(key)}) as server:
            create_tables(server)
            yield server
            forget_plan(server)


@pytest.fixture
def site(server: PrivateServer) -> Iterator[Database]:
    """One connection, so that whoever comes next gets it, or its replacement."""
    database = Database(server, "mysql-site", max_size=1, OPTIONS=TLS)
    with database.tried():
        yield database


def fail(site: Database, sql: str) -> None:
    with request(), pytest.raises(DatabaseError):
        site.query(sql)


def test_a_session_killed_over_tls(site: Database) -> None:
    """mysqlclient says 2026, TLS error, and not that the session is lost."""
    assert site.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
    site.observer.kill(site.session())
    fail(site, "SELECT 1")
    assert site.value("SELECT 41 + 1") == 42


def test_a_session_killed_over_tls_within_a_statement(site: Database) -> None:
    """MySQL says 1317, as for a statement whose session goes on."""
    fail(site, "KILL CONNECTION_ID()")
    assert site.value("SELECT 41 + 1") == 42


@pytest.mark.skipif(which_mysql() != "mysql", reason="a limit of MySQL only")
def test_a_session_over_its_memory_limit(site: Database) -> None:
    site.observer.ask("SET GLOBAL global_connection_memory_tracking = ON")
    site.observer.ask("SET GLOBAL connection_memory_limit = 2097152")
    site.connection.close_pool()  # a session has the limit that was there when it began
    try:
        fail(site, f"SELECT LENGTH('{'x' * 8_000_000}')")
        assert site.value("SELECT 41 + 1") == 42
    finally:
        site.observer.ask("SET GLOBAL connection_memory_limit = DEFAULT")


def test_a_mistake_in_a_statement_costs_no_session(site: Database) -> None:
    session = site.session()
    fail(site, "SELECT nothing")
    fail(site, "SELECT * FROM nowhere.nothing")
    assert site.session() == session
