"""What borrowing and returning a clean connection costs, on real slots, in one thread and while others do the same.

Run: PYTHONPATH=src python benchmarks/pool_checkout.py
Goal: 5 µs at the median in one thread.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fullhouse.budget.slots import SlotFile
from fullhouse.pool.core import Pool
from fullhouse.pool.options import PoolOptions

BATCH = 100
BATCHES = 3000


class InstantDriver:
    """Connects to nothing."""

    def connect(self, slot: int) -> object:
        return object()

    def lifetime_limit_s(self, connection: object) -> float | None:
        return None

    def close(self, connections: Sequence[object]) -> list[bool]:
        return [True] * len(connections)

    def abandon(self, connection: object) -> None: ...

    def check(self, connection: object) -> bool:
        return True

    def reset(self, connection: object) -> bool:
        return True

    def server_full(self, error: Exception) -> bool:
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


def measure(pool: Pool[object]) -> None:
    alone = measure_us(pool)
    print(f"one thread:   median {statistics.median(alone):.2f} µs, fastest {min(alone):.2f} µs")
    together: list[float] = []
    threads = [threading.Thread(target=lambda: together.extend(measure_us(pool))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"four threads: {statistics.mean(together) / len(threads):.2f} µs of one core each, on average")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        slots = SlotFile.open(Path(folder) / "slots", budget=8).share("benchmark", fair_share=8)
        pool = Pool(InstantDriver(), slots, PoolOptions(max_size=8))
        measure(pool)
        pool.close()


if __name__ == "__main__":
    main()
