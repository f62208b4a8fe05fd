"""Parked connections: kept by threads that do nothing with them, and taken for those who wait."""

import pytest
from pool_fakes import HandTurnedPool

from fullhouse.pool.exceptions import CheckoutRefused
from fullhouse.pool.sessions import Waiter
from fullhouse.pool.state import PARKED_FOR_S


def test_a_parked_connection_is_reset_and_lent_to_who_waits() -> None:
    pool = HandTurnedPool(max_size=1)
    parked = pool.borrow()
    parked.connection.changed = True
    assert pool.pool.park(parked)
    waiter = pool.arrive()
    assert isinstance(waiter, Waiter)
    pool.advance(PARKED_FOR_S + 0.5)
    assert pool.give_up(waiter).connection is parked.connection
    assert not parked.connection.changed
    assert not pool.pool.unpark(parked)


def test_a_parked_connection_is_taken_where_the_host_has_no_slot() -> None:
    pool = HandTurnedPool()
    parked = pool.borrow()
    pool.pool.park(parked)
    pool.slots.budget = 1
    waiter = pool.arrive()
    assert isinstance(waiter, Waiter)
    pool.advance(PARKED_FOR_S + 0.5)
    assert pool.give_up(waiter).connection is parked.connection


def test_a_parked_connection_stays_while_nobody_waits() -> None:
    pool = HandTurnedPool(max_size=1)
    parked = pool.borrow()
    pool.pool.park(parked)
    pool.advance(100)
    assert pool.pool.unpark(parked)
    assert not parked.ended


def test_one_that_can_be_opened_is_taken_from_nobody() -> None:
    pool = HandTurnedPool(max_size=2)
    parked = pool.borrow()
    pool.pool.park(parked)
    pool.advance(100)
    other = pool.borrow()
    assert other.connection is not parked.connection
    assert pool.pool.unpark(parked)


def test_a_connection_parked_a_moment_ago_is_not_taken() -> None:
    pool = HandTurnedPool(max_size=1)
    parked = pool.borrow()
    pool.pool.park(parked)
    pool.arrive()
    pool.advance(PARKED_FOR_S - 0.5)
    assert pool.pool.unpark(parked)
    pool.advance(100)
    assert not parked.ended


def test_no_more_are_taken_than_wait() -> None:
    pool = HandTurnedPool(max_size=3)
    parked = pool.fill(3)
    for lease in parked:
        pool.pool.park(lease)
    waiter = pool.arrive()
    assert isinstance(waiter, Waiter)
    pool.advance(PARKED_FOR_S + 0.5)
    assert [lease.ended for lease in parked] == [True, False, False]


def test_a_connection_that_came_back_is_not_taken() -> None:
    pool = HandTurnedPool(max_size=1)
    lease = pool.borrow()
    pool.pool.park(lease)
    pool.pool.checkin(lease)
    assert not pool.pool.park(lease)
    after = pool.borrow()
    pool.arrive()
    pool.advance(PARKED_FOR_S + 0.5)
    assert not after.ended


def test_the_error_names_the_threads_that_keep_connections() -> None:
    pool = HandTurnedPool(max_size=1)
    pool.borrow().is_pinned = True
    pool.advance(12)
    waiter = pool.arrive()
    assert isinstance(waiter, Waiter)
    with pytest.raises(CheckoutRefused, match=r"1 are pinned by a lock or a changed session: MainThread for 12\.0 s\."):
        pool.give_up(waiter)
