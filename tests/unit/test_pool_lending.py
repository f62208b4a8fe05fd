"""Who gets which connection, and what a checkout says that gets none."""

from pathlib import Path

import pytest
from pool_fakes import FakeSlots, HandTurnedPool, ServerFullError

from fullhouse.errors import DatabaseError
from fullhouse.pool.errors import DatabaseDown, PoolClosed, PoolExhausted
from fullhouse.pool.sessions import Lease, Waiter


def test_the_newest_idle_connection_is_lent_first() -> None:
    house = HandTurnedPool()
    first, second, third = house.fill_idle(3)
    assert [house.borrow().connection for _ in range(3)] == [third, second, first]


def test_who_waited_longest_is_served_first() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    line = [house.arrive() for _ in range(3)]
    served = []
    for waiter in line:
        house.pool.checkin(lease)
        assert [other.lease is not None for other in line].count(True) == len(served) + 1
        lease = waiter.lease
        served.append(lease)
    assert all(lease is not None for lease in served)


def test_nobody_jumps_the_line() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    waiter = house.arrive()
    house.pool.checkin(lease)
    latecomer = house.arrive()
    assert isinstance(waiter.lease, Lease)
    assert isinstance(latecomer, Waiter)
    assert latecomer.lease is None


def test_a_latecomer_waits_behind_one_whose_connection_is_being_checked() -> None:
    house = HandTurnedPool(max_size=2)
    house.fill_idle(2)
    house.advance(5)
    first = house.arrive()
    second = house.arrive()
    house.background.upkeep.popleft()()
    assert first.lease is not None
    assert second.lease is None


def test_a_waiter_whose_time_is_up_loses_no_connection() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    waiter = house.arrive()
    house.pool.checkin(lease)  # between the end of its time and its look into the books
    assert house.give_up(waiter).connection is lease.connection


def test_a_waiter_that_has_gone_is_handed_nothing() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    waiter = house.arrive()
    with pytest.raises(PoolExhausted):
        house.give_up(waiter)
    house.pool.checkin(lease)
    assert waiter.lease is None
    assert house.borrow().connection is lease.connection


def test_an_interrupted_checkout_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()

    def interrupt(waiter: Waiter, timeout_s: float) -> None:
        if lease_returns:
            house.pool.checkin(lease)
        raise KeyboardInterrupt

    monkeypatch.setattr(Waiter, "wait_called", interrupt)
    lease_returns = False
    with pytest.raises(KeyboardInterrupt):
        house.pool.checkout()
    assert house.pool.statistics().waiting == 0
    lease_returns = True
    with pytest.raises(KeyboardInterrupt):
        house.pool.checkout()
    assert (house.pool.statistics().waiting, house.pool.statistics().idle) == (0, 1)


def test_a_second_checkin_of_one_lease_changes_nothing() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    house.pool.checkin(lease)
    other = house.borrow()
    house.pool.checkin(lease, broken=True)
    assert lease.ended
    assert not other.ended
    assert house.pool.statistics().in_use == 1


def test_exhausted_tells_its_numbers() -> None:
    house = HandTurnedPool(max_size=2, slots=FakeSlots(25))
    house.fill(2)
    with pytest.raises(PoolExhausted) as caught:
        house.borrow()
    assert str(caught.value) == (
        "Pool 'default' is exhausted: no connection within 5 s; connections 2 of 2: 2 in use, 0 idle; "
        "0 connecting, 1 waiting; slots 2 of the host's 25; no connect failed.\n"
        "Keep transactions short, or give it more: max_size, or the host's budget of connections."
    )
    assert caught.value.statistics.in_use == 2
    assert isinstance(caught.value, DatabaseError)
    assert house.pool.statistics().checkouts_refused == 1


def test_down_tells_why_the_last_connect_failed() -> None:
    house = HandTurnedPool(slots=FakeSlots(25))
    house.driver.refusal = OSError("connection refused")
    waiter = house.arrive()
    house.settle()
    house.clock.now += 0.2
    with pytest.raises(DatabaseDown) as caught:
        house.give_up(waiter)
    assert str(caught.value) == (
        "The database of pool 'default' cannot be reached: no connection within 5 s; connections 0: 0 in use, 0 idle; "
        "0 connecting, 1 waiting; slots 0 of the host's 25; "
        "last connect failure 0.2 s ago: OSError: connection refused.\n"
        "See that the server runs and that host, port, user and password are right; the pool goes on trying."
    )
    assert caught.value.__cause__ is house.driver.refusal


def test_a_connect_that_hangs_means_down() -> None:
    house = HandTurnedPool()
    waiter = house.arrive()  # its connect never ends
    house.clock.now += 5
    with pytest.raises(DatabaseDown):
        house.give_up(waiter)


def test_slots_that_cannot_be_had_are_a_failed_connect() -> None:
    house = HandTurnedPool()
    house.slots.acquire_nowait = lambda: Path("/nonexistent/slots").read_bytes()
    with pytest.raises(DatabaseDown, match=r"FileNotFoundError.*/nonexistent/slots"):
        house.borrow()
    del house.slots.acquire_nowait
    house.advance(0.02)
    house.borrow()


def test_a_full_server_or_a_missing_slot_does_not_mean_down() -> None:
    full = HandTurnedPool()
    full.driver.refusal = ServerFullError("too many connections")
    with pytest.raises(PoolExhausted, match="too many connections"):
        full.borrow()
    starved = HandTurnedPool(slots=FakeSlots(0))
    with pytest.raises(PoolExhausted, match="slots 0 of the host's 0"):
        starved.borrow()


def test_a_pool_with_connections_in_use_is_exhausted_though_connects_fail() -> None:
    house = HandTurnedPool()
    house.fill(1)
    house.driver.refusal = OSError("connection refused")
    with pytest.raises(PoolExhausted, match="connection refused"):
        house.borrow()


def test_more_than_max_waiting_are_refused_at_once() -> None:
    house = HandTurnedPool(max_size=1, max_waiting=1)
    house.fill(1)
    house.arrive()
    with pytest.raises(PoolExhausted, match="as many checkouts wait as max_waiting allows, 1"):
        house.arrive()
    assert house.pool.statistics().waiting == 1


def test_a_closed_pool_lends_nothing_and_keeps_nothing() -> None:
    house = HandTurnedPool(max_size=2)
    house.fill_idle(2)
    lease, other = house.fill(2)
    waiter = house.arrive()
    house.pool.checkin(other)
    lent_to_waiter = waiter.lease
    second_waiter = house.arrive()
    house.pool.close()
    with pytest.raises(PoolClosed, match="is closed"):
        house.give_up(second_waiter)
    with pytest.raises(PoolClosed, match="is closed"):
        house.arrive()
    house.pool.checkin(lease)
    house.pool.checkin(lent_to_waiter, dirty=True)
    assert (house.driver.alive, house.slots.held) == ([], 0)
    house.pool.close()


def test_a_connect_under_way_is_closed_when_the_pool_was_closed_meanwhile() -> None:
    house = HandTurnedPool()
    house.arrive()
    connect = house.driver.connect

    def connect_while_the_pool_closes() -> object:
        house.pool.close()
        return connect()

    house.driver.connect = connect_while_the_pool_closes
    house.settle()
    assert (house.driver.alive, house.slots.held) == ([], 0)


def test_statistics_add_up() -> None:
    house = HandTurnedPool(max_size=5)
    leases = house.fill(4)
    house.pool.checkin(leases[0])
    house.pool.checkin(leases[1], dirty=True)
    house.pool.checkin(leases[2], broken=True)  # takes the idle one with it
    statistics = house.pool.statistics()
    assert (statistics.in_use, statistics.idle, statistics.vetting, statistics.closing) == (1, 0, 1, 2)
    assert (statistics.total, statistics.slots_held, statistics.connects, statistics.checkouts) == (
        4,
        4,
        4,
        4,
    )
    house.settle()
    statistics = house.pool.statistics()
    assert (statistics.total, statistics.idle, statistics.closed, statistics.slots_held) == (2, 1, 2, 2)
