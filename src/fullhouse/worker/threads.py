"""The threads that run requests, and the queue in front of them.

The loop puts requests and wakes threads; threads take requests and go to sleep when there are none. The queue
is bounded by the number of connections, since each has one request in it at most.

**As few threads as possible run.** Python runs one of them at a time, so more only get in each other's way,
unless those that run are waiting for something. The loop can see that: it only gets to run itself while no
thread computes. So it wakes one thread for a batch of requests, and if it comes to run again while requests
still wait, that thread is waiting for something, and it wakes one for each.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from fullhouse.worker.channel import Channel
from fullhouse.worker.request import Request

Job = tuple[Channel, Request]
Handler = Callable[[Channel, Request], None]
_LONGEST_BATCH_S = 0.001  # how long a response may wait for those that are made after it


class _Counter:
    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = 0  # written by one thread only, so that no lock is needed


class Threads:
    """`threads` threads that call `handle` with every request put. `handle` must not raise.

    `wake_loop` is called before a thread goes to sleep, since the loop has to send what it has made.
    """

    def __init__(self, threads: int, handle: Handler, wake_loop: Callable[[], None]) -> None:
        self.threads = threads
        self._handle = handle
        self._wake_loop = wake_loop
        self._jobs: deque[Job] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()  # one thread goes on for each; False ends it
        self._looker: _Counter | None = None  # of a thread that will look for requests before it sleeps
        self._put = 0
        self._beats = 0
        self._seen_progress = -1
        self._counters = [_Counter() for _ in range(threads)]
        self._running = [
            threading.Thread(target=self._run, args=(counter,), name=f"request-{number}", daemon=True)
            for number, counter in enumerate(self._counters)
        ]

    def start(self) -> None:
        for thread in self._running:
            thread.start()

    # the loop

    def put(self, batch: Sequence[Job]) -> None:
        """Hand requests over."""
        self._put += len(batch)
        self._jobs.extend(batch)
        if self._wakes.empty() and self._looker is None:
            self._wakes.put(True)

    @property
    def waiting(self) -> int:
        """How many requests no thread has taken yet."""
        return len(self._jobs)

    def wake_for_waiting(self) -> None:
        """Wake a thread for each request that still waits, because those that run do not get to it."""
        if self._jobs and self._wakes.empty():  # else one was woken, and has not had its turn yet
            for _ in range(min(len(self._jobs), self.threads)):
                self._wakes.put(True)

    def in_flight(self) -> int:
        """How many requests wait or run."""
        return self._put - self._finished()

    def is_stuck(self) -> bool:
        """Whether all threads have been at the same requests since the last call, without any progress."""
        progress = self._finished() + self._beats
        stuck = self.in_flight() >= self.threads and progress == self._seen_progress
        self._seen_progress = progress
        return stuck

    def stop(self, timeout_s: float) -> None:
        """Let the threads end once nothing waits; wait for them at most `timeout_s` in all."""
        for _ in self._running:
            self._wakes.put(False)
        deadline = time.monotonic() + timeout_s
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))

    # any thread

    def beat(self) -> None:
        """Tell that a long request makes progress. Lost updates do no harm."""
        self._beats += 1

    def _finished(self) -> int:
        return sum(counter.finished for counter in self._counters)

    def _run(self, counter: _Counter) -> None:
        while self._wakes.get():
            while self._jobs:
                self._run_jobs(counter)
                self._wake_loop()  # which may put more meanwhile, and relies on this thread to look again
                self._looker = None

    def _run_jobs(self, counter: _Counter) -> None:
        told_loop = time.monotonic()
        while self._jobs:
            try:
                channel, request = self._jobs.popleft()
            except IndexError:  # another thread was faster
                return
            self._looker = None
            self._handle(channel, request)
            self._looker = counter
            counter.finished += 1
            if time.monotonic() - told_loop > _LONGEST_BATCH_S:
                self._wake_loop()
                told_loop = time.monotonic()
