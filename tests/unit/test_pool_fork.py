"""What a forked child does with the pools of its parent, in real processes."""

import json
import os
import select
import signal
import threading
from collections.abc import Callable

import pytest
from pool_fakes import (
    PATIENCE_S,
    FakeConnection,
    FakeDriver,
    FakeSlots,
    every_thread_ends,  # noqa: F401 (a fixture)
)

from fullhouse.pool import forks
from fullhouse.pool.core import Pool
from fullhouse.pool.exceptions import PoolClosed
from fullhouse.pool.options import PoolOptions
from fullhouse.pool.sessions import Lease

# A process with threads that forks is what these tests are about; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_child(report: Callable[[], object]) -> object:
    """What `report` returns in a forked child, which then ends without a clean-up."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(report()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(f"the child failed: {error!r}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], PATIENCE_S)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer or '"the child hung"')


def make_pool(**options: object) -> tuple[Pool[FakeConnection], FakeDriver]:
    driver = FakeDriver()
    return Pool(driver, FakeSlots(), PoolOptions(**options)), driver


def test_a_child_abandons_what_its_parent_had_and_opens_its_own() -> None:
    pool, driver = make_pool(max_size=3)
    lent, idle = pool.checkout(), pool.checkout()
    pool.checkin(idle)

    def report() -> dict[str, object]:
        inherited = list(driver.connections)
        pool.checkin(lent)  # of the parent's, and so ignored
        own = pool.checkout()
        statistics = pool.statistics()
        return {
            "abandoned": [connection.abandoned for connection in inherited],
            "open": [connection.open for connection in inherited],
            "ended": lent.ended,
            "own": own.connection.number,
            "total": statistics.total,
            "in_use": statistics.in_use,
            "connects": statistics.connects,
        }

    assert in_child(report) == {
        "abandoned": [True, True],
        "open": [True, True],  # nobody said goodbye
        "ended": True,
        "own": 3,
        "total": 1,
        "in_use": 1,
        "connects": 1,
    }
    still_there = pool.checkout()
    assert still_there.connection is idle.connection
    pool.checkin(still_there)
    assert not any(connection.abandoned for connection in driver.connections)
    pool.checkin(lent)
    pool.close()


def test_children_forked_in_the_middle_of_anything_work() -> None:
    """Threads borrow, wait and connect at every moment; no child inherits a lock that nobody will let go."""
    pool, _ = make_pool(max_size=2, check_after_idle_s=0, checkout_timeout_s=PATIENCE_S)
    stop = threading.Event()

    def borrow_often() -> None:
        while not stop.is_set():
            lease: Lease[FakeConnection] = pool.checkout()
            pool.checkin(lease, dirty=True)

    def report() -> int:
        lease = pool.checkout()
        pool.checkin(lease)
        return pool.statistics().checkouts

    threads = [threading.Thread(target=borrow_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(report) for _ in range(20)] == [1] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    pool.close()


def test_an_adapter_that_cannot_abandon_does_not_stop_the_other_pools(
    capfd: pytest.CaptureFixture[str],
) -> None:
    bad, bad_driver = make_pool()
    good, _ = make_pool()
    for pool in (bad, good):
        pool.checkin(pool.checkout())
    bad_driver.abandon = lambda connection: 1 / 0

    def report() -> list[int]:
        return [pool.checkout().connection.number for pool in (bad, good)]

    assert in_child(report) == [2, 2]
    bad.close()
    good.close()


def test_a_process_that_must_not_open_connections_is_told_so_and_its_children_may() -> None:
    pool, driver = make_pool()
    forks.forbid_opening("it loads the application for its workers")
    try:
        with pytest.raises(PoolClosed) as caught:
            pool.checkout()
        assert str(caught.value) == (
            f"Pool 'default': process {os.getpid()} must not open connections: "
            "it loads the application for its workers.\n"
            "Query the database in the workers, not while the application is loaded."
        )
        assert driver.connects_tried == 0
        assert in_child(lambda: pool.checkout().connection.number) == 1
    finally:
        forks._forbidden = None
    pool.checkin(pool.checkout())
    pool.close()


def test_a_closed_pool_stays_closed_in_a_child() -> None:
    pool, _ = make_pool()
    pool.close()

    def report() -> str:
        with pytest.raises(PoolClosed):
            pool.checkout()
        return "closed"

    assert in_child(report) == "closed"
