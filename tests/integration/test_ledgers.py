"""The ledgers of a fleet on real servers: two keepers' sessions, and one of a pool."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

import programs
from fullhouse.fleet import mysql, postgresql
from fullhouse.fleet.ledger import FleetRefusedError, Ledger, View
from private_servers import PrivateServer, mariadb
from support import free_port, wait_until

MOST_HOSTS, BUDGET = 4, 10


def connect(server: PrivateServer) -> Any:
    access = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    if server.vendor == "mysql":
        return pymysql.connect(**access, database=server.database, autocommit=True)
    return psycopg.connect(**access, dbname=server.database, autocommit=True)


def ledger_of(server: PrivateServer) -> Ledger:
    connection = connect(server)
    if server.vendor == "mysql":
        return mysql.MySQLLedger(connection, server.user)
    return postgresql.PostgreSQLLedger(connection, connection.info.backend_pid, server.user)


@pytest.fixture
def joining(server: PrivateServer) -> Iterator[Callable[..., Ledger]]:
    with ExitStack() as stack:

        def join(budget: int = BUDGET) -> Ledger:
            ledger = stack.enter_context(closing(ledger_of(server)))
            ledger.join(MOST_HOSTS, budget)
            return ledger

        yield join


def look(ledger: Ledger) -> View:
    return ledger.look(MOST_HOSTS, BUDGET)


def test_what_one_keeper_owns_the_other_sees_and_cannot_have(joining: Callable[..., Ledger]) -> None:
    one, two = joining(), joining()
    assert one.take([1, 2, 3]) == {1, 2, 3}
    assert two.take([3, 4]) == {4}
    seen = look(two)
    assert (seen.number, seen.owned) == (1, {4})
    assert set(seen.hosts) == seen.same == {0, 1}
    assert seen.owners.keys() == {1, 2, 3, 4}
    assert seen.owners[1] == seen.hosts[0]
    one.give([2])
    assert look(two).owners.keys() == {1, 3, 4}
    assert two.take([2]) == {2}


def test_who_waits_is_seen(joining: Callable[..., Ledger]) -> None:
    one, two = joining(), joining()
    for waiting, wanting in ((True, False), (False, True), (False, False)):
        one.say(0, waiting=waiting, wanting=wanting)
        for seen in (look(two), two.glance(MOST_HOSTS)):
            assert (seen.waiting, seen.wanting) == ({0} if waiting else set(), {0} if wanting else set())
            assert seen.hosts == look(one).hosts
            assert seen.number == 1


def test_another_budget_is_noticed(joining: Callable[..., Ledger]) -> None:
    one = joining()
    joining(BUDGET - 2)
    seen = look(one)
    assert (set(seen.hosts), seen.same) == ({0, 1}, {0})


def test_the_locks_go_with_the_session(joining: Callable[..., Ledger]) -> None:
    one, two = joining(), joining()
    one.take([1])
    one.close()
    wait_until(lambda: set(look(two).hosts) == {1} and not look(two).owners, "the locks were gone")


def test_sessions_stand_on_slots_and_are_ended_where_nobody_owns_them(
    joining: Callable[..., Ledger], server: PrivateServer
) -> None:
    one = joining()
    fence = (mysql if server.vendor == "mysql" else postgresql).fence(server.user, 5)
    with closing(connect(server)) as session, session.cursor() as cursor:
        outside = look(one).sessions - set(look(one).hosts.values())
        assert len(outside) == 1
        cursor.execute(fence)
        is_free, limit = cursor.fetchone()
        assert is_free
        assert limit is not None
        seen = look(one)
        assert seen.fences == {5: next(iter(outside))}
        assert one.fenced([4, 5]) == {5}
        with closing(connect(server)) as rival, rival.cursor() as other:
            other.execute(fence)
            assert not other.fetchone()[0]
        one.take([5])
        one.end(5, seen.fences[5])
        cursor.execute("SELECT 1")  # it has an owner
        one.give([5])
        one.end(5, seen.fences[5])
        wait_until(lambda: not look(one).fences, "the session had ended")


def test_addresses_are_those_of_the_hosts(joining: Callable[..., Ledger]) -> None:
    one = joining()
    assert set(one.addresses(look(one)).values()) <= {"127.0.0.1", "localhost", "local"}
    assert set(one.addresses(look(one))) == {0}


def test_a_node_of_galera_is_refused() -> None:
    """A real one, alone in its cluster."""
    provider = Path("/usr/lib/galera/libgalera_smm.so")
    if programs.find("mariadbd") is None or not provider.exists():
        pytest.skip("MariaDB with Galera is not installed: this machine's server is MySQL")
    cluster: dict[str, str | int] = {
        "wsrep_on": "ON",
        "wsrep_provider": str(provider),
        "wsrep_cluster_address": "gcomm://",
        "wsrep_provider_options": f"gmcast.listen_addr=tcp://127.0.0.1:{free_port()}",
        "wsrep_node_address": "127.0.0.1",
        "binlog_format": "ROW",
        "innodb_autoinc_lock_mode": 2,
    }
    with (
        mariadb(**cluster) as server,
        closing(ledger_of(server)) as ledger,
        pytest.raises(FleetRefusedError, match="Galera's nodes do not share GET_LOCK"),
    ):
        ledger.join(MOST_HOSTS, BUDGET)
