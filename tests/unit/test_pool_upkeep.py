"""What age, suspicion and dead threads do to connections."""

import logging
import threading

import pytest
from pool_fakes import HandTurnedPool

from fullhouse.pool.sessions import Lease, Waiter
from fullhouse.pool.state import DOUBTED_AFTER_S, TICK_S, WANTED_AFTER_S


def test_a_connection_is_replaced_at_the_end_of_its_life() -> None:
    harness = HandTurnedPool(max_lifetime_s=100, idle_timeout_s=None)
    [connection] = harness.fill_idle(1)
    harness.advance(99.5)
    assert connection.open
    harness.advance(1)
    assert not connection.open


def test_a_lent_connection_past_its_life_is_closed_when_it_returns() -> None:
    harness = HandTurnedPool(max_lifetime_s=100)
    lease = harness.borrow()
    harness.advance(101)
    assert lease.connection.open
    harness.pool.checkin(lease)
    harness.settle()
    assert not lease.connection.open


def test_an_idle_connection_past_its_life_is_not_lent() -> None:
    harness = HandTurnedPool(max_lifetime_s=100, check_after_idle_s=None)
    harness.fill_idle(1)
    harness.clock.now += 100  # and no tick came
    assert harness.borrow().connection.number == 2


def test_lifetimes_differ_by_up_to_5_percent() -> None:
    harness = HandTurnedPool(max_lifetime_s=100, idle_timeout_s=None, random=lambda: 1.0)
    [connection] = harness.fill_idle(1)
    harness.advance(95.25)
    assert not connection.open


@pytest.mark.parametrize(("limit_s", "closed_at"), [(60.0, 55.0), (2.0, 1.0)])
def test_a_connection_ends_seconds_before_the_server_would_end_it(limit_s: float, closed_at: float) -> None:
    harness = HandTurnedPool()
    harness.driver.limit_s = limit_s
    [connection] = harness.fill_idle(1)
    harness.advance(closed_at - 0.3)
    assert connection.open
    harness.advance(0.6)
    assert not connection.open


def test_unused_connections_are_closed_and_the_pool_falls_asleep() -> None:
    harness = HandTurnedPool(idle_timeout_s=300)
    harness.fill_idle(3)
    harness.advance(200)
    used = harness.borrow()
    harness.pool.checkin(used)
    harness.advance(101)
    assert harness.driver.alive == [used.connection]
    harness.advance(301)
    assert harness.driver.alive == []
    assert harness.slots.held == 0
    assert harness.background.due is None


def test_a_connection_used_a_moment_ago_is_lent_without_a_check() -> None:
    harness = HandTurnedPool(check_after_idle_s=1)
    [connection] = harness.fill_idle(1)
    connection.alive = False
    harness.clock.now += 0.99
    assert isinstance(harness.arrive(), Lease)


def test_a_connection_unused_for_longer_is_checked() -> None:
    harness = HandTurnedPool(check_after_idle_s=1)
    [connection] = harness.fill_idle(1)
    harness.clock.now += 1
    waiter = harness.arrive()
    assert isinstance(waiter, Waiter)
    harness.settle()
    assert waiter.lease.connection is connection
    assert harness.driver.connects_tried == 1


@pytest.mark.parametrize(("check_after_idle_s", "is_checked"), [(1, True), (None, False)])
def test_a_connection_that_was_lent_for_long_is_checked(check_after_idle_s: float | None, is_checked: bool) -> None:
    harness = HandTurnedPool(check_after_idle_s=check_after_idle_s)
    harness.fill_idle(1)
    lease = harness.borrow()
    harness.clock.now += DOUBTED_AFTER_S
    lease.connection.alive = False
    harness.pool.checkin(lease)
    harness.settle()
    assert lease.connection.open == (not is_checked)


def test_what_is_idle_is_closed_where_other_hosts_want_it() -> None:
    harness = HandTurnedPool(idle_timeout_s=300)
    harness.fill_idle(2)
    harness.advance(WANTED_AFTER_S)
    assert len(harness.driver.alive) == 2
    harness.slots.idle_wanted = True
    used = harness.borrow()
    harness.advance(2 * TICK_S)
    assert harness.driver.alive == [used.connection]
    harness.pool.checkin(used)
    harness.advance(WANTED_AFTER_S + TICK_S)
    assert harness.driver.alive == []


def test_one_dead_connection_takes_all_older_ones_with_it() -> None:
    harness = HandTurnedPool(check_after_idle_s=1)
    old, older_yet, dead = harness.fill_idle(3)
    harness.clock.now += 2
    dead.alive = False
    waiter = harness.arrive()
    harness.settle()
    assert waiter.lease.connection.number == 4
    assert not any(connection.open for connection in (old, older_yet, dead))


def test_a_failed_check_spares_what_was_used_since_it_began() -> None:
    harness = HandTurnedPool(check_after_idle_s=1)
    lease = harness.borrow()
    harness.fill_idle(1)
    harness.clock.now += 2
    harness.driver.connections[1].alive = False
    first = harness.arrive()
    harness.clock.now += 0.01
    harness.pool.checkin(lease)  # serves the first one
    harness.pool.checkin(first.lease)
    harness.settle()
    assert harness.driver.alive == [lease.connection]


def test_a_broken_connection_takes_the_idle_ones_with_it() -> None:
    harness = HandTurnedPool()
    broken, in_use, idle = harness.fill(3)
    harness.pool.checkin(idle)
    harness.pool.checkin(broken, broken=True)
    harness.settle()
    assert harness.driver.alive == [in_use.connection]
    assert harness.slots.held == 1


def test_a_dirty_connection_is_reset_before_anyone_gets_it() -> None:
    harness = HandTurnedPool(max_size=1)
    lease = harness.borrow()
    lease.connection.changed = True
    waiter = harness.arrive()
    harness.pool.checkin(lease, dirty=True)
    assert waiter.lease is None
    harness.settle()
    assert waiter.lease.connection is lease.connection
    assert not lease.connection.changed


def test_a_dirty_connection_that_cannot_be_reset_is_replaced() -> None:
    harness = HandTurnedPool(max_size=1)
    harness.driver.can_reset = False
    lease = harness.borrow()
    waiter = harness.arrive()
    harness.pool.checkin(lease, dirty=True)
    harness.settle()
    assert not lease.connection.open
    assert waiter.lease.connection.number == 2


def test_an_adapter_that_raises_costs_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    harness = HandTurnedPool()
    lease = harness.borrow()
    harness.driver.reset = lambda connection: 1 / 0
    harness.pool.checkin(lease, dirty=True)
    harness.settle()
    assert not lease.connection.open
    assert "adapter" in caplog.text


def test_a_leak_is_reported_once_with_the_borrowers_stack(caplog: pytest.LogCaptureFixture) -> None:
    harness = HandTurnedPool(leak_after_s=60)
    borrowed, finish = threading.Event(), threading.Event()
    leases: list[Lease] = []

    def a_view_that_forgets() -> None:
        leases.append(harness.borrow())
        borrowed.set()
        finish.wait()

    thread = threading.Thread(target=a_view_that_forgets, name="request-7")
    thread.start()
    borrowed.wait()
    with caplog.at_level(logging.WARNING, logger="fullhouse.pool"):
        harness.advance(59)
        assert not caplog.records
        harness.advance(120)
    finish.set()
    thread.join()
    [record] = caplog.records
    assert "'request-7' has kept a connection for 60" in record.getMessage()
    assert "in a_view_that_forgets" in record.getMessage()
    assert harness.pool.statistics().leaks_reported == 1


def test_what_an_ended_thread_left_is_reclaimed() -> None:
    harness = HandTurnedPool(max_size=1)
    leases: list[Lease] = []
    thread = threading.Thread(target=lambda: leases.append(harness.borrow()))
    thread.start()
    thread.join()
    waiter = harness.arrive()
    harness.advance(0.25)
    assert leases[0].ended
    assert not leases[0].connection.open
    assert waiter.lease.connection.number == 2
    assert harness.pool.statistics().leases_reclaimed == 1
    harness.pool.checkin(leases[0])
    assert harness.slots.held == 1
