"""The threads that run requests, and the queue in front of them.

The loop puts, the threads get; the queue itself is the only thing they share. Each thread counts what it
has finished in a place of its own, so nothing here needs a lock. The queue is bounded by the number of
connections: each has one request in it at most.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from fullhouse.worker.channel import Channel
from fullhouse.worker.request import Request

Handler = Callable[[Channel, Request], None]


class _Counter:
    __slots__ = ("finished",)

    def __init__(self) -> None:
        self.finished = 0


class Threads:
    """`threads` threads that call `handle` with every request put. `handle` must not raise."""

    def __init__(self, threads: int, handle: Handler) -> None:
        self.threads = threads
        self._handle = handle
        self._queue: SimpleQueue[tuple[Channel, Request] | None] = SimpleQueue()
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

    def put(self, channel: Channel, request: Request) -> None:
        """Hand a request over. Main thread only."""
        self._put += 1
        self._queue.put((channel, request))

    def in_flight(self) -> int:
        """How many requests wait or run."""
        return self._put - self._finished()

    def beat(self) -> None:
        """Tell that a long request makes progress. Any thread; lost updates do no harm."""
        self._beats += 1

    def is_stuck(self) -> bool:
        """Whether all threads have been at the same requests since the last call, without any progress."""
        progress = self._finished() + self._beats
        stuck = self.in_flight() >= self.threads and progress == self._seen_progress
        self._seen_progress = progress
        return stuck

    def stop(self, timeout_s: float) -> None:
        """Let the threads end, each after what it runs now; wait for them at most `timeout_s` in all."""
        for _ in self._running:
            self._queue.put(None)
        deadline = time.monotonic() + timeout_s
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _finished(self) -> int:
        return sum(counter.finished for counter in self._counters)

    def _run(self, counter: _Counter) -> None:
        while (job := self._queue.get()) is not None:
            self._handle(*job)
            del job  # an idle thread must not keep a request alive
            counter.finished += 1
