"""The nouns of a pool: a session that it owns, a lease on one, a waiter for one."""

import dataclasses
import threading
from typing import Generic

from fullhouse.pool.protocols import C


@dataclasses.dataclass(slots=True, eq=False)
class Session(Generic[C]):
    """A connection of the pool, and the slot that it stands on. Times are those of the pool's clock."""

    connection: C
    slot: int
    expires_at: float
    last_used_at: float
    """When it was last returned in order, or answered a check."""
    fresh_until: float
    """From then on it is checked before it is lent."""


class Lease(Generic[C]):
    """The right of one thread to use one connection until it is checked in."""

    __slots__ = ("borrower", "checked_out_at", "connection", "ended", "is_pinned", "reported", "session")

    def __init__(self, session: Session[C], borrower: threading.Thread, now: float) -> None:
        self.session = session
        self.connection = session.connection
        self.borrower = borrower
        self.checked_out_at = now
        self.reported = False
        self.is_pinned = False
        """Kept by its borrower between statements, for what it has left in the session. A note for errors."""
        self.ended = False
        """Checked in, reclaimed, or left behind by a fork: the connection is not the borrower's any more."""


class Waiter(Generic[C]):
    """A checkout that waits in line. Its fields are guarded by the pool's lock.

    The handshake: `serve` and `dismiss` happen under the pool's lock, to a waiter that stands in the line.
    One whose time is up takes the same lock to leave the line, and finds there whether it was served
    meanwhile. So a connection is never handed to a thread that has gone.
    """

    __slots__ = ("_wake", "borrower", "lease", "since")

    def __init__(self) -> None:
        self.borrower = threading.current_thread()
        self.lease: Lease[C] | None = None
        self.since = 0.0
        self._wake = threading.Lock()
        self._wake.acquire()

    def serve(self, lease: Lease[C]) -> None:
        """Hand it its lease, and wake it."""
        self.lease = lease
        self._wake.release()

    def dismiss(self) -> None:
        """Wake it without a lease: the pool closes."""
        self._wake.release()

    def wait_called(self, timeout_s: float) -> None:
        """Block until it is served or dismissed, or the time is up."""
        self._wake.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
