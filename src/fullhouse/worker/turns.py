"""Who runs the loop: the main thread, or a thread between the requests that it runs.

To hand a request to another thread, and its response back, costs more than most of Django's own work for a small page:
Python changes threads at every system call. So while requests are short, the main thread lends the loop to the thread
that runs them: it reads, runs what it has read, sends, and no other thread is needed. (Leader/Followers: Schmidt et
al., "Pattern-Oriented Software Architecture", volume 2.) The main thread looks now and then whether the loop turns,
and takes it back when a request holds it up.

The thread that holds `_lock` runs the loop. `_turns` is written under it. The other fields are single words, and say
who writes them.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

# How often the main thread looks; a longer request than one to two of these holds no other up.
LOOK_EVERY_S = 0.003
# Longer requests are worth a thread of their own ...
QUICK_S = 0.003
# ... and so are those that wait longer for others than it costs to change threads meanwhile.
BRIEFLY_S = 0.001
# After it was lent in vain; twice as long each time, as long as requests are not quick.
_TRY_AGAIN_S = 1.0
_LONGEST_PAUSE_S = 16.0
_WEIGHT = 0.05


class Quickness:
    """Whether requests are so short that the thread which runs them had better run the loop, too.

    Pure: the caller brings the time, in monotonic seconds.
    """

    def __init__(self) -> None:
        self._blocked_s = 0.0
        self._not_before = 0.0
        self._pause_s = _TRY_AGAIN_S

    def is_worth_lending(self, alone_s: float, now: float) -> bool:
        """alone_s: the mean time that a request takes, or would take if no others ran beside it."""
        return alone_s < QUICK_S and now >= self._not_before

    def came_back(self, service_s: float, now: float) -> None:
        """The loop is the main thread's again. service_s: the mean time that requests took."""
        if service_s < QUICK_S:
            self._pause_s = _TRY_AGAIN_S
        else:
            self._pause(now)

    def ran(self, count: int, wall_s: float, cpu_s: float, now: float) -> bool:
        """So many requests ran, alone, in this time, of which the processor worked `cpu_s`; whether to go on so."""
        for _ in range(count):
            self._blocked_s += _WEIGHT * ((wall_s - cpu_s) / count - self._blocked_s)
        if self._blocked_s <= BRIEFLY_S:
            return True
        self._blocked_s = 0.0
        self._pause(now)
        return False

    def _pause(self, now: float) -> None:
        if now >= self._not_before:
            self._not_before = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class LoopTurns:
    """Begins in the hands of the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._turns = 0
        self._lent = False
        self._recalled = False  # by anyone, for good
        self._error: BaseException | None = None  # of the thread that ran the loop last
        self._main_sleeps = False  # set by the main thread, cleared by the one that wakes it
        self._wakes: SimpleQueue[None] = SimpleQueue()  # may be used in a signal handler, unlike a condition

    # the main thread

    def lend(self) -> None:
        """Let other threads run the loop; return, with it, when they do not any more.

        Raises what went wrong in the loop meanwhile.
        """
        self._lent = True
        self._lock.release()
        self._watch()
        self._lent = False
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        seen = -1
        while self._lent and not self._recalled:
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
        if self._lock.locked() and self._lent and not self._recalled:
            self._sleep(None)
        self._main_sleeps = False

    def _sleep(self, longest_s: float | None) -> None:
        with suppress(Empty):
            self._wakes.get(timeout=longest_s)

    # any thread

    def turn(self, run_loop: Callable[[], None]) -> bool:
        """Run the loop once, unless another thread does; whether it was run."""
        if self._recalled or not self._lent or not self._lock.acquire(blocking=False):
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
        self._lent = False
        self._wake_main()

    def recall(self) -> None:
        """Have the main thread run the loop from now on. The caller wakes the loop; may be a signal handler."""
        self._recalled = True
        self._wake_main()

    def _wake_main(self) -> None:
        self._main_sleeps = False
        self._wakes.put(None)
