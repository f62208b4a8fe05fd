"""What slots cost: PYTHONPATH=src python benchmarks/slots.py (Linux or macOS, a few seconds, no server).

Prints medians in microseconds: of the record locks alone, of `Share` on top of them, of the same with
8 processes at once, of an attempt on a full file, and of the time from SIGKILL until the slot is free.
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from fullhouse.budget.slots import SlotFile
from fullhouse.record_locks import try_lock, unlock

PROCESSES = 8
CALLS = 20_000
KILLS = 50


def median_us(call: Callable[[], object], calls: int = CALLS) -> float:
    """The median time of one call."""
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


@contextmanager
def child(work: Callable[[], object]) -> Iterator[tuple[int, int]]:
    """A forked process: its id, and a pipe with the line that `work` returns; it stays until it is killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, f"{work()}\n".encode())
        signal.pause()
    os.close(writing)
    try:
        yield pid, reading
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def crowd(work: Callable[[int], object]) -> Iterator[list[str]]:
    """What `work(number)` answers in each of 8 processes that run it at once; they stay for the block."""
    with ExitStack() as stack:
        pipes = [stack.enter_context(child(partial(work, number)))[1] for number in range(PROCESSES)]
        yield [os.read(pipe, 100).decode() for pipe in pipes]


def cycle(file: SlotFile) -> Callable[[], None]:
    share = file.share("benchmark", 1)
    return lambda: share.release(share.acquire_nowait())


def take_every_eighth(file: SlotFile, budget: int, first: int) -> int:
    """Lock slots so that those of a crowd alternate: the longest way for who looks for a free one."""
    return sum(try_lock(file.descriptor, slot) for slot in range(first, budget, PROCESSES))


def after_kill_us(file: SlotFile) -> float:
    """The time from SIGKILL of the owner of the only slot until another process gets it."""
    share = file.share("survivor", 1)
    with child(lambda: file.share("victim", 1).acquire_nowait()) as (pid, pipe):
        os.read(pipe, 100)
        start = time.perf_counter_ns()
        os.kill(pid, signal.SIGKILL)
        while (slot := share.acquire_nowait()) is None:
            pass
        end = time.perf_counter_ns()
    share.release(slot)
    share.leave()
    return (end - start) / 1000


def figures(folder: Path) -> Iterator[tuple[str, float]]:
    alone = SlotFile.open(folder / "alone", budget=25)
    yield (
        "record lock and unlock, alone",
        median_us(lambda: (try_lock(alone.descriptor, 24), unlock(alone.descriptor, 24, 1))),
    )
    yield "Share.acquire_nowait and release, alone", median_us(cycle(alone))
    share = alone.share("keeper", 1)
    share.acquire_nowait()
    yield "Share.must_give_back, nobody waits", median_us(share.must_give_back)

    common = SlotFile.open(folder / "common", budget=25)
    with crowd(lambda _: median_us(cycle(common))) as medians:
        yield f"acquire and release, {PROCESSES} processes at once", statistics.median(map(float, medians))

    for budget in (25, 200):
        full = SlotFile.open(folder / f"full-{budget}", budget)
        with crowd(partial(take_every_eighth, full, budget)):
            late = full.share("late", 1)
            yield (
                f"acquire refused, {budget} slots of {PROCESSES} processes",
                median_us(late.acquire_nowait, 1000),
            )

    killed = SlotFile.open(folder / "killed", budget=1)
    yield (
        f"from SIGKILL until the slot is free, {KILLS} times",
        statistics.median(after_kill_us(killed) for _ in range(KILLS)),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, value in figures(Path(folder)):
            sys.stdout.write(f"{name:55} {value:10.2f} µs\n")


if __name__ == "__main__":
    main()
