"""The pool: connections of one process to one database, lent to its threads, each standing on a slot of the
host.

Who owns what. `PoolState` says which connection is whose and what has to be done next; `Pool` has the one lock
that guards the state, and carries out what they say. Three kinds of threads meet here:

- Borrowers call `checkout` and `checkin`. They block on this lock, held for microseconds only, and on their
  own place in the line, never on a driver or a server: a checkout ends within its deadline, whatever hangs.
- Background threads connect, check, reset and close. They take the lock only to report.
- The alarm calls `_tick`, which retires what aged and never blocks.

No driver is called under the lock; of `Slots` only what returns at once. Lock order: pool, then background or
slots.

A dirty connection is reset in the background too: the returning request goes on at once, a server that hangs
holds it up no more than its queries did, and a waiting thread gets the connection as soon as it is clean.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import Generic

from fullhouse.pool import exceptions, forks
from fullhouse.pool.actions import Action, Attempt, Check, Close, Open, Reset, WakeAt
from fullhouse.pool.background import BackgroundThreads
from fullhouse.pool.options import PoolOptions
from fullhouse.pool.protocols import Background, C, Driver, Slots
from fullhouse.pool.sessions import Lease, Session, Waiter
from fullhouse.pool.state import PoolState
from fullhouse.pool.statistics import HangingConnect, PoolStatistics

logger = logging.getLogger("fullhouse.pool")

# Python's own generator is the application's: who seeds it expects the same numbers each time.
SYSTEM_RANDOM = SystemRandom().random


class Pool(Generic[C]):
    """Lends connections. Opens none before a thread waits for one.

    `name` stands in errors, logs and thread names. `clock` and `background` are replaced in tests only.
    """

    def __init__(
        self,
        driver: Driver[C],
        slots: Slots,
        options: PoolOptions,
        *,
        name: str = "default",
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = SYSTEM_RANDOM,
        background: Background | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self._driver = driver
        self._slots = slots
        self._clock = clock
        self._random = random
        self._background = background or BackgroundThreads(name, clock)
        self._lock = threading.Lock()
        self._state: PoolState[C] = PoolState(options, slots, random)
        forks.watch_forks(self)

    def checkout(self, timeout_s: float | None = None) -> Lease[C]:
        """Borrow a connection until it is checked in; waits up to `timeout_s` (None: the option
        `checkout_timeout_s`).

        Raises CheckoutRefused when the time is up, or at once when `max_waiting` others wait;
        PoolClosed after `close`, or where opening is forbidden.
        """
        now = self._clock()
        with self._lock:
            lease = self._state.lend_nowait(threading.current_thread(), now)
        if lease is not None:
            return lease
        return self._checkout_waiting(now, self.options.checkout_timeout_s if timeout_s is None else timeout_s)

    def checkin(self, lease: Lease[C], *, dirty: bool = False, broken: bool = False) -> None:
        """Return a connection. Does not wait for the server.

        `dirty`: its session state was changed, it is reset before anyone else gets it. `broken`: it does not
        work any more; it is closed, and so are all idle ones, which have not been used since. A lease that
        has ended is ignored: checked in before, reclaimed from a thread that ended, or left behind by a fork.
        """
        now = self._clock()
        with self._lock:
            actions = self._state.take_back(lease, now, dirty=dirty, broken=broken)
        if actions:
            self._run(actions)

    def park(self, lease: Lease[C]) -> bool:
        """Let the pool take the connection for a waiting thread, until `unpark`. False: the lease has ended."""
        now = self._clock()
        with self._lock:
            return self._state.park(lease, now)

    def unpark(self, lease: Lease[C]) -> bool:
        """Have a parked connection back. False: it was taken, and the lease has ended."""
        with self._lock:
            return self._state.unpark(lease)

    def has_expired(self, lease: Lease[C]) -> bool:
        """Whether a connection that is kept long has reached its greatest age, and should come back."""
        return self._clock() >= lease.session.expires_at

    @property
    def is_closed(self) -> bool:
        """Whether it lends no more."""
        return self._state.shut

    def close(self) -> None:
        """Lend no more, send waiters away with PoolClosed, and close: what is lent at its check-in.

        From now on a thread that returns a connection closes it itself, as the process may end any moment.
        """
        with self._lock:
            actions = self._state.shut_down()
        self._run(actions)

    @property
    def waiting(self) -> int:
        """How many checkouts wait; a look without the lock."""
        return len(self._state.line)

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        with self._lock:
            return self._statistics_locked(self._clock())

    # -- Waiting --------------------------------------------------------------------------------------------

    def _checkout_waiting(self, began_at: float, timeout_s: float) -> Lease[C]:
        waiter, actions = self._join_line()
        try:
            self._run(actions)
            waiter.wait_called(began_at + timeout_s - self._clock())
        except BaseException:  # a KeyboardInterrupt, say: neither the place nor a connection may be lost
            with self._lock:
                self._state.leave_line(waiter)
            if waiter.lease is not None:
                self.checkin(waiter.lease)
            raise
        return self._stop_waiting(waiter, timeout_s)

    def _join_line(self) -> tuple[Waiter[C], list[Action[C]]]:
        forks.refuse_where_forbidden(self.name)
        waiter: Waiter[C] = Waiter()
        with self._lock:
            if self._state.shut:
                raise self._closed()
            if self.options.max_waiting is not None and len(self._state.line) >= self.options.max_waiting:
                raise self._refusal_locked(f"as many checkouts wait as max_waiting allows, {self.options.max_waiting}")
            return waiter, self._state.join_line(waiter, self._clock())

    def _stop_waiting(self, waiter: Waiter[C], timeout_s: float) -> Lease[C]:
        with self._lock:
            if waiter.lease is not None:
                return waiter.lease
            if self._state.shut:
                raise self._closed()
            refusal = self._refusal_locked(f"no connection within {timeout_s:g} s")
            self._state.leave_line(waiter)
            raise refusal

    def _refusal_locked(self, reason: str) -> exceptions.CheckoutRefused:
        now = self._clock()
        self._state.counters.checkouts_refused += 1
        refuse = exceptions.database_down if self._state.is_down(now) else exceptions.exhausted
        return refuse(self._statistics_locked(now), reason)

    def _closed(self) -> exceptions.PoolClosed:
        return exceptions.PoolClosed(f"Pool {self.name!r} is closed because the process is ending.")

    def _statistics_locked(self, now: float) -> PoolStatistics:
        state = self._state
        return PoolStatistics(
            name=self.name,
            total=state.total,
            in_use=len(state.leases),
            idle=len(state.idle),
            vetting=len(state.vetting),
            closing=len(state.closing),
            connecting=len(state.attempts),
            waiting=len(state.line),
            max_size=self.options.max_size,
            slots_held=self._slots.held,
            slots_budget=self._slots.budget,
            last_failure=state.last_failure(now),
            pinned=tuple(state.pinned(now)),
            hanging=tuple(HangingConnect(age_s, _where(attempt.thread)) for attempt, age_s in state.hanging(now)),
            checkouts=state.counters.checkouts,
            checkouts_waited=state.counters.checkouts_waited,
            checkouts_refused=state.counters.checkouts_refused,
            connects=state.counters.connects,
            connects_failed=state.counters.connects_failed,
            closed=state.counters.closed,
            leaks_reported=state.counters.leaks_reported,
            leases_reclaimed=state.counters.leases_reclaimed,
            waits=state.counters.waits.copy(),
            connect_times=state.counters.connect_times.copy(),
            uses=state.counters.uses.copy(),
        )

    # -- Errands, in background threads ---------------------------------------------------------------------

    def _run(self, actions: list[Action[C]]) -> None:
        """Have the actions carried out in the background; once the pool is closed, closing is done here."""
        if self._state.shut and (closing := [action.session for action in actions if isinstance(action, Close)]):
            self._close(closing)
            actions = [action for action in actions if not isinstance(action, Close)]
        for action in actions:
            match action:
                case Open(attempt):
                    self._background.run_connect(partial(self._open, attempt))
                case Check(session):
                    self._background.run_upkeep(partial(self._check, session))
                case Reset(session):
                    self._background.run_upkeep(partial(self._reset, session))
                case Close(session):
                    self._background.run_close(partial(self._close, [session]))
                case WakeAt(due):
                    self._background.wake_at(due, self._tick)

    def _open(self, attempt: Attempt) -> None:
        with self._lock:
            if not self._state.begins(attempt, self._clock()):
                return
        attempt.thread = threading.get_ident()
        try:
            slot = self._slots.acquire_nowait()
        except Exception as error:  # the slot file was deleted, say: waiters shall read it
            actions = self._open_failed(attempt, error, server_full=False)
        else:
            actions = self._slot_missing(attempt) if slot is None else self._connect(attempt, slot)
        self._run(actions)

    def _connect(self, attempt: Attempt, slot: int) -> list[Action[C]]:
        try:
            connection = self._driver.connect(slot)
        except Exception as error:
            self._slots.release(slot, gone=True)
            return self._open_failed(attempt, error, server_full=self._driver.server_full(error))
        limit_s = self._driver.lifetime_limit_s(connection)
        with self._lock:
            return self._state.opened(attempt, connection, slot, limit_s, self._clock())

    def _slot_missing(self, attempt: Attempt) -> list[Action[C]]:
        with self._lock:
            return self._state.slot_missing(attempt, self._clock())

    def _open_failed(self, attempt: Attempt, error: Exception, *, server_full: bool) -> list[Action[C]]:
        with self._lock:
            return self._state.open_failed(attempt, error, self._clock(), server_full=server_full)

    def _check(self, session: Session[C]) -> None:
        alive = _answers_yes(self._driver.check, session.connection)
        with self._lock:
            actions = self._state.vetted(session, self._clock(), in_order=alive, dead=not alive)
        self._run(actions)

    def _reset(self, session: Session[C]) -> None:
        clean = _answers_yes(self._driver.reset, session.connection)
        with self._lock:
            actions = self._state.vetted(session, self._clock(), in_order=clean, dead=False)
        self._run(actions)

    def _close(self, sessions: list[Session[C]]) -> None:
        gone: Sequence[bool] = [False] * len(sessions)
        try:
            gone = self._driver.close([session.connection for session in sessions])
        finally:
            for session, is_gone in zip(sessions, gone, strict=True):
                self._slots.release(session.slot, gone=is_gone)
                with self._lock:
                    actions = self._state.closed(session, self._clock())
                self._run(actions)

    def _tick(self) -> None:
        with self._lock:
            actions, leaks = self._state.tick(self._clock())
        self._run(actions)
        for lease in leaks:
            self._report_leak(lease)

    def _report_leak(self, lease: Lease[C]) -> None:
        frame = sys._current_frames().get(lease.borrower.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "  (the thread has ended)\n"
        logger.warning(
            "Pool %r: thread %r has kept a connection for %.1f s (leak_after_s is %s).\n"
            "Shorten the transaction, or find the code that does not return it. The thread is now at:\n%s",
            self.name,
            lease.borrower.name,
            self._clock() - lease.checked_out_at,
            self.options.leak_after_s,
            stack,
        )

    # -- Fork, see `guard` ----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold the lock, so that the child inherits whole state."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start empty: the connections, the slots and the threads are the parent's."""
        inherited = self._state.end_all()
        shut = self._state.shut
        self._lock = threading.Lock()
        self._state = PoolState(self.options, self._slots, self._random)
        self._state.shut = shut
        self._background.forget()
        for session in inherited:
            self._driver.abandon(session.connection)


def _where(thread: int | None) -> str:
    """The line that a thread stands at."""
    frame = sys._current_frames().get(thread or 0)
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "its end"


def _answers_yes(ask: Callable[[C], bool], connection: C) -> bool:
    """The adapter's answer; an adapter that raises says no."""
    try:
        return ask(connection)
    except Exception:
        logger.exception("A driver adapter of the pool raised instead of answering; the connection is closed.")
        return False
