"""Who runs the loop: the main thread, or one of those that run requests.

To hand a request to another thread costs more than most of Django's own work for a small page: Python changes threads
at every system call. So while requests are short, the main thread lends the loop to those that run them: one reads,
runs what it has read, and needs no other. (Leader/Followers: Schmidt et al., "Pattern-Oriented Software
Architecture", volume 2.) But while it waits for a database, nobody else reads or runs anything, unless it passes the
loop on before. Which way is best depends on the page, on how far the database is, and on what else the processors do.
So it is tried out:

**While a request takes less than 3 ms of computing, the worker now and then serves for a moment in each of three ways,
at the same moments as its siblings, and keeps the one in which a request costs least: the main thread runs the loop; a
thread that runs requests does, and passes it on before it waits for a database; or does, and keeps it. A request costs
what the worker computes for it, and what the processors stand idle meanwhile; where all that come are served, the way
that answers soonest is kept instead. Longer requests get their threads from the main thread.**

The main thread looks now and then whether a lent loop turns, and takes it back when a request holds it up.

The thread that holds `LoopTurns._lock` runs the loop, and uses `LoopChoice`; any may read its `way`. `_turns` is
written under the lock. The other fields of `LoopTurns` are single words, and say who writes them.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from queue import Empty, SimpleQueue
from typing import NamedTuple

# How often the main thread looks; a longer request than one to two of these holds no other up.
LOOK_EVERY_S = 0.003
# Requests that compute longer have threads of their own. How long they do is looked at so often.
QUICK_S = 0.003
_LOOK_AT_CPU_EVERY_S = 0.1

# Trials begin at multiples of this on a clock that all processes share, since all compete for the same processors. So
# many rounds, and in each every way, until the threads have found their number, and then for so long.
TRIAL_EVERY_S = 5.0
_ROUNDS = 2
_SETTLE_S = 0.01
_WINDOW_S = 0.025
# What earlier trials have shown counts by so much: the system tells the idle time in steps of 10 ms.
_MEMORY = 0.5
# By fewer answers nothing is known.
_FEWEST = 10
# A loop that is kept has waited for clients for such a part of its time: all that come are served.
_IDLE = 0.1


class Figures(NamedTuple):
    """Of a worker since its start: requests that were answered; in seconds, how long that took from the arrival of
    each, in all, how long the loop waited for events, what the worker computed; and what the processors stood idle."""

    answered: float
    answer_s: float
    waited_s: float
    cpu_s: float
    idle_s: float


class _Seen:
    """What was seen of one way."""

    def __init__(self) -> None:
        self._figures = Figures(0.0, 0.0, 0.0, 0.0, 0.0)
        self._elapsed_s = 0.0

    def add(self, before: Figures, after: Figures, elapsed_s: float) -> None:
        self._figures = Figures(*(sum_ + b - a for sum_, a, b in zip(self._figures, before, after, strict=True)))
        self._elapsed_s += elapsed_s

    def fade(self) -> None:
        self._figures = Figures(*(_MEMORY * figure for figure in self._figures))
        self._elapsed_s *= _MEMORY

    @property
    def is_enough(self) -> bool:
        return self._figures.answered >= _FEWEST

    @property
    def serves_all(self) -> bool:
        """Whether the loop, as it is kept, has waited for clients."""
        return self._figures.waited_s > _IDLE * self._elapsed_s

    @property
    def answer_s(self) -> float:
        return self._figures.answer_s / self._figures.answered

    @property
    def cost_s(self) -> float:
        return (self._figures.cpu_s + self._figures.idle_s) / self._figures.answered


class Way(Enum):
    """How the loop is run."""

    MAIN = "by the main thread"
    PASSED_ON = "by a thread that runs requests, until it waits for a database"
    KEPT = "by a thread that runs requests"


class Trials:
    """Every way in turn. `way`: the present one. `look_at`: when to look next."""

    def __init__(self) -> None:
        self._seen = {way: _Seen() for way in Way}
        self._left: list[Way] = []
        self._windows: list[tuple[Way, Figures, Figures, float]] = []

    def begin(self, now: float) -> None:
        self._windows.clear()
        self._left = _ROUNDS * list(Way)
        self._next(now)

    def _next(self, now: float) -> None:
        self.way = self._left.pop(0)
        self._before: Figures | None = None
        self.look_at = now + _SETTLE_S

    def look(self, now: float, figures: Figures, in_flight: int) -> bool:
        """Go on with the trial; whether it is over. in_flight: requests that are not answered now.

        One in which the requests began to come, or ceased, says nothing: its windows had different loads.
        """
        if self._before is None:
            self._before, self._began_at, self.look_at = figures, now, now + _WINDOW_S
            return False
        if figures.answered == self._before.answered and not in_flight:
            return True
        self._windows.append((self.way, self._before, figures, now - self._began_at))
        if not self._left:
            self._learn()
            return True
        self._next(now)
        return False

    def _learn(self) -> None:
        for seen in self._seen.values():
            seen.fade()
        for way, before, after, elapsed_s in self._windows:
            self._seen[way].add(before, after, elapsed_s)

    @property
    def best(self) -> Way | None:
        """None where too few requests came to know it."""
        if not all(seen.is_enough for seen in self._seen.values()):
            return None
        if self._seen[Way.KEPT].serves_all:
            return min(Way, key=lambda way: self._seen[way].answer_s)
        return min(Way, key=lambda way: self._seen[way].cost_s)


class LoopChoice:
    """Which way is the best now. Pure: the caller brings the time, in monotonic seconds.

    `way`: the present one. `look_at`: when to look next. `is_trying`: whether the idle time will be looked at then.
    """

    def __init__(self) -> None:
        self.way = self._best = Way.KEPT
        self.look_at = 0.0
        self._trial_at = 0.0
        self._trials = Trials()
        self.is_trying = False
        self._is_quick = True
        self._before = Figures(0.0, 0.0, 0.0, 0.0, 0.0)

    def look(self, now: float, figures: Figures, in_flight: int) -> None:
        self._look_at_cpu(figures)
        if self.is_trying and self._trials.look(now, figures, in_flight):
            self.is_trying = False
            self._best = self._trials.best or self._best
        if now >= self._trial_at:
            if self._trial_at and self._is_quick:
                self.is_trying = True
                self._trials.begin(now)
            self._trial_at = now - now % TRIAL_EVERY_S + TRIAL_EVERY_S
        if self.is_trying:
            self.way, self.look_at = self._trials.way, self._trials.look_at
        else:
            self.way = self._best if self._is_quick else Way.MAIN
            self.look_at = min(self._trial_at, now + _LOOK_AT_CPU_EVERY_S)

    def _look_at_cpu(self, figures: Figures) -> None:
        answered = figures.answered - self._before.answered
        if answered >= _FEWEST:
            self._is_quick = figures.cpu_s - self._before.cpu_s < QUICK_S * answered
            self._before = figures


class LoopTurns:
    """Begins in the hands of the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._turns = 0
        self.is_lent = False  # by the main thread; also cleared by the one that runs the loop
        self._recalled = False  # by anyone, for good
        self._error: BaseException | None = None  # of the thread that ran the loop last
        self._main_sleeps = False  # set by the main thread, cleared by the one that wakes it
        self._wakes: SimpleQueue[None] = SimpleQueue()  # may be used in a signal handler, unlike a condition

    # the main thread

    def lend(self) -> None:
        """Let other threads run the loop; return, with it, when they do not any more.

        Raises what went wrong in the loop meanwhile.
        """
        self.is_lent = True
        self._lock.release()
        self._watch()
        self.is_lent = False
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        seen = -1
        while self.is_lent and not self._recalled:
            turned, seen = self._turns != seen, self._turns
            if turned:
                self._sleep(LOOK_EVERY_S)
            elif self._lock.acquire(blocking=False):
                return
            else:
                self._sleep_long()
        self._lock.acquire()

    def _sleep_long(self) -> None:
        """Until the thread that waits for clients in the loop has something to run."""
        self._main_sleeps = True
        if self._lock.locked() and self.is_lent and not self._recalled:
            self._sleep(None)
        self._main_sleeps = False

    def _sleep(self, longest_s: float | None) -> None:
        with suppress(Empty):
            self._wakes.get(timeout=longest_s)

    # any thread

    @property
    def is_running(self) -> bool:
        """Whether a thread is in the loop."""
        return self._lock.locked()

    def turn(self, run_loop: Callable[[], None]) -> bool:
        """Run the loop once, unless another thread does; whether it was run."""
        if self._recalled or not self.is_lent or not self._lock.acquire(blocking=False):
            return False
        try:
            run_loop()
        except BaseException as error:  # the main thread raises it
            self._error = error
            self._recalled = True
        finally:
            self._turns += 1
            self._lock.release()
        if self._main_sleeps:
            self._wake_main()
        return True

    def give_back(self) -> None:
        """Have the main thread run the loop."""
        if self.is_lent:
            self.is_lent = False
            self._wake_main()

    def recall(self) -> None:
        """Have the main thread run the loop from now on. The caller wakes the loop; may be a signal handler."""
        self._recalled = True
        self._wake_main()

    def _wake_main(self) -> None:
        self._main_sleeps = False
        self._wakes.put(None)
