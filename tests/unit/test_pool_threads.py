"""The pool with real threads. Events force the races; no sleep and no measured time decides a verdict."""

import itertools
import random
import threading
from collections.abc import Callable, Sequence

import pytest
from pool_fakes import (
    PATIENCE_S,
    FakeConnection,
    FakeDriver,
    FakeSlots,
    HandTurnedPool,
    every_thread_ends,  # noqa: F401 (a fixture)
    pool_threads,
    wait_threads_end,
)

from fullhouse.pool.background import Alarm, Lane
from fullhouse.pool.core import Pool
from fullhouse.pool.exceptions import CheckoutRefused, PoolClosed
from fullhouse.pool.options import PoolOptions
from fullhouse.pool.sessions import Lease, Waiter


def make_pool(driver: FakeDriver, **options: object) -> Pool[FakeConnection]:
    return Pool(driver, FakeSlots(), PoolOptions(**options))


def start(*targets: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, name="borrower") for target in targets]
    for thread in threads:
        thread.start()
    return threads


class HangingDriver(FakeDriver):
    """Whatever is asked of it hangs until the server returns."""

    def __init__(self) -> None:
        super().__init__()
        self.back = threading.Event()
        self.asked = threading.Semaphore(0)

    def hang(self) -> None:
        self.asked.release()
        assert self.back.wait(PATIENCE_S)

    def connect(self, slot: int) -> FakeConnection:
        self.hang()
        return super().connect(slot)

    def check(self, connection: FakeConnection) -> bool:
        self.hang()
        return super().check(connection)

    def reset(self, connection: FakeConnection) -> bool:
        self.hang()
        return super().reset(connection)

    def close(self, connections: Sequence[FakeConnection]) -> list[bool]:
        self.hang()
        return super().close(connections)


def test_borrowers_do_not_wait_for_a_server_that_hangs() -> None:
    driver = HangingDriver()
    driver.back.set()
    pool = make_pool(driver, check_after_idle_s=0, max_size=4)
    to_check, to_reset, to_close = [pool.checkout() for _ in range(3)]
    driver.back.clear()
    pool.checkin(to_close, broken=True)
    pool.checkin(to_reset, dirty=True)
    pool.checkin(to_check)
    with pytest.raises(CheckoutRefused, match="is exhausted"):
        pool.checkout(timeout_s=0.05)
    driver.back.set()
    pool.checkin(pool.checkout())
    pool.close()
    wait_threads_end()
    assert driver.alive == []


def test_a_connect_that_hangs_ends_in_the_pool_when_the_server_returns() -> None:
    driver = HangingDriver()
    pool = make_pool(driver, max_size=1)
    with pytest.raises(CheckoutRefused):
        pool.checkout(timeout_s=0.01)
    driver.asked.acquire()
    driver.back.set()
    pool.checkin(pool.checkout())
    pool.close()
    wait_threads_end()


def test_a_waiter_is_served_as_soon_as_the_server_is_back() -> None:
    class ReturningDriver(FakeDriver):
        def connect(self, slot: int) -> FakeConnection:
            self.refusal = None if self.connects_tried > 3 else OSError("connection refused")
            return super().connect(slot)

    driver = ReturningDriver()
    pool = make_pool(driver, checkout_timeout_s=PATIENCE_S)
    pool.checkin(pool.checkout())
    assert pool.statistics().connects_failed >= 4
    pool.close()


def test_no_connection_is_used_by_two_threads_at_once() -> None:
    driver = FakeDriver()
    pool = make_pool(driver, max_size=3, checkout_timeout_s=PATIENCE_S)
    users: dict[FakeConnection, threading.Lock] = {}
    trouble: list[object] = []

    def borrow_often() -> None:
        for turn in range(200):
            lease = pool.checkout()
            lock = users.setdefault(lease.connection, threading.Lock())
            if not lock.acquire(blocking=False) or not lease.connection.open:
                trouble.append(lease.connection)
            lock.release()
            pool.checkin(lease, dirty=turn % 7 == 0, broken=turn % 50 == 0)

    for thread in start(*[borrow_often] * 12):
        thread.join(PATIENCE_S)
    assert trouble == []
    statistics = pool.statistics()
    assert (statistics.checkouts, statistics.in_use, statistics.waiting) == (2400, 0, 0)
    assert len(driver.alive) <= 3
    pool.close()


@pytest.mark.parametrize("served_in_time", [True, False])
def test_time_is_up_while_a_connection_is_handed_over(served_in_time: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiter woke up at its deadline and has not yet looked: who comes first to the lock decides."""
    time_is_up, look = threading.Event(), threading.Event()

    def wait_called(waiter: Waiter[FakeConnection], timeout_s: float) -> None:
        time_is_up.set()
        assert look.wait(PATIENCE_S)

    pool = make_pool(FakeDriver(), max_size=1)
    lease = pool.checkout()
    monkeypatch.setattr(Waiter, "wait_called", wait_called)
    outcome: list[Lease[FakeConnection] | CheckoutRefused] = []

    def borrow() -> None:
        try:
            outcome.append(pool.checkout())
        except CheckoutRefused as error:
            outcome.append(error)

    [thread] = start(borrow)
    assert time_is_up.wait(PATIENCE_S)
    if served_in_time:
        pool.checkin(lease)
        look.set()
        thread.join(PATIENCE_S)
        assert isinstance(outcome[0], Lease)
        pool.checkin(outcome[0])
    else:
        look.set()
        thread.join(PATIENCE_S)
        pool.checkin(lease)
        assert isinstance(outcome[0], CheckoutRefused)
    assert (pool.statistics().idle, pool.statistics().in_use) == (1, 0)
    pool.close()


def test_closing_wakes_who_waits() -> None:
    pool = make_pool(FakeDriver(), max_size=1, checkout_timeout_s=PATIENCE_S)
    lease = pool.checkout()
    outcome: list[type[Exception]] = []

    def borrow() -> None:
        try:
            pool.checkout()
        except PoolClosed:
            outcome.append(PoolClosed)

    [thread] = start(borrow)
    while not pool.statistics().waiting:
        threading.Event().wait(0.001)
    pool.close()
    thread.join(PATIENCE_S)
    assert outcome == [PoolClosed]
    pool.checkin(lease)


def test_only_background_threads_call_the_driver_and_never_under_the_lock() -> None:
    callers: dict[str, str] = {}

    class WatchedDriver(FakeDriver):
        def __getattribute__(self, name: str) -> object:
            if name in ("connect", "close", "check", "reset"):
                callers[name] = threading.current_thread().name
                assert not harness.pool._lock.locked()
            return super().__getattribute__(name)

    harness = HandTurnedPool(check_after_idle_s=0)
    harness.driver = harness.pool._driver = WatchedDriver()
    harness.pool.checkin(harness.borrow(), dirty=True)
    harness.settle()
    harness.pool.checkin(harness.borrow(), broken=True)
    harness.settle()
    assert set(callers) == {"connect", "close", "check", "reset"}

    callers.clear()
    pool = make_pool(WatchedDriver(), check_after_idle_s=0)
    pool.checkin(pool.checkout(), dirty=True)
    pool.checkin(pool.checkout(), broken=True)
    pool.checkin(pool.checkout())
    pool.checkin(pool.checkout(), broken=True)
    wait_threads_end()
    assert callers == {
        "connect": "fullhouse-pool-default-connect",
        "close": "fullhouse-pool-default-close",
        "check": "fullhouse-pool-default-upkeep",
        "reset": "fullhouse-pool-default-upkeep",
    }


def test_a_lane_survives_a_job_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    lane = Lane("fullhouse-pool-test", 1)
    done = threading.Event()
    lane.run(lambda: 1 / 0)
    lane.run(done.set)
    assert done.wait(PATIENCE_S)
    assert "A background job of the pool failed." in caplog.text


def test_a_lane_runs_no_more_jobs_at_once_than_it_may() -> None:
    lane = Lane("fullhouse-pool-test", 2)
    running = threading.Semaphore(0)
    finish, last = threading.Event(), threading.Event()

    def job() -> None:
        running.release()
        finish.wait(PATIENCE_S)

    lane.run(job)
    lane.run(job)
    lane.run(last.set)
    running.acquire()
    running.acquire()
    assert len(pool_threads()) == 2
    assert not last.is_set()
    finish.set()
    assert last.wait(PATIENCE_S)


def test_where_no_thread_can_be_started_the_pool_recovers_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = make_pool(FakeDriver(), max_size=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CheckoutRefused, match="is exhausted"):
            pool.checkout(timeout_s=0)
    assert "can't start new thread" in caplog.text
    first, second = pool.checkout(), pool.checkout()
    assert first.connection is not second.connection
    pool.checkin(first)
    pool.checkin(second)
    pool.close()


def test_the_alarm_rings_at_the_earliest_time_and_survives_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rings: list[str] = []
    rung = threading.Event()

    def tick() -> None:
        rings.append("ring")
        if len(rings) == 1:
            raise ValueError("the first time fails")
        rung.set()

    seconds = itertools.count(100.0)  # one passes with each look at the clock
    alarm = Alarm("fullhouse-pool-test", lambda: next(seconds))
    alarm.wake_at(100.0 + 3600, tick)
    alarm.wake_at(100.0, tick)
    assert rung.wait(PATIENCE_S)
    assert "the first time fails" in caplog.text


def test_the_numbers_of_a_seeded_generator_are_left_to_the_application() -> None:
    random.seed(7)
    before = random.getstate()
    pool = make_pool(FakeDriver())
    pool.checkin(pool.checkout())
    pool.close()
    wait_threads_end()
    assert random.getstate() == before
