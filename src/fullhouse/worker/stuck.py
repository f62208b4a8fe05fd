"""Requests that run for too long: logged, their query cancelled, their client answered; nothing is raised into them.

A site that sets no time for its requests is only warned while they leave no thread free: they may be long on purpose.

`StuckRequests.look` runs in the loop's thread. Cancelling a query takes a connect, so it has a thread of its own.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from fullhouse.worker.channel import Channel
from fullhouse.worker.http.request import Request
from fullhouse.worker.threads import ThreadState
from fullhouse.worker.time_limits import TimeLimits

# What a thread gets to come back once its query is cancelled, before its worker is replaced.
GRACE_S = 5.0
# Where gunicorn's `timeout` is 0: how long no thread may have become free before the log says so.
DEFAULT_ALL_BUSY_S = 30.0


class Queries(Protocol):
    """The statements that threads run, by thread identifier."""

    def statement_of(self, thread: int) -> str | None: ...
    def cancel(self, thread: int, began_before_s: float) -> str | None: ...


class NoQueries:
    """Where none are known."""

    def statement_of(self, thread: int) -> str | None:
        return None

    def cancel(self, thread: int, began_before_s: float) -> str | None:
        return None


def describe(state: ThreadState, now: float, queries: Queries) -> str:
    """A request that runs: its path, age, statement and stack."""
    request = state.request
    if request is None:
        return "a request that has just ended"
    frame = sys._current_frames().get(state.ident)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    sql = queries.statement_of(state.ident)
    running = f"\nrunning SQL: {sql}" if sql else ""
    return f"{request.method} {request.path}, running for {now - state.began_s:.1f} s{running}\n{stack}".rstrip()


class StuckRequests:
    """give_up: answers the client of a request. replace: has this worker replaced, its other requests unharmed.

    threads: as many there may be. all_busy_s: how long none of them may have become free before the log says so.
    """

    def __init__(
        self,
        limits: TimeLimits,
        queries: Queries,
        log: Any,
        give_up: Callable[[Channel, Request], None],
        replace: Callable[[], None],
        *,
        threads: int,
        all_busy_s: float,
    ) -> None:
        self._limits = limits
        self._queries = queries
        self._log = log
        self._give_up = give_up
        self._replace = replace
        self._replacing = False
        self._threads = threads
        self._all_busy_s = all_busy_s
        self._all_busy_logged = False

    def look(self, states: Iterable[ThreadState], now: float) -> None:
        """Deal with those that are over their time at `now`, in monotonic seconds."""
        states = list(states)
        self._look_for_free_thread(states, now)
        late: list[int] = []
        for state in states:
            channel, request = state.channel, state.request
            if channel is None or request is None:
                continue
            over_s = now - state.began_s - self._limits.of(request)
            if over_s > 0 and not state.reported:
                state.reported = True
                late.append(state.ident)
                self._log.warning("A request exceeded its time limit: %s", describe(state, now, self._queries))
                self._give_up(channel, request)
            elif over_s > GRACE_S and state.reported and not self._replacing:
                self._replacing = True
                self._log.error(
                    "A request does not end: %s\nThis worker will finish its other requests and be replaced.",
                    describe(state, now, self._queries),
                )
                self._replace()
        if late:
            try:
                threading.Thread(target=self._cancel, args=(late, now), name="fullhouse-cancel", daemon=True).start()
            except RuntimeError as error:  # as many threads as the system allows
                self._log.error("Cannot cancel the query of a request that exceeded its time limit: %s", error)

    def _look_for_free_thread(self, states: Sequence[ThreadState], now: float) -> None:
        """Log it, once, when all threads have been at the same requests for long."""
        running = [state for state in states if state.request is not None]
        busy_s = now - max((state.began_s for state in running), default=now)
        if len(running) < self._threads or busy_s < self._all_busy_s:
            self._all_busy_logged = False
        elif not self._all_busy_logged:
            self._all_busy_logged = True
            oldest = min(running, key=lambda state: state.began_s)
            self._log.warning(
                "No thread of this worker has been free for %.0f s: all %d are running requests, others wait. Raise "
                "threads, or set request_timeout to end long requests. The oldest: %s",
                busy_s,
                len(running),
                describe(oldest, now, self._queries),
            )

    def _cancel(self, threads: list[int], now: float) -> None:
        for thread in threads:
            try:
                failure = self._queries.cancel(thread, now)
            except Exception:
                self._log.exception("Cannot cancel the query of a request that exceeded its time limit")
                continue
            if failure:
                self._log.error("Cannot cancel the query of a request that exceeded its time limit: %s", failure)
