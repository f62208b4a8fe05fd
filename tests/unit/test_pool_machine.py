"""The pool against a model: any order of events keeps its promises.

The model is who stands in line, in which order, and who holds which lease; everything else is asked of the
fake server and the fake slots, which do not believe the pool.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_fakes import FakeConnection, FakeSlots, HandTurnedPool, ServerFullError

from fullhouse.pool.exceptions import CheckoutRefused
from fullhouse.pool.sessions import Lease, Waiter


class PoolMachine(RuleBasedStateMachine):
    @initialize(max_size=st.none() | st.integers(1, 4), budget=st.integers(1, 5))
    def build(self, max_size: int | None, budget: int) -> None:
        self.slots = FakeSlots(budget)
        self.harness = HandTurnedPool(
            slots=self.slots, random=lambda: 0.5, max_size=max_size, max_lifetime_s=40, idle_timeout_s=20
        )
        self.most = min(max_size or budget, budget)
        self.line: list[Waiter[FakeConnection]] = []
        self.held: list[Lease[FakeConnection]] = []

    def take_note(self) -> None:
        """Move those who were served from the model's line to its leases; they must be the first in line."""
        served = [waiter for waiter in self.line if waiter.lease is not None]
        assert served == self.line[: len(served)]
        self.line = self.line[len(served) :]
        for waiter in served:
            self.hold(waiter.lease)

    def hold(self, lease: Lease[FakeConnection]) -> None:
        assert lease.connection.open
        assert not lease.connection.changed
        assert lease.connection not in [other.connection for other in self.held]
        self.held.append(lease)

    # -- What borrowers do

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.arrive_once()

    def arrive_once(self) -> None:
        arrival = self.harness.arrive()
        if isinstance(arrival, Lease):
            assert not self.line
            self.hold(arrival)
        else:
            self.line.append(arrival)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), fate=st.sampled_from(["clean", "clean", "clean", "dirty", "broken"]))
    def check_in(self, data: st.DataObject, fate: str) -> None:
        lease = data.draw(st.sampled_from(self.held))
        self.held.remove(lease)
        lease.connection.changed = fate == "dirty"
        self.harness.pool.checkin(lease, dirty=fate == "dirty", broken=fate == "broken")
        if data.draw(st.booleans()):
            self.harness.pool.checkin(lease)  # once more, by mistake
        self.take_note()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.line))
        self.line.remove(waiter)
        with pytest.raises(CheckoutRefused) as caught:
            self.harness.give_up(waiter)
        assert caught.value.statistics.in_use == len(self.held)
        assert caught.value.statistics.waiting == len(self.line) + 1

    # -- What the background and time do

    @precondition(lambda self: self.harness.background.connects)
    @rule()
    def connect_once(self) -> None:
        self.harness.connect_once()
        self.take_note()

    @precondition(lambda self: self.harness.background.upkeep)
    @rule()
    def upkeep_once(self) -> None:
        self.harness.background.upkeep.popleft()()
        self.take_note()

    @rule()
    def background_catches_up(self) -> None:
        self.harness.settle()
        self.take_note()

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 1.5, 6.0, 25.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.harness.clock.now += seconds

    @precondition(lambda self: self.harness.background.due is not None)
    @rule()
    def ring_the_alarm(self) -> None:
        background = self.harness.background
        self.harness.clock.now = max(self.harness.clock.now, background.due)
        background.due = None
        background.tick()
        self.take_note()

    # -- What the world does

    @rule(refusal=st.sampled_from([None, None, OSError("refused"), ServerFullError("full")]))
    def server_changes(self, refusal: Exception | None) -> None:
        self.harness.driver.refusal = refusal

    @rule()
    def server_kills_sessions(self) -> None:
        for connection in self.harness.driver.alive:
            connection.alive = False

    @rule(can=st.booleans())
    def reset_works_or_not(self, can: bool) -> None:
        self.harness.driver.can_reset = can

    @rule(taken=st.integers(0, 5), pressed=st.booleans())
    def other_pools_change(self, taken: int, pressed: bool) -> None:
        self.slots.taken = min(taken, self.slots.budget - self.slots.held)
        self.slots.pressed = pressed

    # -- What must hold

    @invariant()
    def every_connection_stands_on_a_slot(self) -> None:
        assert self.slots.held == len(self.harness.driver.alive)
        assert self.slots.held + self.slots.taken <= self.slots.budget

    @invariant()
    def no_more_than_allowed(self) -> None:
        statistics = self.harness.pool.statistics()
        assert statistics.total == len(self.harness.driver.alive) <= self.most
        assert statistics.in_use == len(self.held)
        assert statistics.waiting == len(self.line)
        if self.harness.pool.options.max_size is not None:
            assert statistics.total + statistics.connecting <= self.harness.pool.options.max_size

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        assert not self.line or not self.harness.pool._state.idle or self.harness.background.upkeep

    @invariant()
    def no_announcement_without_demand(self) -> None:
        assert not self.slots.waiting or self.line

    @invariant()
    def the_alarm_is_set_while_there_is_anything_to_look_after(self) -> None:
        statistics = self.harness.pool.statistics()
        if statistics.total or statistics.waiting:
            assert self.harness.background.due is not None

    def teardown(self) -> None:
        """In a world that works again everyone is served, and a closed pool leaves nothing behind."""
        if not hasattr(self, "harness"):
            return
        self.harness.driver.refusal = None
        self.slots.taken, self.slots.pressed = 0, False
        for _ in range(20 + len(self.line)):
            self.harness.advance(0.6)
            self.take_note()
            while self.held:
                self.harness.pool.checkin(self.held.pop())
            self.take_note()
        assert not self.line
        while self.held:
            self.harness.pool.checkin(self.held.pop())
        last = self.harness.borrow()
        self.harness.pool.close()
        self.harness.pool.checkin(last)
        self.harness.settle()
        assert (self.harness.driver.alive, self.slots.held, self.slots.waiting) == ([], 0, False)


PoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestPoolMachine = PoolMachine.TestCase
