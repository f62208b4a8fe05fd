"""A database, slots and threads to drive a pool by hand, without a server and without waiting."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from fullhouse.pool import background
from fullhouse.pool.core import Pool
from fullhouse.pool.options import PoolOptions
from fullhouse.pool.sessions import Lease, Waiter

PATIENCE_S = 30.0  # never reached, unless a test fails


class FakeConnection:
    """What the fake server knows of one session."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive = True
        self.open = True
        self.abandoned = False
        self.changed = False  # its session state

    def __repr__(self) -> str:
        return f"<connection {self.number}>"


class ServerFullError(Exception):
    """What the fake server says when it has no session left."""


class FakeDriver:
    """A server that does what the test says."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []
        self.refusal: Exception | None = None  # raised by connect
        self.can_reset = True
        self.limit_s: float | None = None
        self.connects_tried = 0
        self.lets_go = True  # of sessions that are closed

    @property
    def alive(self) -> list[FakeConnection]:
        return [connection for connection in self.connections if connection.open]

    def connect(self, slot: int) -> FakeConnection:
        self.connects_tried += 1
        if self.refusal is not None:
            raise self.refusal
        self.connections.append(FakeConnection(len(self.connections) + 1))
        return self.connections[-1]

    def lifetime_limit_s(self, connection: FakeConnection) -> float | None:
        return self.limit_s

    def close(self, connections: Sequence[FakeConnection]) -> list[bool]:
        for connection in connections:
            assert connection.open
            connection.open = False
        return [self.lets_go] * len(connections)

    def abandon(self, connection: FakeConnection) -> None:
        connection.abandoned = True

    def check(self, connection: FakeConnection) -> bool:
        assert connection.open
        return connection.alive

    def reset(self, connection: FakeConnection) -> bool:
        assert connection.open
        connection.changed = not self.can_reset
        return self.can_reset

    def server_full(self, error: Exception) -> bool:
        return isinstance(error, ServerFullError)


class FakeSlots:
    """A budget of this pool alone. `taken` of it are others'; `pressed` says that they want more."""

    def __init__(self, budget: int = 100) -> None:
        self.budget = budget
        self.taken = 0
        self.pressed = self.idle_wanted = False
        self.waiting = False
        self.resting: list[int] = []
        self._free = list(range(budget))
        self._owned: set[int] = set()

    @property
    def held(self) -> int:
        return len(self._owned)

    def acquire_nowait(self) -> int | None:
        if self.held + self.taken >= self.budget:
            return None
        slot = self._free.pop()
        self._owned.add(slot)
        return slot

    def release(self, slot: int, *, gone: bool) -> None:
        self._owned.remove(slot)
        self._free.append(slot)
        if not gone:
            self.resting.append(slot)

    def announce_waiting(self) -> None:
        assert not self.waiting
        self.waiting = True

    def withdraw_waiting(self) -> None:
        assert self.waiting
        self.waiting = False

    def must_give_back(self) -> bool:
        return self.pressed

    def others_want_idle(self) -> bool:
        return self.idle_wanted


class FakeClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HandTurnedBackground:
    """Keeps jobs until the test runs them."""

    def __init__(self) -> None:
        self.connects: deque[Callable[[], None]] = deque()
        self.upkeep: deque[Callable[[], None]] = deque()
        self.due: float | None = None
        self.tick: Callable[[], None] | None = None

    def run_connect(self, job: Callable[[], None]) -> None:
        self.connects.append(job)

    def run_upkeep(self, job: Callable[[], None]) -> None:
        self.upkeep.append(job)

    def run_close(self, job: Callable[[], None]) -> None:
        self.upkeep.append(job)

    def wake_at(self, due: float, tick: Callable[[], None]) -> None:
        self.due = due if self.due is None else min(self.due, due)
        self.tick = tick

    def forget(self) -> None:
        self.__init__()


class HandTurnedPool:
    """A pool in one thread: arrivals do not block, background jobs run when told, time passes when told."""

    def __init__(self, *, slots: FakeSlots | None = None, random: Callable[[], float] = lambda: 0.0, **options):
        self.clock = FakeClock()
        self.driver = FakeDriver()
        self.slots = slots or FakeSlots()
        self.background = HandTurnedBackground()
        self.pool: Pool[FakeConnection] = Pool(
            self.driver,
            self.slots,
            PoolOptions(**options),
            clock=self.clock,
            random=random,
            background=self.background,
        )

    def arrive(self) -> Lease[FakeConnection] | Waiter[FakeConnection]:
        """The first half of a checkout: a lease, or a place in the line."""
        with self.pool._lock:
            lease = self.pool._state.lend_nowait(threading.current_thread(), self.clock())
        if lease is not None:
            return lease
        waiter, actions = self.pool._join_line()
        self.pool._run(actions)
        return waiter

    def give_up(self, waiter: Waiter[FakeConnection]) -> Lease[FakeConnection]:
        """The second half, when the time of a waiter is up: its lease after all, or the error."""
        return self.pool._stop_waiting(waiter, self.pool.options.checkout_timeout_s)

    def borrow(self) -> Lease[FakeConnection]:
        """A whole checkout, for which the background does what there is to do."""
        arrival = self.arrive()
        if isinstance(arrival, Lease):
            return arrival
        self.settle()
        return self.give_up(arrival)

    def settle(self) -> None:
        """Run the background's jobs until none is left."""
        while self.background.connects or self.background.upkeep:
            (self.background.connects or self.background.upkeep).popleft()()

    def connect_once(self) -> None:
        """Run one of the jobs that connect."""
        self.background.connects.popleft()()

    def advance(self, seconds: float) -> None:
        """Let time pass: the alarm goes off whenever it is due, and jobs take no time."""
        end = self.clock.now + seconds
        self.settle()
        while self.background.due is not None and self.background.due <= end:
            self.clock.now = max(self.clock.now, self.background.due)
            self.background.due = None
            self.background.tick()
            self.settle()
        self.clock.now = end

    def fill(self, count: int) -> list[Lease[FakeConnection]]:
        """Borrow so many at once."""
        return [self.borrow() for _ in range(count)]

    def fill_idle(self, count: int) -> list[FakeConnection]:
        """Have so many idle, returned in the order of their numbers."""
        leases = self.fill(count)
        for lease in leases:
            self.pool.checkin(lease)
        return [lease.connection for lease in leases]


@pytest.fixture(autouse=True)
def every_thread_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pool's threads end by themselves; a test that keeps one alive fails."""
    monkeypatch.setattr(background, "THREAD_IDLE_S", 0.01)
    yield
    wait_threads_end()


def pool_threads() -> list[threading.Thread]:
    """The threads of all pools."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fullhouse-pool")]


def wait_threads_end() -> None:
    """All work is done, and the threads of all pools have ended."""
    for thread in pool_threads():
        thread.join(PATIENCE_S)
    assert pool_threads() == []
