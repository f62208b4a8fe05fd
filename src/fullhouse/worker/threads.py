"""The threads that run requests, and what passes between them and the loop.

The loop puts requests and wakes threads; threads take requests and sleep when there are none. `_lock` guards the
queue (`admission`) and the numbers of threads. A state belongs to its thread, which alone writes it; the loop reads it.

**As few threads as possible run.** Python runs one of them at a time, so more only get in each other's way, unless
those that run are waiting for something. The loop can see that: it only gets to run itself while no thread computes.
So it wakes one thread for a batch of requests, and while requests wait it looks every few milliseconds how long the
interpreter lets it wait (`concurrency`).

Threads are started when they are needed, and end when they have slept for long.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from fullhouse.worker.admission.concurrency import Concurrency
from fullhouse.worker.admission.queue import Admission, Waiting
from fullhouse.worker.channel import Channel
from fullhouse.worker.http.request import Request

Job = tuple[Channel, Request]
Handler = Callable[[Channel, Request], None]
_LONGEST_BATCH_S = 0.001  # how long a response may wait for those that are made after it
_LONGEST_SLEEP_S = 30.0  # of a thread that is not needed
_PROBE_EVERY_S = 0.001
_PROBE_BUSY_EVERY_S = 0.005
_PROBE_S = 0.0001  # the loop gives up the interpreter so long ...
_BUSY_S = 0.0006  # ... and gets it back later than this only where another thread computes
# No other request waits for one that has run for so long, and for so many times the mean.
_LONG_S = 0.5
_LONG_MEANS = 10


class ThreadState:
    """What one thread runs now. reported: whether the request is already logged as stuck."""

    __slots__ = ("began_s", "channel", "finished", "ident", "native", "reported", "request")

    def __init__(self) -> None:
        self.ident = self.native = 0  # Python's number of the thread, and the system's
        self.channel: Channel | None = None
        self.request: Request | None = None
        self.began_s = 0.0
        self.reported = False
        self.finished = 0


class Owner(Protocol):
    """What the threads ask of the worker, from any of them.

    run_request: must not raise; a thread in which it does is replaced. is_held_up: whether requests that run wait for
    database connections, so that more of them would only wait, too. thread_ends: is called by each thread that ends, to
    close what was opened in it.
    """

    run_request: Handler
    is_held_up: Callable[[], bool]
    thread_ends: Callable[[], object]

    def shed(self, channel: Channel, request: Request) -> None:
        """Answer a request that will not run."""

    def send_made(self) -> None:
        """Called before a thread sleeps: send the responses that are there, unless the loop is about to."""

    def is_loop_lent(self) -> bool:
        """Whether a thread that holds a response for long is found out, and the response sent."""

    def is_loop_running(self) -> bool:
        """Whether a thread is in the loop."""

    def turn_loop(self, wait: bool) -> bool:
        """Run the loop once, and wait in it for what happens next if there is nothing; False: another thread has it."""


class Threads:
    """At most `threads` threads that run every request that `admission` lets through."""

    def __init__(
        self,
        *,
        threads: int,
        admission: Admission[Job],
        owner: Owner,
        log: Any,
    ) -> None:
        self.threads = threads
        self.admission = admission
        self._owner = owner
        self._log = log
        self._concurrency = Concurrency(threads)
        self._lock = threading.Lock()
        self._wakes: SimpleQueue[bool] = SimpleQueue()  # one thread goes on for each; False ends it
        self.states: list[ThreadState] = []
        self._started: list[threading.Thread] = []
        self._own = threading.local()  # the state of a thread of ours
        self._sleeping = 0  # threads that no wake is on its way to
        self._surplus = 0  # threads that are to sleep after their request
        self._looker: ThreadState | None = None  # of a thread that will look for requests before it sleeps
        self._probe_at = 0.0
        self._switch_interval_s = sys.getswitchinterval()

    # the loop

    def put(self, batch: Sequence[Waiting[Job]]) -> None:
        """Hand requests over."""
        now = time.monotonic()
        shed: list[Job] = []
        with self._lock:
            for entry in batch:
                shed += self.admission.offer(entry, now)
            idle = len(self.states) == self._sleeping
            if idle and self._wakes.empty():
                self._wake_locked(1)
        for job in shed:
            self._owner.shed(*job)
        if not idle and self._looker is None:
            self.wake_for_waiting()

    @property
    def waiting(self) -> int:
        """How many requests no thread has taken yet."""
        return self.admission.waiting

    @property
    def is_awake(self) -> bool:
        """Whether any thread runs, or will look for requests before it sleeps."""
        return len(self.states) > self._sleeping

    def wake_for_waiting(self) -> None:
        """Have as many threads run as help, now and then while requests wait. By a thread that runs none itself."""
        now = time.monotonic()
        if not self.admission.waiting or now < self._probe_at:
            return
        busy = self._interpreter_is_busy()
        self._probe_at = now + (_PROBE_BUSY_EVERY_S if busy else _PROBE_EVERY_S)
        held_up = self._owner.is_held_up()
        with self._lock:
            shed = self.admission.expire(now)
            running = self._running_locked(now)
            change = self._concurrency.change(running, self.admission.waiting, busy=busy, held_up=held_up)
            self._surplus = max(0, -change)
            self._let_loop_through()
            if self._wakes.empty():  # else some were woken, and have not had their turn yet
                self._wake_locked(max(change, 1 if not running else 0))
        for job in shed:
            self._owner.shed(*job)

    def leave_one(self) -> None:
        """Let all threads but one sleep after their requests."""
        with self._lock:
            self._surplus = max(0, len(self.states) - self._sleeping - 1)

    def _running_locked(self, now: float) -> int:
        """Threads that run requests, without those whose request takes much longer than others."""
        long_s = max(_LONG_S, _LONG_MEANS * self.admission.service_s)
        long = sum(state.request is not None and now - state.began_s > long_s for state in self.states)
        return max(0, len(self.states) - self._sleeping - long)

    def _interpreter_is_busy(self) -> bool:
        """Whether another thread computes: the interpreter, given up for a moment, then comes back late."""
        sys.setswitchinterval(self._switch_interval_s)
        before = time.monotonic()
        time.sleep(_PROBE_S)
        return time.monotonic() - before > _BUSY_S

    def _let_loop_through(self) -> None:
        """While threads compute all the time, let them hand the interpreter to the loop much sooner.

        The loop gives it up in each of its system calls, and would wait a whole interval after every one of them.
        """
        if self._concurrency.is_full:
            sys.setswitchinterval(self._switch_interval_s / 10)

    @property
    def running(self) -> int:
        """How many requests run."""
        return sum(state.request is not None for state in self.states)

    def in_flight(self) -> int:
        """How many requests wait or run."""
        return self.admission.waiting + self.running

    def stop(self, timeout_s: float) -> None:
        """Let the threads end once nothing waits; wait for them at most `timeout_s` in all."""
        with self._lock:
            started = list(self._started)
        for _ in started:
            self._wakes.put(False)
        deadline = time.monotonic() + timeout_s
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _wake_locked(self, count: int) -> None:
        for _ in range(count):
            if self._sleeping:
                self._sleeping -= 1
                self._wakes.put(True)
            elif len(self.states) < self.threads:
                self._start_locked()

    def _start_locked(self) -> None:
        state = ThreadState()
        thread = threading.Thread(target=self._run, args=(state,), name=f"request-{len(self.states) + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self.states:
                raise
            self._log.error("%s: %d run, of the %d there may be", error, len(self.states), self.threads)
            return
        self.states.append(state)
        self._started.append(thread)
        self._wakes.put(True)

    # any thread

    def _run(self, state: ThreadState) -> None:
        """Run requests until this thread is not needed any more. One that fails makes room for another."""
        state.ident, state.native = threading.get_ident(), threading.get_native_id()
        self._own.state = state
        try:
            self._serve(state)
        except BaseException:
            with suppress(Exception):  # a logger of the site's own may be what has failed
                self._log.exception("A request thread failed; another takes its place")
            self._replace(state)
        finally:
            try:
                self._owner.thread_ends()
            except Exception:
                self._log.exception("Cannot close the connections of a thread that ends")

    def pass_on(self) -> None:
        """The request of the calling thread is about to wait: let another thread run others, or the loop."""
        if getattr(self._own, "state", None) is None or self._looker is not None or not self._wakes.empty():
            return
        if (self.admission.waiting or not self._owner.is_loop_running()) and not self._owner.is_held_up():
            with self._lock:
                self._wake_locked(1)

    def _replace(self, state: ThreadState) -> None:
        with self._lock:
            self._remove_locked(state)
            if self._looker is state:
                self._looker = None
            if self.admission.waiting and self._wakes.empty():
                self._wake_locked(1)

    def _remove_locked(self, state: ThreadState) -> None:
        self.states.remove(state)
        self._started.remove(threading.current_thread())

    def _serve(self, state: ThreadState) -> None:
        while self._is_woken(state):
            is_needed = True
            while is_needed:
                surplus = self._run_jobs(state)
                while not surplus and self._owner.turn_loop(True):
                    surplus = self._run_jobs(state)
                self._owner.send_made()  # which may put more meanwhile, and relies on this thread to look again
                self._looker = None
                is_needed = self._is_needed(surplus=surplus)

    def _is_needed(self, *, surplus: bool) -> bool:
        """Whether requests wait for this thread; if not, it is one of those that sleep."""
        with self._lock:
            needed = self.admission.waiting > 0 and not surplus
            self._sleeping += not needed
            return needed

    def _is_woken(self, state: ThreadState) -> bool:
        """Sleep until woken; False where this thread ends."""
        while True:
            try:
                return self._wakes.get(timeout=_LONGEST_SLEEP_S)
            except Empty:
                with self._lock:
                    if self._wakes.empty():  # no request counts on this thread
                        self._sleeping -= 1
                        self._remove_locked(state)
                        return False

    def _run_jobs(self, state: ThreadState) -> bool:
        """Run requests until none waits, or until this thread is one too many: then True."""
        self._looker = state
        told_loop = now = time.monotonic()
        while True:
            with self._lock:
                job, shed = self.admission.take(now)
            for dropped in shed:
                self._owner.shed(*dropped)
            if job is None:
                return False
            if job[0].gone:
                with self._lock:
                    self.admission.gone()
                self._owner.shed(*job)
                continue
            state.channel, state.request = job
            state.began_s, state.reported = now, False
            self._looker = None
            try:
                self._owner.run_request(*job)
            finally:
                self._looker = state
                state.request = state.channel = None
                state.finished += 1
                now = time.monotonic()
                is_surplus = self._end_job(now - state.began_s)
            if is_surplus:
                return True
            if now - told_loop > _LONGEST_BATCH_S or not self._owner.is_loop_lent():
                self._send_made()
                told_loop = now = time.monotonic()

    def _send_made(self) -> None:
        """Have responses sent before more requests are run: by this thread, if it is the one that runs the loop."""
        if not self._owner.turn_loop(False):
            self._owner.send_made()

    def _end_job(self, service_s: float) -> bool:
        """Count a request that was served; whether its thread is one too many."""
        with self._lock:
            self.admission.served(service_s)
            is_surplus = self._surplus > 0 and len(self.states) - self._sleeping > 1
            self._surplus -= is_surplus
            return is_surplus
