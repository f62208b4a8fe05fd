"""What a keeper decides, look by look; and what its ledgers refuse."""

from typing import Any

import pytest

from fullhouse.errors import PlanError
from fullhouse.fleet.core import ORPHAN_S, QUIET_S, REST_S, Core, Decision, HostView, fair_share
from fullhouse.fleet.keeper import GRANT_S, SLOWEST_TICK_S
from fullhouse.fleet.ledger import SILENCE_S, FleetRefusedError, View
from fullhouse.fleet.mysql import MySQLLedger, name
from fullhouse.fleet.postgresql import PostgreSQLLedger, key
from fullhouse.plan.limits import Limit
from fullhouse.plan.planner import host_budget
from fullhouse.settings.layers import layered
from fullhouse.settings.table import Settings

ME, OTHER = 10, 20
BUDGET = 10
WANTS = HostView(wants=True)


def view(**facts: Any) -> View:
    return View(**{"me": ME, "hosts": {0: ME, 1: OTHER}, **facts})


def decide(found: View, host: HostView = WANTS, after_s: float = REST_S) -> Decision:
    """Of a keeper that has seen the same before."""
    core = Core(BUDGET, 0, 100.0)
    core.decide(found, host, 100.0)
    return core.decide(found, host, 100.0 + after_s)


def test_shares_add_up_to_the_budget() -> None:
    for hosts in range(1, 15):
        shares = [fair_share(BUDGET, set(range(hosts)), number) for number in range(hosts)]
        assert sum(shares) == BUDGET
        assert max(shares) - min(shares) <= 1


def test_who_needs_takes_its_share_after_a_rest() -> None:
    assert decide(view(), after_s=REST_S - 0.01).take == []
    found = decide(view())
    assert (found.take, found.waiting, found.wanting) == ([0, 1, 2, 3, 4], True, False)


def test_more_is_borrowed_only_where_nobody_waits() -> None:
    owners = dict.fromkeys(range(5), ME)
    host = HostView(used=set(owners), granted=set(owners), wants=True)
    assert decide(view(owners=owners), host).take == [5, 6, 7, 8, 9]
    assert decide(view(owners=owners, waiting={1}), host).take == []
    assert decide(view(owners=owners), host).wanting


def test_what_somebody_owns_or_stands_on_is_not_taken() -> None:
    found = decide(view(owners={0: OTHER, 1: OTHER}, fences={1: 31, 2: 32}, sessions={ME, OTHER, 31, 32}))
    assert found.take == [3, 4, 5, 6, 7]


def test_a_stray_counts_as_a_slot() -> None:
    owners = dict.fromkeys(range(3, 10), OTHER)
    assert decide(view(owners=owners)).take == [0, 1, 2]
    assert decide(view(owners=owners, sessions={ME, OTHER, 31, 32})).take == [0]


def test_one_that_has_only_begun_does_not() -> None:
    core = Core(BUDGET, 0, 100.0)
    core.decide(view(), WANTS, 100.0)
    core.decide(view(sessions={31}), WANTS, 101.0)
    owners = dict.fromkeys(range(3, 10), OTHER)
    assert core.decide(view(owners=owners, fences={3: 31}, sessions={31, 32}), WANTS, 101.2).take == [0, 1, 2]


def test_a_keeper_that_vanished_makes_all_rest() -> None:
    core = Core(BUDGET, 0, 100.0)
    core.decide(view(), WANTS, 102.0)
    alone = view(hosts={0: ME})
    assert core.decide(alone, WANTS, 102.2).take == []
    assert core.decide(alone, WANTS, 102.2 + REST_S).take


def test_what_is_above_the_share_is_given_to_who_waits() -> None:
    owners = dict.fromkeys(range(8), ME)
    host = HostView(used={0, 1, 2, 3, 4, 5}, granted=set(owners), wants=True)
    found = decide(view(owners=owners, waiting={1}), host)
    assert (found.give, found.excess, found.entitled) == ([6, 7], 3, 5)


def test_what_is_idle_is_given_to_who_wants_it() -> None:
    owners = dict.fromkeys(range(4), ME)
    host = HostView(used={0}, granted=set(owners))
    found = decide(view(owners=owners, wanting={1}), host)
    assert (found.give, found.excess, found.others_want) == ([1, 2, 3], 0, True)


def test_a_share_is_taken_before_it_is_needed_once_all_is_quiet() -> None:
    assert decide(view(), HostView(), after_s=QUIET_S - 0.1).take == []
    assert decide(view(), HostView(), after_s=QUIET_S).take == [0, 1, 2, 3, 4]


def test_a_slot_is_lent_once_nobody_stands_on_it() -> None:
    owners = {0: ME, 1: ME, 2: ME}
    found = decide(view(owners=owners, fences={1: 31}, sessions={31}), HostView(granted={2}))
    assert (found.lend, found.give) == ([0], [1])


def test_sessions_of_this_host_are_taken_over() -> None:
    found = decide(view(owners={1: OTHER}, fences={0: 31, 1: 32}), HostView(used={0, 1}))
    assert found.adopt == [0]


def test_orphans_are_ended_for_who_is_below_its_share() -> None:
    found = view(hosts={0: ME}, fences={0: 31, 1: 32, 2: 33}, owners={2: OTHER})
    host = HostView(used={1}, wants=True)
    assert decide(found, host, after_s=ORPHAN_S - 0.1).end == []
    assert decide(found, host, after_s=ORPHAN_S).end == [(0, 31)]
    assert decide(found, HostView(used={1}), after_s=ORPHAN_S).end == []


def test_grants_end_before_the_server_ends_a_silent_keeper() -> None:
    """By more than the longest connect (db.driver.CONNECT_TIMEOUT_S), and later than the slowest tick."""
    assert SLOWEST_TICK_S < GRANT_S < SILENCE_S - 5


class FakeConnection:
    """Answers statements that contain these texts."""

    def __init__(self, answers: dict[str, list[tuple[Any, ...]]]) -> None:
        self._answers = answers
        self._rows: list[tuple[Any, ...]] = []

    def cursor(self) -> "FakeConnection":
        return self

    def execute(self, sql: str) -> None:
        self._rows = next((rows for text, rows in self._answers.items() if text in sql), [(True,)])

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


@pytest.mark.parametrize(
    ("told", "facts", "said"),
    [
        (7, (8, 150000, 64, 100, 0), "process 7 was told at the connect, and 8 answers"),
        (7, (7, 130000, 64, 100, 0), "A fleet needs PostgreSQL 14 or later, and this is 13"),
        (7, (7, 150000, 2, 100, 0), "needs 120 locks, and the server's table has 200 for everybody"),
    ],
)
def test_what_postgresql_cannot_keep_is_refused(told: int, facts: tuple[int, ...], said: str) -> None:
    ledger = PostgreSQLLedger(FakeConnection({"pg_backend_pid": [facts]}), told, "shop")
    with pytest.raises(FleetRefusedError, match=said):
        ledger.join(20, 20)


@pytest.mark.parametrize(
    ("version", "comment", "cluster", "said"),
    [
        ("8.0.30", "(ProxySQL)", "OFF", "ProxySQL stands in front"),
        ("10.11.19-MariaDB", "mariadb.org", "ON", "Galera's nodes do not share GET_LOCK"),
    ],
)
def test_what_mysql_cannot_keep_is_refused(version: str, comment: str, cluster: str, said: str) -> None:
    answers = {"@@version": [(version, comment, 0)], "wsrep": [("wsrep_connected", cluster)]}
    with pytest.raises(FleetRefusedError, match=said):
        MySQLLedger(FakeConnection(answers), "shop").join(20, 20)


def test_names_of_locks() -> None:
    assert len(name("a" * 100, "b", 2**18)) <= 64
    assert name("a", "b", 1) == name("a", "b", 1).lower()
    assert len({key(user, letter) for user in ("a", "b") for letter in "hwvab"}) == 10
    assert all(-(2**31) <= key("a", letter) < 2**31 for letter in "hwvab")


LIMIT = Limit("MariaDB", ("default",), 100, (("max_connections", 100),), others=30, pooled=("default",))


def fleet(**options: Any) -> Settings:
    return layered(Settings(), {"hosts": "fleet", **options}, "test")


def test_the_budget_is_that_of_all_hosts_and_the_rest_is_for_keepers() -> None:
    found = host_budget(fleet(), LIMIT)
    assert (found.budget, found.most_hosts) == (90, 10)  # whatever others hold now: all hosts plan the same
    assert host_budget(fleet(budget=40), LIMIT).most_hosts == 60


def test_a_plan_without_room_for_a_keeper_is_refused() -> None:
    with pytest.raises(PlanError, match=r"Lower the budget to 99 or less"):
        host_budget(fleet(budget=100), LIMIT)


def test_an_engine_of_djangos_is_refused() -> None:
    with pytest.raises(PlanError, match="every alias needs an ENGINE of fullhouse"):
        host_budget(fleet(), Limit("MariaDB", ("default", "other"), 100, LIMIT.parts, pooled=("default",)))
