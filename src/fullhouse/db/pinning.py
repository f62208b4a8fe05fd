"""Pinned connections: the half of `Pooled` that keeps a connection with its thread, and ends that.

What a statement changes in its session stays until a reset, so the connection stays until the end of the request. Locks
of the session and PostgreSQL's channels keep it until the last one is released.

A thread that serves no request, such as one of an executor, may never come to an end of that kind. It **parks** a
connection that it does nothing with, and the pool may take it for a waiting thread; the next statement of the thread
says so. What holds a lock or a channel is never parked.
"""

import logging
from math import inf
from typing import Any

from django.conf import settings

from fullhouse.db import running
from fullhouse.db.borrowed import Pinned
from fullhouse.db.errors import PinnedConnectionTaken
from fullhouse.db.statements import NOTHING, Statements
from fullhouse.db.transactions import LazyTransactions

logger = logging.getLogger("fullhouse.db")

# Statements of this process that a developer was warned of.
_warned_of: set[str] = set()


class Pinning(LazyTransactions):
    """Mix in before a backend's DatabaseWrapper. A subclass says how a connection is borrowed and given back."""

    statements: Statements
    open_cursors: dict[int, Any]
    _returns_early: bool

    # -- What a backend fills in ---------------------------------------------------------------------------------

    def holds_something(self) -> bool:
        """Whether the session holds a lock or a channel."""
        return self._borrowed.held > 0

    # -- What keeps the connection -------------------------------------------------------------------------------

    def pin(self) -> None:
        """Keep the connection until the end of the request, and have it reset before anyone else gets it."""
        if self._borrowed.parked:
            self._unpark()
        self._borrowed.pinned = Pinned.BY_CALLER

    def statement_begins(self, sql: Any) -> None:
        """Send the BEGIN that is due, and pin the connection if the statement leaves something in the session."""
        borrowed = self._borrowed
        if self._thread_ident in running.cancelled:
            self.refuse_if_cancelled()
        text = sql if isinstance(sql, str) else self._as_text(sql)
        if text is None:
            borrowed.pinned = Pinned.BY_CALLER
        elif (effect := self.statements.effect(text)) is not NOTHING:
            if effect.changes:
                borrowed.pinned = max(borrowed.pinned, Pinned.BY_STATEMENT)
            if effect.takes or effect.releases:
                borrowed.has_held = True
                borrowed.held = max(0.0, borrowed.held - effect.releases) + effect.takes
                if effect.releases == inf and self._connection.fence is not None:  # which goes with all locks
                    self.used_directly()
                    self._connection.was_used_directly = True
        elif settings.DEBUG:
            self._warn_if_session_varies(text)
        if self._begin_due:
            self._send_due()

    def _warn_if_session_varies(self, text: str) -> None:
        """For the developer: in autocommit, the next statement may run in another session than this one."""
        stays = self.in_atomic_block or self._borrowed.pinned or len(self.open_cursors) > 1 or not self._returns_early
        if stays or text in _warned_of or not self.statements.asks_about_session(text):
            return
        _warned_of.add(text)
        logger.warning(
            "Database %r: in autocommit each statement may have another session, and this one asks about its own: %s\n"
            "Use the same cursor, or one atomic block, for it and for what it asks about.",
            self.alias,
            text[:200],
        )

    def _as_text(self, sql: Any) -> str | None:
        """The text of a statement; None: it cannot be had."""
        if isinstance(sql, str):
            return sql
        return sql.decode(errors="replace") if isinstance(sql, bytes | bytearray) else None

    def used_directly(self) -> None:
        """Pin the connection, whose next use may be anything, and have it in the transaction that it should be in."""
        self.refuse_if_cancelled()
        if self._borrowed.parked:
            self._unpark()
        self._refuse_if_taken()
        self._borrowed.pinned = Pinned.BY_CALLER
        with self._internally():
            if self._begin_due:
                self._send_due()
            elif self._transaction_open:
                self._expect_any_end()

    def _keep_if_pinned(self) -> bool:
        """Whether the connection stays with its thread, which does nothing with it now. Where it might be pinned."""
        borrowed = self._borrowed
        lease, lender = borrowed.lease, borrowed.lender
        if not (borrowed.pinned or self.holds_something()) or lease is None or lender is None:
            return False
        lease.is_pinned = True
        if (
            borrowed.pinned is not Pinned.BY_CALLER
            and not borrowed.has_held
            and not running.serves_request(self._thread_ident)
        ):
            borrowed.parked = lender.park(lease)
        return True

    # -- Parking -------------------------------------------------------------------------------------------------

    def _unpark(self) -> None:
        """Have a parked connection back, unless it was taken: then this thread has none, and owes its caller a word."""
        borrowed = self._borrowed
        lease, lender = borrowed.lease, borrowed.lender
        if lease is None or lender is None:
            return
        borrowed.parked = False
        if not lender.unpark(lease):
            borrowed.lease = self._connection = None
            borrowed.pinned = Pinned.NO
            borrowed.taken = True

    def _refuse_if_taken(self) -> None:
        if self._borrowed.taken:
            self._borrowed.taken = False
            raise PinnedConnectionTaken
