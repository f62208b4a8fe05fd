"""The threads of a pool: daemons, started when there is work, ended when it is gone.

Three lanes run jobs in order: one connects, one checks and resets, one closes, so that what hangs in one of them
holds up none of the others. The alarm has a thread of its own, which no driver can
hold up.

Each lane and the alarm has one condition that guards all of its fields. Jobs run without it. Threads are
started without it too, because `Thread.start` waits for the new thread to get going.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("fullhouse.pool")

CONNECT_THREADS = 4
UPKEEP_THREADS = 4
CLOSE_THREADS = 32
"""They do nothing but wait for a server to let go, which one that hangs does not do."""
THREAD_IDLE_S = 5.0
"""A thread without work ends after this time."""


class Lane:
    """Runs jobs in the order in which they come, on up to `max_threads` threads."""

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._max_threads = max_threads
        self._condition = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._threads_free = 0

    def run(self, job: Callable[[], None]) -> None:
        """Have `job` run soon; where no thread can be started, it waits for a free one or the next call."""
        with self._condition:
            self._jobs.append(job)
            if self._threads_free >= len(self._jobs) or self._threads == self._max_threads:
                self._condition.notify()
                return
            self._threads += 1
        if not _start_thread(self._name, self._work):
            with self._condition:
                self._threads -= 1

    def _work(self) -> None:
        while (job := self._wait_job()) is not None:
            try:
                job()
            except BaseException:  # a SystemExit of a signal's receiver, say, must not end a thread of the pool
                logger.exception("A background job of the pool failed.")
            del job  # it holds a connection, which this thread must not keep while it waits

    def _wait_job(self) -> Callable[[], None] | None:
        """The next job; None: none came for a while, and the thread is off the state."""
        with self._condition:
            self._threads_free += 1
            self._condition.wait_for(lambda: self._jobs, THREAD_IDLE_S)
            self._threads_free -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None


class Alarm:
    """Calls back at a time; of several times the earliest counts."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._condition = threading.Condition()
        self._due: float | None = None
        self._running = False

    def wake_at(self, due: float, tick: Callable[[], None]) -> None:
        """Have `tick` called at `due`, or before."""
        with self._condition:
            if self._due is None or due < self._due:
                self._due = due
                self._condition.notify()
            if self._running:
                return
            self._running = True
        if not _start_thread(self._name, lambda: self._work(tick)):
            with self._condition:
                self._running = False

    def _work(self, tick: Callable[[], None]) -> None:
        while self._wait_due():
            try:
                tick()
            except BaseException:
                logger.exception("Pool maintenance failed; it will be tried again in a second.")
                self.wake_at(self._clock() + 1.0, tick)

    def _wait_due(self) -> bool:
        """True when the time has come; False: no time is set, and the thread is off the state."""
        with self._condition:
            while self._due is not None:
                remaining_s = self._due - self._clock()
                if remaining_s <= 0:
                    self._due = None
                    return True
                self._condition.wait(remaining_s)
            self._running = False
            return False


class BackgroundThreads:
    """The pool's `Background` in earnest."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Start anew: in the child of a fork the threads are gone, and their locks may be held for ever."""
        self._connects = Lane(f"fullhouse-pool-{self._name}-connect", CONNECT_THREADS)
        self._upkeep = Lane(f"fullhouse-pool-{self._name}-upkeep", UPKEEP_THREADS)
        self._closes = Lane(f"fullhouse-pool-{self._name}-close", CLOSE_THREADS)
        self._alarm = Alarm(f"fullhouse-pool-{self._name}-alarm", self._clock)

    def run_connect(self, job: Callable[[], None]) -> None:
        """Run `job` in the lane that connects."""
        self._connects.run(job)

    def run_upkeep(self, job: Callable[[], None]) -> None:
        """Run `job` in the lane that checks and resets."""
        self._upkeep.run(job)

    def run_close(self, job: Callable[[], None]) -> None:
        """Run `job` in the lane that closes."""
        self._closes.run(job)

    def wake_at(self, due: float, tick: Callable[[], None]) -> None:
        """Call `tick` at `due` of the clock."""
        self._alarm.wake_at(due, tick)


def _start_thread(name: str, work: Callable[[], None]) -> bool:
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:  # the limit of threads is reached, or the interpreter shuts down
        logger.warning("%s could not be started: %s. The pool continues without it.", name, error)
        return False
    return True
