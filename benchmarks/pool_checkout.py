"""What borrowing and returning a clean connection costs, in one thread and while others do the same.

Run: PYTHONPATH=src python benchmarks/pool_checkout.py
Goal: 5 µs at the median in one thread.
"""

import itertools
import statistics
import threading
import time

from fullhouse.pool.core import Pool
from fullhouse.pool.options import PoolOptions

BATCH = 100
BATCHES = 3000


class InstantDriver:
    """Connects to nothing."""

    def connect(self) -> object:
        return object()

    def lifetime_limit_s(self, connection: object) -> float | None:
        return None

    def close(self, connection: object) -> None: ...

    def abandon(self, connection: object) -> None: ...

    def check(self, connection: object) -> bool:
        return True

    def reset(self, connection: object) -> bool:
        return True

    def server_full(self, error: Exception) -> bool:
        return False


class EndlessSlots:
    """A budget that never runs out."""

    held = 0
    budget = 1000

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def acquire_nowait(self) -> int | None:
        return next(self._numbers)

    def release(self, slot: int) -> None: ...

    def announce_waiting(self) -> None: ...

    def withdraw_waiting(self) -> None: ...

    def must_give_back(self) -> bool:
        return False


def measure_us(pool: Pool[object]) -> list[float]:
    """Microseconds for one checkout and its checkin, each the mean of a batch."""
    results = []
    for _ in range(BATCHES):
        begun = time.perf_counter()
        for _ in range(BATCH):
            pool.checkin(pool.checkout())
        results.append((time.perf_counter() - begun) / BATCH * 1e6)
    return results


def main() -> None:
    pool = Pool(InstantDriver(), EndlessSlots(), PoolOptions(max_size=8))
    alone = measure_us(pool)
    print(f"one thread:   median {statistics.median(alone):.2f} µs, fastest {min(alone):.2f} µs")
    together: list[float] = []
    threads = [threading.Thread(target=lambda: together.extend(measure_us(pool))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"four threads: {statistics.mean(together) / len(threads):.2f} µs of one core each, on average")
    pool.close()


if __name__ == "__main__":
    main()
