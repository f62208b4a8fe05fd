"""The state of a pool: which connection is whose, and what has to be done next.

Pure decisions. Nothing here blocks, starts a thread or asks the time; `Pool` calls every method under its
lock, passes the time in, and carries out the returned actions after it has let the lock go.

A session is in exactly one of four places: `idle`, under one of `leases`, in `vetting` (being checked or
reset) or in `closing`. It stands on its slot from before it is opened until after it is closed. What is
promised:

- No thread jumps the line: what comes free goes to the thread that has waited longest.
- Idle connections are lent newest first, so that the surplus ages out.
- sessions + attempts to open one never exceed `max_size`; an attempt that is no longer needed is not made.
"""

import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic

from fullhouse.histogram import CONNECTION_BOUNDS_S, Histogram
from fullhouse.pool.actions import Action, Attempt, Check, Close, Open, Reset, WakeAt
from fullhouse.pool.backoff import Backoff
from fullhouse.pool.options import PoolOptions
from fullhouse.pool.protocols import C, Slots
from fullhouse.pool.sessions import Lease, Session, Waiter
from fullhouse.pool.statistics import ConnectFailure, PinnedLease

CONNECT_REST_S = (0.010, 5.0)
"""First and longest rest after a failed connect."""
PROMPT_REST_S = 0.5
"""A rest lasts no longer when a new checkout comes, or when nothing is in use, so that only a connect can
help. It makes a site healthy within a second of its database's return."""
SLOT_REST_S = (0.002, 0.010)
"""First and longest rest between looks for a free slot."""
GIVE_BACK_EVERY_S = 0.020
"""A pool asks this often whether others need its slots, gives back one at most each time, and takes none
meanwhile. It is longer than the longest rest between looks for a slot, so who waits finds it, and one waiting
pool does not empty all others."""
TURN_S = 0.25
"""Where a host has fewer slots than pools, these take turns. A turn is ten times as long as a connect with TLS at 2 ms
of latency: much shorter, and the server would do little else but connect."""
TICK_S = 0.25
"""Time between two looks at what aged."""
HANGS_AFTER_S = 1.0
"""A connect, check or reset that takes longer is not counted on; something else is tried for the waiting threads."""
WANTED_AFTER_S = 1.0
"""A session that was idle for so long is closed where other hosts would use it."""
DOUBTED_AFTER_S = 5.0
"""A session that was lent for longer is checked before it is lent again. Where a network was cut, the answer to its
last statement may have come after the server had given the session up."""
PARKED_FOR_S = 2.0
"""A parked connection is taken no earlier: less than `checkout_timeout_s`, more than a thread takes between two
statements of one piece of work."""
MOST_CONNECTS = 4
"""Connects made at once."""
LIFETIME_JITTER = 0.05


@dataclasses.dataclass(slots=True)
class Counters:
    """What `PoolStatistics` says since the pool was made."""

    checkouts: int = 0
    checkouts_waited: int = 0
    checkouts_refused: int = 0
    connects: int = 0
    connects_failed: int = 0
    closed: int = 0
    leaks_reported: int = 0
    leases_reclaimed: int = 0
    waits: Histogram = dataclasses.field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))
    connect_times: Histogram = dataclasses.field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))
    uses: Histogram = dataclasses.field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))


class PoolState(Generic[C]):
    """See the module's docstring."""

    def __init__(self, options: PoolOptions, slots: Slots, random: Callable[[], float]) -> None:
        self._options = options
        self._slots = slots
        self._random = random
        self._max_size = _or_inf(options.max_size)
        self._check_after_idle_s = _or_inf(options.check_after_idle_s)

        self.idle: deque[Session[C]] = deque()  # in the order of their last use, the newest on the right
        self.leases: set[Lease[C]] = set()
        self.parked: dict[Lease[C], float] = {}  # those that may be taken: since when, the oldest first
        self.vetting: dict[Session[C], float] = {}  # session: since when
        self.closing: set[Session[C]] = set()
        self.attempts: dict[Attempt, float] = {}  # attempt: since when
        self.line: deque[Waiter[C]] = deque()  # the longest waiting on the left
        self.shut = False
        self.counters = Counters()

        self._connect_rest = Backoff(*CONNECT_REST_S, random)
        self._slot_rest = Backoff(*SLOT_REST_S, random)
        self._last_failure: tuple[Exception, float, bool] | None = None
        self._announced = False
        self._asked_for_pressure_at = -math.inf
        self._gave_back_at = self._opened_at = -math.inf

    @property
    def total(self) -> int:
        """Sessions that exist."""
        return len(self.idle) + len(self.leases) + len(self.vetting) + len(self.closing)

    # -- What borrowers do ----------------------------------------------------------------------------------

    def lend_nowait(self, borrower: threading.Thread, now: float) -> Lease[C] | None:
        """The newest idle connection, unless a thread waits or it has to be checked first."""
        if self.line or not self.idle or now >= self.idle[-1].fresh_until:
            return None
        return self._lend(self.idle.pop(), borrower, now)

    def join_line(self, waiter: Waiter[C], now: float) -> list[Action[C]]:
        """Stand at the end of the line, and set in motion what may serve it."""
        waiter.since = now
        self.line.append(waiter)
        self.counters.checkouts_waited += 1
        self._connect_rest.shorten(PROMPT_REST_S)
        return [WakeAt(now + TICK_S), *self._serve_line(now)]

    def leave_line(self, waiter: Waiter[C]) -> None:
        """Stand in the line no more; nothing to do for one that was served or dismissed."""
        if waiter.lease is None and not self.shut:
            self.line.remove(waiter)
            self._withdraw_unless_needed()

    def take_back(self, lease: Lease[C], now: float, *, dirty: bool, broken: bool) -> list[Action[C]]:
        """End a lease: lend the connection on, keep it, or part with it."""
        if lease.ended:
            return []
        session = self._end(lease)
        self.counters.uses.observe(now - lease.checked_out_at)
        unwanted = broken or self.shut or now >= session.expires_at or self._must_give_back(now)
        is_doubtful = now - lease.checked_out_at >= DOUBTED_AFTER_S and self._check_after_idle_s < math.inf
        if not (unwanted or dirty or is_doubtful):
            self._offer(session, now)
            return []
        actions = self._discard_older_idle(now) if broken else []
        if unwanted:
            actions.append(self._discard(session))
        else:
            self.vetting[session] = now
            actions.append(Reset(session) if dirty else Check(session))
        return actions + self._serve_line(now)

    def park(self, lease: Lease[C], now: float) -> bool:
        """The borrower does nothing with the connection for now; a waiting thread may have it."""
        if not lease.ended:
            self.parked[lease] = now
        return not lease.ended

    def unpark(self, lease: Lease[C]) -> bool:
        """The borrower goes on. False: it was taken."""
        self.parked.pop(lease, None)
        return not lease.ended

    def _lend(self, session: Session[C], borrower: threading.Thread, now: float, waited_s: float = 0.0) -> Lease[C]:
        lease = Lease(session, borrower, now)
        self.counters.waits.observe(waited_s)
        self.leases.add(lease)
        self.counters.checkouts += 1
        return lease

    def _end(self, lease: Lease[C]) -> Session[C]:
        lease.ended = True
        self.leases.discard(lease)
        self.parked.pop(lease, None)
        return lease.session

    def _offer(self, session: Session[C], now: float) -> None:
        """A session in order came free: give it to the longest waiting thread, or keep it idle."""
        session.last_used_at = now
        session.fresh_until = min(now + self._check_after_idle_s, session.expires_at)
        if self.line:
            waiter = self.line.popleft()
            waiter.serve(self._lend(session, waiter.borrower, now, now - waiter.since))
            self._withdraw_unless_needed()
        else:
            self.idle.append(session)

    # -- What actions report --------------------------------------------------------------------------------

    def begins(self, attempt: Attempt, now: float) -> bool:
        """Whether the attempt shall be made now; False: the demand has gone, and so has the attempt."""
        if self.shut or _count_not_hanging(self.attempts.values(), now) > len(self.line):
            del self.attempts[attempt]
            return False
        self.attempts[attempt] = now
        return True

    def slot_missing(self, attempt: Attempt, now: float) -> list[Action[C]]:
        """No slot was free: make that known to the other pools, and look again soon."""
        del self.attempts[attempt]
        self._slot_rest.failed(now)
        if self.line and not self._announced:
            self._announced = True
            self._slots.announce_waiting()
        return self._serve_line(now)

    def open_failed(self, attempt: Attempt, error: Exception, now: float, *, server_full: bool) -> list[Action[C]]:
        """The server refused or did not answer."""
        del self.attempts[attempt]
        self.counters.connects_failed += 1
        self._slot_rest.succeeded()
        self._connect_rest.failed(now)
        self._last_failure = (error.with_traceback(None), now, server_full)
        return self._serve_line(now)

    def opened(self, attempt: Attempt, connection: C, slot: int, limit_s: float | None, now: float) -> list[Action[C]]:
        """The server answered. `limit_s` is the lifetime that it grants."""
        self.counters.connect_times.observe(now - self.attempts.pop(attempt))
        self.counters.connects += 1
        self._opened_at = now
        self._slot_rest.succeeded()
        self._connect_rest.succeeded()
        expires_at = now + self._lifetime_s(limit_s)
        session = Session(connection, slot, expires_at=expires_at, last_used_at=now, fresh_until=now)
        if self.shut:
            return [self._discard(session)]
        self._offer(session, now)
        self._withdraw_unless_needed()
        return self._serve_line(now)

    def vetted(self, session: Session[C], now: float, *, in_order: bool, dead: bool) -> list[Action[C]]:
        """A check or a reset has ended. dead: it failed in a way that concerns older sessions too."""
        since = self.vetting.pop(session)
        actions: list[Action[C]] = []
        if dead:
            actions += self._discard_older_idle(since)
        if in_order and not self.shut and now < session.expires_at:
            self._offer(session, now)
        else:
            actions.append(self._discard(session))
        return actions + self._serve_line(now)

    def closed(self, session: Session[C], now: float) -> list[Action[C]]:
        """The session is closed, and its slot released: no need to rest before looking for one."""
        self._slot_rest.succeeded()
        self.closing.remove(session)
        self.counters.closed += 1
        return self._serve_line(now)

    def _lifetime_s(self, limit_s: float | None) -> float:
        lifetime_s = _or_inf(self._options.max_lifetime_s) * (1 - LIFETIME_JITTER * self._random())
        if limit_s is None:
            return lifetime_s
        return min(lifetime_s, limit_s - min(5.0, limit_s / 2))

    # -- What time brings -----------------------------------------------------------------------------------

    def tick(self, now: float) -> tuple[list[Action[C]], list[Lease[C]]]:
        """Retire what aged, reclaim what dead threads left, serve the line. Returns actions and new leaks."""
        actions: list[Action[C]] = []
        idle_s = _or_inf(self._options.idle_timeout_s)
        if self.idle and self._slots.others_want_idle():
            idle_s = min(idle_s, WANTED_AFTER_S)
        last_use = now - idle_s
        for session in [s for s in self.idle if now >= s.expires_at or s.last_used_at <= last_use]:
            self.idle.remove(session)
            actions.append(self._discard(session))
        if self.idle and self._must_give_back(now):
            actions.append(self._discard(self.idle.popleft()))
        for lease in [held for held in self.leases if not held.borrower.is_alive()]:
            self.counters.leases_reclaimed += 1
            actions.append(self._discard(self._end(lease)))
        actions += self._take_parked(now)
        actions += self._serve_line(now)
        if self.total or self.line or self.attempts:
            more_to_give = self.idle and self._gave_back_at == now
            actions.append(WakeAt(now + (GIVE_BACK_EVERY_S if more_to_give else TICK_S)))
        return actions, self._new_leaks(now)

    def _take_parked(self, now: float) -> list[Action[C]]:
        """As many parked connections as wait, where no further one can be opened."""
        if not (self._slot_rest.failing or self.total + len(self.attempts) >= self._max_size):
            return []
        missing = len(self.line) - len(self.vetting)
        taken = [lease for lease, since in self.parked.items() if now - since >= PARKED_FOR_S][: max(0, missing)]
        actions: list[Action[C]] = []
        for lease in taken:
            session = self._end(lease)
            self.vetting[session] = now
            actions.append(Reset(session))
        return actions

    def shut_down(self) -> list[Action[C]]:
        """Send the line away and part with the idle ones; what is lent goes when it comes back."""
        self.shut = True
        for waiter in self.line:
            waiter.dismiss()
        self.line.clear()
        self._withdraw_unless_needed()
        actions: list[Action[C]] = [self._discard(session) for session in self.idle]
        self.idle.clear()
        return actions

    def end_all(self) -> list[Session[C]]:
        """Every session there is, its lease ended: the child of a fork forgets them."""
        for lease in self.leases:
            lease.ended = True
        return [*self.idle, *(lease.session for lease in self.leases), *self.vetting, *self.closing]

    def _new_leaks(self, now: float) -> list[Lease[C]]:
        borrowed_at = now - _or_inf(self._options.leak_after_s)
        leaks = [lease for lease in self.leases if lease.checked_out_at <= borrowed_at and not lease.reported]
        for lease in leaks:
            lease.reported = True
        self.counters.leaks_reported += len(leaks)
        return leaks

    # -- What is known about the database -------------------------------------------------------------------

    def last_failure(self, now: float) -> ConnectFailure | None:
        """The last connect that failed."""
        if self._last_failure is None:
            return None
        error, at, server_full = self._last_failure
        return ConnectFailure(error, now - at, server_full)

    def is_down(self, now: float) -> bool:
        """No connection exists, and connects hang, or failed since the last success.

        "Server full" is not down; nor is a pool that got no slot for its last attempt: it cannot know.
        """
        if self.idle or self.leases or self.vetting or self._slot_rest.failing:
            return False
        if self._connect_rest.failing and self._last_failure is not None and not self._last_failure[2]:
            return True
        return any(now - since >= HANGS_AFTER_S for since in self.attempts.values())

    # -- How the line gets served ---------------------------------------------------------------------------

    def _serve_line(self, now: float) -> list[Action[C]]:
        """Check idle sessions and open new ones, as many as wait for something that is not under way yet."""
        actions: list[Action[C]] = []
        under_way = _count_not_hanging(self.vetting.values(), now) + _count_not_hanging(self.attempts.values(), now)
        missing = len(self.line) - under_way
        while missing > 0 and self.idle:
            session = self.idle.pop()
            if now >= session.expires_at:
                actions.append(self._discard(session))
            else:
                self.vetting[session] = now
                actions.append(Check(session))
                missing -= 1
        return actions + self._open_more(missing, now)

    def _open_more(self, missing: int, now: float) -> list[Action[C]]:
        room = min(self._max_size - self.total - len(self.attempts), MOST_CONNECTS - len(self.attempts))
        wanted = int(min(missing, room))
        if self._connect_rest.failing or self._slot_rest.failing:
            wanted = min(wanted, 1 - _count_not_hanging(self.attempts.values(), now))
        if wanted <= 0 or self.shut:
            return []
        due = self._next_attempt_at()
        if now < due:
            return [WakeAt(due)]
        actions: list[Action[C]] = []
        for _ in range(wanted):
            attempt = Attempt()
            self.attempts[attempt] = now
            actions.append(Open(attempt))
        return actions

    def _next_attempt_at(self) -> float:
        if not self.leases:
            self._connect_rest.shorten(PROMPT_REST_S)
        return max(self._connect_rest.until, self._slot_rest.until, self._gave_back_at + GIVE_BACK_EVERY_S)

    def pinned(self, now: float) -> list[PinnedLease]:
        """The leases that their borrowers keep between statements, the oldest first."""
        leases = sorted((lease for lease in self.leases if lease.is_pinned), key=lambda lease: lease.checked_out_at)
        return [PinnedLease(lease.borrower.name, now - lease.checked_out_at) for lease in leases]

    def hanging(self, now: float) -> list[tuple[Attempt, float]]:
        """The attempts that are not counted on any more, and their ages in seconds, the oldest first."""
        ages = [(attempt, now - since) for attempt, since in self.attempts.items() if attempt.thread is not None]
        return sorted(((a, age) for a, age in ages if age >= HANGS_AFTER_S), key=lambda pair: -pair[1])

    def _must_give_back(self, now: float) -> bool:
        """Whether to part with a session now, for a pool that has less than its fair share."""
        if now < self._asked_for_pressure_at + GIVE_BACK_EVERY_S or (
            self.total <= 1 and now < self._opened_at + TURN_S
        ):
            return False
        self._asked_for_pressure_at = now
        if not self._slots.must_give_back():
            return False
        self._gave_back_at = now
        return True

    def _discard(self, session: Session[C]) -> Action[C]:
        self.closing.add(session)
        return Close(session)

    def _discard_older_idle(self, before: float) -> list[Action[C]]:
        """A session was found dead: so may be all that have not been used since."""
        actions: list[Action[C]] = []
        while self.idle and self.idle[0].last_used_at <= before:
            actions.append(self._discard(self.idle.popleft()))
        return actions

    def _withdraw_unless_needed(self) -> None:
        if self._announced and (not self.line or self.total >= self._max_size):
            self._announced = False
            self._slots.withdraw_waiting()


def _count_not_hanging(begun: Iterable[float], now: float) -> int:
    return sum(now - at < HANGS_AFTER_S for at in begun)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
