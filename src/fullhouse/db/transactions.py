"""Transactions that begin with their first statement: the half of `Pooled` that is about them.

`atomic` only notes that a BEGIN (and SAVEPOINTs) are due, and the first cursor sends them. The log of queries shows it
as Django does, so that `assertNumQueries` counts the same: BEGIN where the block is entered, COMMIT where it is left,
sent or not.

Only the wrapper's own thread comes here, so nothing needs a lock.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import debug_transaction

from fullhouse.db import running
from fullhouse.db.borrowed import Borrowed
from fullhouse.db.errors import RequestCancelled

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper as _Wrapper
else:
    _Wrapper = object


class Internally:
    """Counts in `wrapper.internal` as long as the block takes. A class, since a generator costs five times as much."""

    __slots__ = ("_wrapper",)

    def __init__(self, wrapper: "LazyTransactions") -> None:
        self._wrapper = wrapper

    def __enter__(self) -> None:
        self._wrapper.internal += 1

    def __exit__(self, *_: object) -> None:
        self._wrapper.internal -= 1


class LazyTransactions(_Wrapper):
    """Mix in before a backend's DatabaseWrapper. A subclass says how a connection is borrowed and given back."""

    def _no_transaction(self) -> None:
        """The logical state of an unused connection."""
        self.autocommit = self.settings_dict["AUTOCOMMIT"]
        self._begin_due = not self.autocommit
        self._savepoints_due: list[str] = []
        self._transaction_open = False
        self._borrowed.broken = False
        self._changing_autocommit = False

    # -- What a backend fills in ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a transaction on the connection, now or with its first statement."""
        raise NotImplementedError

    def _end_by_autocommit(self) -> None:
        """What switching autocommit on does to an open transaction."""
        raise NotImplementedError

    def _after_transaction(self) -> None:
        """Called once a transaction has ended on the connection."""

    def _expect_any_end(self) -> None:
        """Called in a transaction that the driver's own methods may end: what follows then belongs to another one."""

    def _is_disconnect(self, error: BaseException) -> bool:
        """Whether the driver's `error` means that the session is gone."""
        raise NotImplementedError

    # -- What `Pooled` fills in ----------------------------------------------------------------------------------

    internal: int
    is_unpooled: bool
    _borrowed: Borrowed
    _connection: Any
    _thread_ident: int

    def _internally(self) -> "Internally":
        """For steps of Django's and ours on the driver's connection, which the pool's rules are not for."""
        return Internally(self)

    def _start_afresh(self) -> None:
        """Forget everything that a former connection left behind."""
        raise NotImplementedError

    def _return_if_done(self) -> None:
        """Give the connection back unless something still needs it."""
        raise NotImplementedError

    # -- Failures ------------------------------------------------------------------------------------------------

    def statement_failed(self, error: BaseException) -> None:
        """Note a connection that is gone, or that an interrupt has left in the middle of an answer."""
        if not isinstance(error, Exception) or self._is_disconnect(error.__cause__ or error):
            self._borrowed.broken = True

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        running.waits()
        try:
            yield
        except BaseException as error:
            self.statement_failed(error)
            raise

    # -- What Django calls ---------------------------------------------------------------------------------------

    def get_autocommit(self) -> bool:
        if self.closed_in_transaction and not self.in_atomic_block:
            self._start_afresh()
        return self.autocommit

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        self._changing_autocommit = True
        try:
            super().set_autocommit(autocommit, *args, **kwargs)
        finally:
            self._changing_autocommit = False

    def _set_autocommit(self, autocommit: bool) -> None:
        self._changing_autocommit = False  # on_commit hooks come next, and may query
        if not autocommit:
            self._begin_due = not self._transaction_open
            return
        if self._transaction_open:
            self.refuse_if_cancelled()
        self._begin_due = False
        self._savepoints_due.clear()
        if self._transaction_open and not self._borrowed.broken:
            with self._internally(), self._waiting(), self.wrap_database_errors:
                self._end_by_autocommit()
        self._transaction_open = False
        self.autocommit = True
        self._return_if_done()

    def _send_due(self) -> None:
        self._begin_due = False
        self._transaction_open = True
        savepoints, self._savepoints_due = self._savepoints_due, []
        with self._waiting(), self.wrap_database_errors:
            self._begin()
        for sid in savepoints:
            self._send_savepoint(sid)

    def _send_savepoint(self, sid: str) -> None:
        """Send one that was logged when it fell due."""
        with self.wrap_database_errors, closing(self.create_cursor()) as cursor:
            cursor.execute(self.ops.savepoint_create_sql(sid))

    def _savepoint(self, sid: str) -> None:
        if self._begin_due:
            with debug_transaction(self, self.ops.savepoint_create_sql(sid)):
                self._savepoints_due.append(sid)
        else:
            super()._savepoint(sid)

    def _savepoint_rollback(self, sid: str) -> None:
        if sid in self._savepoints_due:  # nothing has happened since: rolled back as it is
            with debug_transaction(self, self.ops.savepoint_rollback_sql(sid)):
                del self._savepoints_due[self._savepoints_due.index(sid) + 1 :]
        else:
            super()._savepoint_rollback(sid)

    def _savepoint_commit(self, sid: str) -> None:
        if sid in self._savepoints_due:
            with debug_transaction(self, self.ops.savepoint_commit_sql(sid)):
                del self._savepoints_due[self._savepoints_due.index(sid) :]
        else:
            super()._savepoint_commit(sid)

    def _log_unsent(self, sql: str) -> None:
        """Log what Django sends now, and we need not: no statement has opened the transaction."""
        if not self._transaction_open:
            with debug_transaction(self, sql):
                pass

    def refuse_if_cancelled(self) -> None:
        """Raise RequestCancelled where this thread's request was cancelled."""
        if self._thread_ident in running.cancelled and not self.is_unpooled:
            raise RequestCancelled

    def _commit(self) -> None:
        self.refuse_if_cancelled()
        self._log_unsent("COMMIT")
        if self._transaction_open:
            with self._internally(), self._waiting():
                super()._commit()
        self._transaction_ended()

    def _rollback(self) -> None:
        self._log_unsent("ROLLBACK")
        if self._transaction_open:
            with self._internally(), self._waiting():
                super()._rollback()
        self._transaction_ended()

    def _transaction_ended(self) -> None:
        """After COMMIT or ROLLBACK: with autocommit off the next statement begins another transaction."""
        if self._transaction_open and self._connection is not None:
            with self._internally(), self.wrap_database_errors:
                self._after_transaction()
        self._transaction_open = False
        self._savepoints_due.clear()
        self._begin_due = not self.autocommit
        self._return_if_done()
