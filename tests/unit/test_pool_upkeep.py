"""What age, suspicion and dead threads do to connections."""

import logging
import threading

import pytest
from pool_fakes import HandTurnedPool

from fullhouse.pool.sessions import Lease, Waiter


def test_a_connection_is_replaced_at_the_end_of_its_life() -> None:
    house = HandTurnedPool(max_lifetime_s=100, idle_timeout_s=None)
    [connection] = house.fill_idle(1)
    house.advance(99.5)
    assert connection.open
    house.advance(1)
    assert not connection.open


def test_a_lent_connection_past_its_life_is_closed_when_it_returns() -> None:
    house = HandTurnedPool(max_lifetime_s=100)
    lease = house.borrow()
    house.advance(101)
    assert lease.connection.open
    house.pool.checkin(lease)
    house.settle()
    assert not lease.connection.open


def test_an_idle_connection_past_its_life_is_not_lent() -> None:
    house = HandTurnedPool(max_lifetime_s=100, check_after_idle_s=None)
    house.fill_idle(1)
    house.clock.now += 100  # and no tick came
    assert house.borrow().connection.number == 2


def test_lifetimes_differ_by_up_to_5_percent() -> None:
    house = HandTurnedPool(max_lifetime_s=100, idle_timeout_s=None, random=lambda: 1.0)
    [connection] = house.fill_idle(1)
    house.advance(95.25)
    assert not connection.open


@pytest.mark.parametrize(("limit_s", "closed_at"), [(60.0, 55.0), (2.0, 1.0)])
def test_a_connection_ends_seconds_before_the_server_would_end_it(limit_s: float, closed_at: float) -> None:
    house = HandTurnedPool()
    house.driver.limit_s = limit_s
    [connection] = house.fill_idle(1)
    house.advance(closed_at - 0.3)
    assert connection.open
    house.advance(0.6)
    assert not connection.open


def test_unused_connections_are_closed_and_the_pool_falls_asleep() -> None:
    house = HandTurnedPool(idle_timeout_s=300)
    house.fill_idle(3)
    house.advance(200)
    used = house.borrow()
    house.pool.checkin(used)
    house.advance(101)
    assert house.driver.alive == [used.connection]
    house.advance(301)
    assert house.driver.alive == []
    assert house.slots.held == 0
    assert house.background.due is None


def test_a_connection_used_a_moment_ago_is_lent_without_a_check() -> None:
    house = HandTurnedPool(check_after_idle_s=1)
    [connection] = house.fill_idle(1)
    connection.alive = False
    house.clock.now += 0.99
    assert isinstance(house.arrive(), Lease)


def test_a_connection_unused_for_longer_is_checked() -> None:
    house = HandTurnedPool(check_after_idle_s=1)
    [connection] = house.fill_idle(1)
    house.clock.now += 1
    waiter = house.arrive()
    assert isinstance(waiter, Waiter)
    house.settle()
    assert waiter.lease.connection is connection
    assert house.driver.connects_tried == 1


def test_one_dead_connection_takes_all_older_ones_with_it() -> None:
    house = HandTurnedPool(check_after_idle_s=1)
    old, older_yet, dead = house.fill_idle(3)
    house.clock.now += 2
    dead.alive = False
    waiter = house.arrive()
    house.settle()
    assert waiter.lease.connection.number == 4
    assert not any(connection.open for connection in (old, older_yet, dead))


def test_a_failed_check_spares_what_was_used_since_it_began() -> None:
    house = HandTurnedPool(check_after_idle_s=1)
    lease = house.borrow()
    house.fill_idle(1)
    house.clock.now += 2
    house.driver.connections[1].alive = False
    first = house.arrive()
    house.clock.now += 0.01
    house.pool.checkin(lease)  # serves the first one
    house.pool.checkin(first.lease)
    house.settle()
    assert house.driver.alive == [lease.connection]


def test_a_broken_connection_takes_the_idle_ones_with_it() -> None:
    house = HandTurnedPool()
    broken, in_use, idle = house.fill(3)
    house.pool.checkin(idle)
    house.pool.checkin(broken, broken=True)
    house.settle()
    assert house.driver.alive == [in_use.connection]
    assert house.slots.held == 1


def test_a_dirty_connection_is_reset_before_anyone_gets_it() -> None:
    house = HandTurnedPool(max_size=1)
    lease = house.borrow()
    lease.connection.changed = True
    waiter = house.arrive()
    house.pool.checkin(lease, dirty=True)
    assert waiter.lease is None
    house.settle()
    assert waiter.lease.connection is lease.connection
    assert not lease.connection.changed


def test_a_dirty_connection_that_cannot_be_reset_is_replaced() -> None:
    house = HandTurnedPool(max_size=1)
    house.driver.can_reset = False
    lease = house.borrow()
    waiter = house.arrive()
    house.pool.checkin(lease, dirty=True)
    house.settle()
    assert not lease.connection.open
    assert waiter.lease.connection.number == 2


def test_an_adapter_that_raises_costs_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    house = HandTurnedPool()
    lease = house.borrow()
    house.driver.reset = lambda connection: 1 / 0
    house.pool.checkin(lease, dirty=True)
    house.settle()
    assert not lease.connection.open
    assert "adapter" in caplog.text


def test_a_leak_is_reported_once_with_the_borrowers_stack(caplog: pytest.LogCaptureFixture) -> None:
    house = HandTurnedPool(leak_after_s=60)
    borrowed, finish = threading.Event(), threading.Event()
    leases: list[Lease] = []

    def a_view_that_forgets() -> None:
        leases.append(house.borrow())
        borrowed.set()
        finish.wait()

    thread = threading.Thread(target=a_view_that_forgets, name="request-7")
    thread.start()
    borrowed.wait()
    with caplog.at_level(logging.WARNING, logger="fullhouse.pool"):
        house.advance(59)
        assert not caplog.records
        house.advance(120)
    finish.set()
    thread.join()
    [record] = caplog.records
    assert "'request-7' has kept a connection for 60" in record.getMessage()
    assert "in a_view_that_forgets" in record.getMessage()
    assert house.pool.statistics().leaks_reported == 1


def test_what_an_ended_thread_left_is_reclaimed() -> None:
    house = HandTurnedPool(max_size=1)
    leases: list[Lease] = []
    thread = threading.Thread(target=lambda: leases.append(house.borrow()))
    thread.start()
    thread.join()
    waiter = house.arrive()
    house.advance(0.25)
    assert leases[0].ended
    assert not leases[0].connection.open
    assert waiter.lease.connection.number == 2
    assert house.pool.statistics().leases_reclaimed == 1
    house.pool.checkin(leases[0])
    assert house.slots.held == 1
