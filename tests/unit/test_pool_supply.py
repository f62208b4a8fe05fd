"""When a pool connects, with how much patience, and what it does about slots."""

from itertools import pairwise

import pytest
from pool_fakes import FakeSlots, HandTurnedPool, ServerFullError

from fullhouse.pool.backoff import Backoff
from fullhouse.pool.exceptions import CheckoutRefused
from fullhouse.pool.state import CONNECT_REST_S, GIVE_BACK_EVERY_S, TURN_S


def test_a_rest_doubles_from_10_ms_to_5_s() -> None:
    backoff = Backoff(*CONNECT_REST_S, random=lambda: 0.0)
    rests = []
    for _ in range(11):
        backoff.failed(100.0)
        rests.append(round(backoff.until - 100.0, 6))
    assert rests == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.0, 5.0]
    backoff.succeeded()
    backoff.failed(100.0)
    assert backoff.until == pytest.approx(100.01)


def test_a_rest_is_jittered_downwards() -> None:
    backoff = Backoff(1.0, 5.0, random=lambda: 1.0)
    backoff.failed(100.0)
    assert backoff.until == pytest.approx(100.75)


def test_nothing_is_opened_before_somebody_waits() -> None:
    harness = HandTurnedPool()
    harness.advance(10)
    assert harness.driver.connections == []
    assert harness.background.due is None


def test_a_connect_that_nobody_needs_any_more_is_not_made() -> None:
    harness = HandTurnedPool()
    lease = harness.borrow()
    waiter = harness.arrive()
    harness.pool.checkin(lease)
    assert waiter.lease is not None
    harness.settle()
    assert harness.driver.connects_tried == 1


def test_a_burst_of_short_loans_needs_few_connections() -> None:
    """50 arrive at once, a connect takes as long as 75 loans: two rounds of connects are made, not 50."""
    harness = HandTurnedPool()
    line = [harness.arrive() for _ in range(50)]
    done: set[int] = set()
    while len(done) < 50:
        for _ in range(len(harness.background.connects)):
            harness.connect_once()
        for _ in range(75):
            for waiter in line:
                if waiter.lease is not None and id(waiter) not in done:
                    done.add(id(waiter))
                    harness.pool.checkin(waiter.lease)
    harness.settle()
    assert len(harness.driver.connections) <= 8


def test_max_size_bounds_what_exists_closing_ones_included() -> None:
    harness = HandTurnedPool(max_size=2)
    leases = harness.fill(2)
    harness.arrive()
    harness.pool.checkin(leases[0], broken=True)
    assert not harness.background.connects
    harness.background.upkeep.popleft()()  # now it is closed
    assert len(harness.background.connects) == 1


def test_while_connects_fail_one_is_tried_at_a_time_after_a_rest() -> None:
    harness = HandTurnedPool(checkout_timeout_s=60)
    harness.fill(1)  # so that new connects are not the only hope
    harness.driver.refusal = OSError("connection refused")
    harness.arrive()
    harness.arrive()
    harness.settle()
    tried_at = []
    tried = harness.driver.connects_tried
    begun = harness.clock.now
    for _ in range(3000):
        harness.advance(0.01)
        if harness.driver.connects_tried > tried:
            assert harness.driver.connects_tried == tried + 1
            tried = harness.driver.connects_tried
            tried_at.append(harness.clock.now - begun)
    rests = [round(later - earlier, 2) for earlier, later in pairwise(tried_at)]
    assert rests[-3:] == [5.0, 5.0, 5.0]
    assert max(rests) == 5.0


def test_who_waits_is_served_soon_after_the_database_returns() -> None:
    """All wait, nobody new arrives, and the rests have grown to their longest."""
    harness = HandTurnedPool(checkout_timeout_s=60)
    harness.driver.refusal = OSError("connection refused")
    waiter = harness.arrive()
    harness.advance(33)
    harness.driver.refusal = None
    harness.advance(0.51)
    assert waiter.lease is not None


def test_a_new_checkout_cuts_the_rest_short() -> None:
    """A connection is in use, lost in a query that hangs: only the newcomer says that it is worth a try."""
    harness = HandTurnedPool(checkout_timeout_s=60)
    harness.fill(1)
    harness.driver.refusal = OSError("connection refused")
    waiter = harness.arrive()
    harness.advance(21)
    harness.driver.refusal = None
    harness.advance(0.6)
    assert waiter.lease is None
    harness.arrive()
    harness.settle()
    assert waiter.lease is not None


def test_an_outage_leaves_nothing_behind() -> None:
    harness = HandTurnedPool(max_size=3)
    leases = harness.fill(3)
    harness.driver.refusal = OSError("connection refused")
    for lease in leases:
        lease.connection.alive = False
        harness.pool.checkin(lease, broken=True)
    with pytest.raises(CheckoutRefused, match="cannot be reached"):
        harness.borrow()
    harness.advance(60)
    assert harness.slots.held == 0
    harness.driver.refusal = None
    assert len(harness.fill(3)) == 3


def test_a_full_server_is_tried_again_within_the_deadline_without_keeping_the_slot() -> None:
    harness = HandTurnedPool(slots=FakeSlots(5))
    harness.driver.refusal = ServerFullError("too many connections")
    waiter = harness.arrive()
    harness.settle()
    assert harness.slots.held == 0
    harness.driver.refusal = None
    harness.advance(0.02)
    assert waiter.lease is not None


def test_a_pool_without_a_slot_says_so_and_looks_again() -> None:
    slots = FakeSlots(3)
    slots.taken = 3
    harness = HandTurnedPool(slots=slots)
    waiter = harness.arrive()
    harness.settle()
    assert slots.waiting
    harness.advance(1)
    slots.taken = 2
    harness.advance(0.02)
    assert waiter.lease is not None
    assert not slots.waiting


def test_a_pool_that_is_served_from_within_withdraws() -> None:
    slots = FakeSlots(1)
    harness = HandTurnedPool(slots=slots)
    lease = harness.borrow()
    harness.arrive()
    harness.settle()
    assert slots.waiting
    harness.pool.checkin(lease)
    assert not slots.waiting


def test_a_slot_of_its_own_that_comes_free_is_taken_without_a_rest() -> None:
    harness = HandTurnedPool(slots=FakeSlots(1))
    lease = harness.borrow()
    waiter = harness.arrive()
    harness.settle()  # no slot
    harness.pool.checkin(lease, broken=True)
    harness.settle()
    assert waiter.lease is not None


def test_a_pool_without_demand_withdraws() -> None:
    slots = FakeSlots(0)
    harness = HandTurnedPool(slots=slots)
    with pytest.raises(CheckoutRefused, match="is exhausted"):
        harness.borrow()
    assert not slots.waiting
    harness.advance(1)
    assert not harness.background.connects
    assert harness.background.due is None


def test_a_pool_at_its_max_size_withdraws_though_others_wait() -> None:
    slots = FakeSlots(10)
    slots.taken = 10
    harness = HandTurnedPool(slots=slots, max_size=1)
    harness.arrive()
    harness.arrive()
    harness.settle()
    assert slots.waiting
    slots.taken = 9
    harness.advance(0.02)
    assert not slots.waiting


def test_under_pressure_a_returned_connection_is_given_back() -> None:
    harness = HandTurnedPool()
    leases = harness.fill(2)
    harness.clock.now += 1
    harness.slots.pressed = True
    harness.pool.checkin(leases[0])
    harness.settle()
    assert harness.slots.held == 1


def test_the_last_connection_is_kept_for_a_turn() -> None:
    """Where there are fewer slots than pools: else each request would connect."""
    harness = HandTurnedPool()
    harness.slots.pressed = True
    (lease,) = harness.fill(1)
    for _ in range(3):
        harness.clock.now += TURN_S / 4
        harness.pool.checkin(lease)
        harness.settle()
        assert harness.slots.held == 1
        lease = harness.fill(1)[0]
    harness.clock.now += TURN_S / 2
    harness.pool.checkin(lease)
    harness.settle()
    assert harness.slots.held == 0


def test_under_pressure_local_waiters_do_not_keep_others_out() -> None:
    """One is given back, and not taken again at once; the next one serves the line."""
    harness = HandTurnedPool()
    leases = harness.fill(3)
    line = [harness.arrive(), harness.arrive()]
    harness.background.connects.clear()  # these hang
    harness.clock.now += 1
    harness.slots.pressed = True
    harness.pool.checkin(leases[0])
    assert line[0].lease is None
    harness.settle()
    assert harness.slots.held == 2
    harness.pool.checkin(leases[1])
    assert line[0].lease is not None


def test_who_gave_a_slot_back_leaves_it_to_others_for_a_while() -> None:
    slots = FakeSlots(2)
    harness = HandTurnedPool(slots=slots)
    leases = harness.fill(2)
    waiter = harness.arrive()
    harness.settle()
    harness.advance(1)
    slots.pressed = True
    harness.pool.checkin(leases[0])
    slots.pressed = False
    tried = harness.driver.connects_tried
    harness.advance(GIVE_BACK_EVERY_S * 0.9)
    assert harness.driver.connects_tried == tried
    harness.advance(GIVE_BACK_EVERY_S * 0.2)
    assert waiter.lease is not None


def test_under_pressure_idle_ones_go_one_after_the_other_the_oldest_first() -> None:
    harness = HandTurnedPool()
    connections = harness.fill_idle(3)
    harness.slots.pressed = True
    harness.advance(0.25)
    assert [connection.open for connection in connections] == [False, True, True]
    harness.advance(GIVE_BACK_EVERY_S)
    assert [connection.open for connection in connections] == [False, False, True]
    harness.slots.pressed = False
    harness.advance(10)
    assert connections[2].open


def test_a_check_that_hangs_is_not_waited_for() -> None:
    harness = HandTurnedPool()
    harness.fill_idle(1)
    harness.clock.now += 5
    waiter = harness.arrive()
    harness.background.upkeep.clear()  # it hangs
    for _ in range(6):
        harness.advance(0.25)
    assert waiter.lease is not None
    assert waiter.lease.connection.number == 2


def test_connects_that_hang_are_followed_by_others() -> None:
    harness = HandTurnedPool()
    waiter = harness.arrive()
    harness.background.connects.clear()  # it hangs
    harness.advance(1.5)
    assert waiter.lease is not None


def test_a_slot_rests_unless_the_server_has_let_its_session_go() -> None:
    hand = HandTurnedPool()
    for lets_go, resting in ((True, 0), (False, 1)):
        hand.driver.lets_go = lets_go
        hand.pool.checkin(hand.borrow(), broken=True)
        hand.settle()
        assert (len(hand.slots.resting), hand.slots.held) == (resting, 0)


def test_a_pool_that_closes_waits_for_all_sessions_at_once() -> None:
    hand = HandTurnedPool()
    closed: list[int] = []
    close = hand.driver.close
    hand.driver.close = lambda connections: (closed.append(len(connections)), close(connections))[1]
    hand.fill_idle(3)
    hand.pool.close()
    assert (closed, hand.slots.held) == ([3], 0)
