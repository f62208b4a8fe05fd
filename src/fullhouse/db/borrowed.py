"""What a wrapper has borrowed from its pool, and what keeps the connection with its thread.

| state | lease | fields |
|---|---|---|
| nothing is borrowed | none | |
| in use: a cursor or a transaction is open | lease | `open_cursors` |
| pinned: idle, and kept for its thread | lease | `pinned`, or `held` above 0 |
| parked: pinned outside of a request; the pool may take it | lease | `parked` |
| taken: the pool has taken it, and the thread does not know yet | none | `taken` |
| broken: the session is gone, or in the middle of an answer | lease | `broken` |

Only the wrapper's own thread comes here, so nothing needs a lock.
"""

import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullhouse.pool.core import Pool
    from fullhouse.pool.sessions import Lease


class Pinned(IntEnum):
    """By what a connection is pinned."""

    NO = 0
    BY_STATEMENT = 1
    BY_CALLER = 2  # by pin(), or by using the driver: only the caller knows what would be lost


class Borrowed:
    """lender: the pool of the lease. held: locks and channels of the session, counted by the statements that took and
    released them. has_held: there was one, so the session may have more.

    open_cursors: the driver's, by identity. They are not kept alive, so that one without references is closed.
    lost_cursors: those that were dropped in another thread, until their own thread closes them.
    """

    __slots__ = (
        "broken",
        "has_held",
        "held",
        "lease",
        "lender",
        "lost_cursors",
        "open_cursors",
        "parked",
        "pinned",
        "taken",
    )

    def __init__(self) -> None:
        self.lease: Lease[Any] | None = None
        self.lender: Pool[Any] | None = None
        self.broken = False
        self.open_cursors: dict[int, weakref.ref[Any]] = {}
        self.lost_cursors: list[Any] = []
        self.unpin()

    def unpin(self) -> None:
        """Nothing keeps the connection that is borrowed next."""
        self.pinned = Pinned.NO
        self.held = 0.0
        self.has_held = self.parked = self.taken = False
