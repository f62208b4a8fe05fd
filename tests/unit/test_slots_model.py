"""Several pools of one process against a model, with the kernel's view from another process beside it."""

from contextlib import contextmanager
from functools import partial
from math import inf

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from slot_process import SlotProcess, is_above_fair_share

from fullhouse.budget.resting import REST_S
from fullhouse.budget.slots import CLAIMS, WAITING, SlotFile

FAIR_SHARES = (1, 2, 3)
LARGEST = 12  # of all budgets here
POOLS = st.integers(0, len(FAIR_SHARES) - 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("slots") / "slots"


@pytest.fixture(scope="module")
def observer(path):
    with SlotProcess(path) as process:
        yield process


def start_over(path, budget):
    """The file with `budget` slots and its search back at slot 0, so that an example repeats exactly."""
    file = SlotFile.open(path, 1)
    for slot in range(LARGEST):
        file.resting.clear(slot)
    share = file.share("first", 1)
    share.release(share.acquire_nowait())
    share.leave()
    return SlotFile.open(path, budget)


class PoolsMachine(RuleBasedStateMachine):
    def __init__(self, path, observer):
        super().__init__()
        self.observer = observer
        self.path = path
        self.budget = 5
        file = start_over(path, self.budget)
        self.shares = [file.share(f"pool{number}", share) for number, share in enumerate(FAIR_SHARES)]
        self.held = [set() for _ in FAIR_SHARES]
        self.wants = [False for _ in FAIR_SHARES]
        self.joined = [False for _ in FAIR_SHARES]
        self.now = 1000.0
        file.resting.clock = lambda: self.now
        self.resting = file.resting
        # By slot, of those that rest: no use before, and use from then on. inf: the rest has not been seen to begin.
        self.not_before = {}
        self.usable_from = {}

    def entitled(self, pool):
        claimed = sum(share for share, joined in zip(FAIR_SHARES, self.joined, strict=True) if joined)
        return FAIR_SHARES[pool] if claimed <= self.budget else FAIR_SHARES[pool] * self.budget // claimed

    def waits(self, pool):
        return self.wants[pool] and len(self.held[pool]) < max(1, self.entitled(pool))

    def other_waits(self, pool):
        return any(self.waits(other) for other in range(len(FAIR_SHARES)) if other != pool)

    def free(self):
        return set(range(self.budget)) - set().union(*self.held)

    @rule(pool=POOLS)
    def acquire(self, pool):
        self.joined[pool] = True
        refused = len(self.held[pool]) >= max(1, self.entitled(pool)) and self.other_waits(pool)
        slot = self.shares[pool].acquire_nowait()
        if refused:
            assert slot is None
        elif slot is None:
            for free in self.free():
                assert self.usable_from.get(free, self.now) > self.now
                self.usable_from[free] = min(self.usable_from[free], self.now + REST_S)
        else:
            assert slot in self.free()
            assert self.not_before.pop(slot, self.now) <= self.now
            self.usable_from.pop(slot, None)
            self.held[pool].add(slot)

    @rule(pool=POOLS, index=st.integers(0, 7))
    def release(self, pool, index):
        if self.held[pool]:
            slot = sorted(self.held[pool])[index % len(self.held[pool])]
            self.shares[pool].release(slot)
            self.held[pool].remove(slot)

    @rule(pool=POOLS, index=st.integers(0, 7))
    def release_unseen(self, pool, index):
        """The session was closed, and nobody saw the server let it go."""
        if self.held[pool]:
            slot = sorted(self.held[pool])[index % len(self.held[pool])]
            self.shares[pool].release(slot, gone=False)
            self.held[pool].remove(slot)
            self.not_before[slot] = self.usable_from[slot] = self.now + REST_S

    @rule(slot=st.integers(0, LARGEST - 1))
    def die(self, slot):
        """Another process opened a session on the slot, and was killed."""
        if slot in self.free():
            self.resting.hold(slot)
            self.not_before[slot] = self.now + REST_S
            self.usable_from[slot] = inf

    @rule(part=st.sampled_from([0.25, 0.5, 1]))
    def time_passes(self, part):
        self.now += part * REST_S

    @rule(pool=POOLS)
    def announce(self, pool):
        self.shares[pool].announce_waiting()
        self.joined[pool] = self.wants[pool] = True

    @rule(pool=POOLS)
    def withdraw(self, pool):
        self.shares[pool].withdraw_waiting()
        self.wants[pool] = False

    @rule(pool=POOLS)
    def leave(self, pool):
        if not self.held[pool]:
            self.shares[pool].leave()
            self.joined[pool] = self.wants[pool] = False

    @rule(budget=st.integers(1, 8))
    def resize(self, budget):
        SlotFile.open(self.path, budget)
        self.budget = budget

    @invariant()
    def pools_agree_with_the_model(self):
        for pool, share in enumerate(self.shares):
            assert share.slots == self.held[pool]
            above = len(self.held[pool]) > self.entitled(pool)
            assert is_above_fair_share(share) == (above and bool(self.held[pool]))
            assert share.must_give_back() == (above and self.other_waits(pool) and not self.free())

    @invariant()
    def kernel_agrees_with_the_model(self):
        locks = [range(*lock) for lock in self.observer.locks()]
        slots = [slot for lock in locks if lock.start < WAITING for slot in lock]
        assert slots == sorted(set().union(*self.held))
        claimed = sum(len(lock) for lock in locks if lock.start >= CLAIMS)
        assert claimed == sum(s for s, joined in zip(FAIR_SHARES, self.joined, strict=True) if joined)

    def teardown(self):
        for share in self.shares:
            for slot in list(share.slots):
                share.release(slot)
            share.leave()
        assert self.observer.locks() == []


def test_pools_follow_the_model_and_leak_nothing(path, observer):
    run_state_machine_as_test(
        partial(PoolsMachine, path, observer),
        settings=settings(max_examples=100, stateful_step_count=40, deadline=None),
    )


@contextmanager
def pools_on(path, budget, fair_shares):
    file = start_over(path, budget)
    pools = [file.share(f"pool{number}", share) for number, share in enumerate(fair_shares)]
    try:
        yield pools
    finally:
        for pool in pools:
            for slot in list(pool.slots):
                pool.release(slot)
            pool.leave()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), budget=st.integers(1, 12))
def test_every_pool_gets_its_share_and_then_all_is_quiet(path, data, budget):
    """Pools that always want more, or are content with less, from any unfair beginning."""
    fair_shares = data.draw(st.lists(st.integers(1, 8), min_size=2, max_size=5))
    entitled = [share * budget // max(budget, sum(fair_shares)) for share in fair_shares]
    assume(min(entitled) >= 1)
    demands = [data.draw(st.integers(0, 12)) for _ in fair_shares]
    with pools_on(path, budget, fair_shares) as pools:
        for hoarder in data.draw(st.permutations(range(len(pools)))):
            for _ in range(data.draw(st.integers(0, budget))):
                pools[hoarder].acquire_nowait()
        moves = [one_round(pools, demands) for _ in range(4 * budget)]
        for pool, share, demand in zip(pools, entitled, demands, strict=True):
            assert pool.held >= min(share, demand)
        assert not any(moves[2 * budget :])


def one_round(pools, demands):
    """Let each pool, in turn, ask for what it lacks and give back what it must; the number of slots moved."""
    moves = 0
    for pool, demand in zip(pools, demands, strict=True):
        if pool.held < demand:
            pool.announce_waiting()
        while pool.held < demand and pool.acquire_nowait() is not None:
            moves += 1
        if pool.held >= demand:
            pool.withdraw_waiting()
        if pool.must_give_back():
            pool.release(min(pool.slots))
            moves += 1
    return moves
