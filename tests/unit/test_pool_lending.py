"""Who gets which connection, and what a checkout says that gets none."""

from pathlib import Path

import pytest
from pool_fakes import FakeSlots, HandTurnedPool, ServerFullError

from fullhouse.errors import DatabaseError
from fullhouse.pool.exceptions import CheckoutRefused, PoolClosed
from fullhouse.pool.sessions import Lease, Waiter


def test_the_newest_idle_connection_is_lent_first() -> None:
    harness = HandTurnedPool()
    first, second, third = harness.fill_idle(3)
    assert [harness.borrow().connection for _ in range(3)] == [third, second, first]


def test_who_waited_longest_is_served_first() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    line = [harness.arrive() for _ in range(3)]
    served = []
    for waiter in line:
        harness.pool.checkin(lease)
        assert [other.lease is not None for other in line].count(True) == len(served) + 1
        lease = waiter.lease
        served.append(lease)
    assert all(lease is not None for lease in served)


def test_nobody_jumps_the_line() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    waiter = harness.arrive()
    harness.pool.checkin(lease)
    latecomer = harness.arrive()
    assert isinstance(waiter.lease, Lease)
    assert isinstance(latecomer, Waiter)
    assert latecomer.lease is None


def test_a_latecomer_waits_behind_one_whose_connection_is_being_checked() -> None:
    harness = HandTurnedPool(max_size=2)
    harness.fill_idle(2)
    harness.advance(5)
    first = harness.arrive()
    second = harness.arrive()
    harness.background.upkeep.popleft()()
    assert first.lease is not None
    assert second.lease is None


def test_a_waiter_whose_time_is_up_loses_no_connection() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    waiter = harness.arrive()
    harness.pool.checkin(lease)  # between the end of its time and its look into the state
    assert harness.give_up(waiter).connection is lease.connection


def test_a_waiter_that_has_gone_is_handed_nothing() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    waiter = harness.arrive()
    with pytest.raises(CheckoutRefused, match="is exhausted"):
        harness.give_up(waiter)
    harness.pool.checkin(lease)
    assert waiter.lease is None
    assert harness.borrow().connection is lease.connection


def test_an_interrupted_checkout_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()

    def interrupt(waiter: Waiter, timeout_s: float) -> None:
        if lease_returns:
            harness.pool.checkin(lease)
        raise KeyboardInterrupt

    monkeypatch.setattr(Waiter, "wait_called", interrupt)
    lease_returns = False
    with pytest.raises(KeyboardInterrupt):
        harness.pool.checkout()
    assert harness.pool.statistics().waiting == 0
    lease_returns = True
    with pytest.raises(KeyboardInterrupt):
        harness.pool.checkout()
    assert (harness.pool.statistics().waiting, harness.pool.statistics().idle) == (0, 1)


def test_a_second_checkin_of_one_lease_changes_nothing() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    harness.pool.checkin(lease)
    other = harness.borrow()
    harness.pool.checkin(lease, broken=True)
    assert lease.ended
    assert not other.ended
    assert harness.pool.statistics().in_use == 1


def test_exhausted_tells_its_numbers() -> None:
    harness = HandTurnedPool(max_size=2, slots=FakeSlots(25))
    harness.fill(2)
    with pytest.raises(CheckoutRefused, match="is exhausted") as caught:
        harness.borrow()
    assert str(caught.value) == (
        "Pool 'default' is exhausted: no connection within 5 s; connections 2 of 2: 2 in use, 0 idle; "
        "0 connecting, 1 waiting; slots 2 of the host's 25; no connect failed.\n"
        "Keep transactions short, or raise max_size or the host's connection budget."
    )
    assert caught.value.statistics.in_use == 2
    assert isinstance(caught.value, DatabaseError)
    assert harness.pool.statistics().checkouts_refused == 1


def test_down_tells_why_the_last_connect_failed() -> None:
    harness = HandTurnedPool(slots=FakeSlots(25))
    harness.driver.refusal = OSError("connection refused")
    waiter = harness.arrive()
    harness.settle()
    harness.clock.now += 0.2
    with pytest.raises(CheckoutRefused, match="cannot be reached") as caught:
        harness.give_up(waiter)
    assert str(caught.value) == (
        "The database of pool 'default' cannot be reached: no connection within 5 s; connections 0: 0 in use, 0 idle; "
        "0 connecting, 1 waiting; slots 0 of the host's 25; "
        "last connect failure 0.2 s ago: OSError: connection refused.\n"
        "Check that the server is running and that host, port, user and password are correct; the pool keeps trying."
    )
    assert caught.value.__cause__ is harness.driver.refusal


def test_a_connect_that_hangs_means_down() -> None:
    harness = HandTurnedPool()
    waiter = harness.arrive()  # its connect never ends
    harness.clock.now += 5
    with pytest.raises(CheckoutRefused, match="cannot be reached"):
        harness.give_up(waiter)


def test_slots_that_cannot_be_had_are_a_failed_connect() -> None:
    harness = HandTurnedPool()
    harness.slots.acquire_nowait = lambda: Path("/nonexistent/slots").read_bytes()
    with pytest.raises(CheckoutRefused, match=r"FileNotFoundError.*/nonexistent/slots"):
        harness.borrow()
    del harness.slots.acquire_nowait
    harness.advance(0.02)
    harness.borrow()


def test_a_full_server_or_a_missing_slot_does_not_mean_down() -> None:
    full = HandTurnedPool()
    full.driver.refusal = ServerFullError("too many connections")
    with pytest.raises(CheckoutRefused, match="too many connections"):
        full.borrow()
    starved = HandTurnedPool(slots=FakeSlots(0))
    with pytest.raises(CheckoutRefused, match="slots 0 of the host's 0"):
        starved.borrow()


def test_a_pool_with_connections_in_use_is_exhausted_though_connects_fail() -> None:
    harness = HandTurnedPool()
    harness.fill(1)
    harness.driver.refusal = OSError("connection refused")
    with pytest.raises(CheckoutRefused, match="connection refused"):
        harness.borrow()


def test_more_than_max_waiting_are_refused_at_once() -> None:
    harness = HandTurnedPool(max_size=1, max_waiting=1)
    harness.fill(1)
    harness.arrive()
    with pytest.raises(CheckoutRefused, match="as many checkouts wait as max_waiting allows, 1"):
        harness.arrive()
    assert harness.pool.statistics().waiting == 1


def test_a_closed_pool_lends_nothing_and_keeps_nothing() -> None:
    harness = HandTurnedPool(max_size=2)
    harness.fill_idle(2)
    lease, other = harness.fill(2)
    waiter = harness.arrive()
    harness.pool.checkin(other)
    lent_to_waiter = waiter.lease
    second_waiter = harness.arrive()
    harness.pool.close()
    with pytest.raises(PoolClosed, match="is closed"):
        harness.give_up(second_waiter)
    with pytest.raises(PoolClosed, match="is closed"):
        harness.arrive()
    harness.pool.checkin(lease)
    harness.pool.checkin(lent_to_waiter, dirty=True)
    assert (harness.driver.alive, harness.slots.held) == ([], 0)
    harness.pool.close()


def test_a_connect_under_way_is_closed_when_the_pool_was_closed_meanwhile() -> None:
    harness = HandTurnedPool()
    harness.arrive()
    connect = harness.driver.connect

    def connect_while_the_pool_closes() -> object:
        harness.pool.close()
        return connect()

    harness.driver.connect = connect_while_the_pool_closes
    harness.settle()
    assert (harness.driver.alive, harness.slots.held) == ([], 0)


def test_statistics_add_up() -> None:
    harness = HandTurnedPool(max_size=5)
    leases = harness.fill(4)
    harness.pool.checkin(leases[0])
    harness.pool.checkin(leases[1], dirty=True)
    harness.pool.checkin(leases[2], broken=True)  # takes the idle one with it
    statistics = harness.pool.statistics()
    assert (statistics.in_use, statistics.idle, statistics.vetting, statistics.closing) == (1, 0, 1, 2)
    assert (statistics.total, statistics.slots_held, statistics.connects, statistics.checkouts) == (
        4,
        4,
        4,
        4,
    )
    harness.settle()
    statistics = harness.pool.statistics()
    assert (statistics.total, statistics.idle, statistics.closed, statistics.slots_held) == (2, 1, 2, 2)
