"""The mixin that makes a Django database wrapper borrow its connection from the pool.

Django gives each thread its own wrapper for each alias; only that thread touches it, so nothing here needs a lock.
What threads share is the pool behind `self.pool`.

The life of a lease in `transaction` mode: the first cursor takes it; it goes back when the last cursor is closed and
no transaction is open (see `transactions`). A statement that changes the session pins the lease until the end of the
request, and the connection is reset before anyone else gets it.

An **unpooled** wrapper is one of the same class that has a session of its own, as with Django's own engine: the pool
opens and resets its sessions through one, so that each goes through whatever a subclass overrides.

Django's internals that this and `transactions` rely on, each covered by tests/integration/test_django_internals.py:
`connect`, `ensure_connection`, `_cursor`, `create_cursor`, `_set_autocommit`, `_savepoint*`, `_commit`, `_rollback`,
`_close`, and the fields `connection`, `in_atomic_block`, `closed_in_transaction`, `autocommit`, `errors_occurred`,
`needs_rollback`.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from operator import itemgetter
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import ImproperlyConfigured

from fullhouse.db import errors, pools
from fullhouse.db.borrowed import Borrowed
from fullhouse.db.contracts import Backend
from fullhouse.db.pinning import Pinning
from fullhouse.db.pool_settings import PoolSettings, is_unpooled, pool_settings, unpooled_settings
from fullhouse.errors import ConfigurationError
from fullhouse.pool.core import Pool
from fullhouse.pool.exceptions import CheckoutRefused, PoolError
from fullhouse.telemetry.times import own

if TYPE_CHECKING:
    from fullhouse.db.fences import Fence

# The settings of an alias that a connection is made from: where one differs, so does the pool.
_made_from = itemgetter("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "TIME_ZONE")


def _copied(value: Any) -> Any:
    """Containers anew; what they hold, such as an SSLContext, need not be of a kind that can be copied."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return tuple(_copied(item) for item in value) if isinstance(value, tuple) else value


class Pooled(Pinning, Backend):
    """Mix in before the DatabaseWrapper of a backend of Django's, or of another library's that is built on it."""

    begins_with_cursor = True  # since a server-side cursor depends on the transaction
    Database: Any
    _thread_ident: int
    internal = 0  # see `contracts.Borrower`
    fence: "Fence | None" = None  # of the session of this unpooled wrapper, in a fleet

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self._connection: Any = None
        self._borrowed = Borrowed()
        self.open_cursors = self._borrowed.open_cursors
        self._has_been_connected = self._connecting = False
        self.closed_in_transaction = self.in_atomic_block = False
        super().__init__(settings_dict, *args, **kwargs)
        self.is_unpooled = is_unpooled(settings_dict)
        self.thread_ident = self._thread_ident
        try:
            self.pool_settings: PoolSettings = pool_settings(self.alias, settings_dict)
        except ConfigurationError as error:
            raise ImproperlyConfigured(str(error)) from error
        self._returns_early = self.pool_settings.mode == "transaction" and not self.is_unpooled
        self._pool: Pool[Any] | None = None
        self._pool_made_from: tuple[Any, ...] = ()
        self._start_afresh()

    def _start_afresh(self) -> None:
        """The logical state of an unused connection."""
        self._no_transaction()
        self.needs_rollback = False
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.run_on_commit = []
        self._has_been_connected = False
        self._borrowed.unpin()

    def unpooled(self) -> Self:
        """A wrapper of the same class with a session of its own, which stands on no slot."""
        return type(self)(unpooled_settings(self.settings_dict), self.alias)

    # -- The lease -----------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Any:
        """The driver's connection, or None. Where Django's own engine would have one, there is one here:
        in an atomic block, and between the first statement and `close`.
        """
        if self._borrowed.parked:
            self._unpark()
        is_due = self.in_atomic_block or self._has_been_connected
        if (
            self._connection is None
            and is_due
            and not (self.internal or self.closed_in_transaction or self._connecting)
        ):
            self.ensure_connection()
        return self._connection

    @connection.setter
    def connection(self, connection: Any) -> None:
        self._connection = connection

    @property
    def pool(self) -> Pool[Any] | None:
        """This process's pool of this alias and its settings, which test runners and tests change in place.

        None for an unpooled wrapper. Raises ImproperlyConfigured for settings that cannot be used, or that Django
        refuses to connect with.
        """
        if self.is_unpooled:
            return None
        made_from = _made_from(self.settings_dict)
        if self._pool is None or self._pool.is_closed or made_from != self._pool_made_from:
            try:
                self._pool = pools.pool_of(self, made_from)
            except ConfigurationError as error:
                raise ImproperlyConfigured(str(error)) from error
            self._pool_made_from = _copied(made_from)
        return self._pool

    def close_pool(self) -> None:
        """Close the pools on this database, as Django asks before it drops one that was made for tests."""
        pools.close_pools_on(self)

    def connect(self) -> None:
        """Take a connection from the pool. Raises Django's OperationalError with the pool's evidence."""
        lender = self.pool
        if lender is None:
            super().connect()
            return
        self.check_settings()
        if not self.in_atomic_block and self.closed_in_transaction:
            self._start_afresh()
        began_s = monotonic()
        try:
            self._borrowed.lease = lease = lender.checkout()
        except CheckoutRefused as refused:
            kind = errors.DatabaseDown if refused.is_down else errors.PoolExhausted
            raise kind(str(refused), refused.statistics) from refused
        except PoolError as refused:
            raise errors.ConnectionUnavailable(str(refused)) from refused
        finally:
            own.times.connection_s += monotonic() - began_s
        self._borrowed.lender = lender
        self._has_been_connected = True
        self._connection = lease.connection
        self._connection.borrower = self

    def let_go(self) -> Any:
        """Leave the session of this unpooled wrapper to the pool. Raises the driver's error where it was closed."""
        connection = self._connection
        if connection is None:
            raise self.Database.InterfaceError(
                "The connection was closed while it was being opened: check the connection_created receivers."
            )
        with self._internally():
            self._close_cursors()
            if self._transaction_open:
                connection.rollback()
                self._after_transaction()
        connection.state_when_opened = _copied(self.client_state(connection))
        connection.was_used_directly = False
        connection.borrower = self._connection = None
        return connection

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A session for this unpooled wrapper, under the pool's rules from its first statement on."""
        connection = super().get_new_connection(conn_params)
        self.guard(connection)
        connection.borrower = self
        with self._internally():
            self.autocommit_on(connection)
            if self.fence is not None:
                self._connection = connection  # so that it is closed with a goodbye where this fails
                self.fence.take(connection)
                connection.fence = self.fence
        return connection

    def ensure_connection(self) -> None:
        borrowed = self._borrowed
        if self._changing_autocommit:
            return  # autocommit is a note here, until there is a statement
        if borrowed.parked:
            self._unpark()
        if borrowed.taken:
            self._refuse_if_taken()
        if borrowed.lease is not None:
            if not borrowed.lease.ended:
                return
            self._lose_lease()
        if self._connecting:  # Django's own was replaced by something that calls this one, as a test's mock
            if self._connection is None:
                with self.wrap_database_errors:
                    self.connect()
            return
        self._connecting = True
        try:
            super().ensure_connection()
        finally:
            self._connecting = False

    def _lose_lease(self) -> None:
        """After a fork the connection is the parent's, and so is its transaction: this process has none."""
        borrowed = self._borrowed
        borrowed.lease = self._connection = None
        self.open_cursors.clear()
        self._transaction_open = False
        borrowed.unpin()
        if self.in_atomic_block:
            self.closed_in_transaction = self.needs_rollback = True

    def _give_back(self) -> None:
        """Return the lease, with everything this thread left open closed and rolled back."""
        borrowed = self._borrowed
        if borrowed.parked:
            self._unpark()
        lease, lender = borrowed.lease, borrowed.lender
        if lease is None or lender is None:
            return
        if self.open_cursors or borrowed.lost_cursors or self._transaction_open:
            self._end_what_is_open()
        connection = self._connection
        broken = borrowed.broken or self._is_gone()
        dirty = bool(borrowed.pinned) or borrowed.has_held or (not broken and self._left_dirty())
        borrowed.lease = self._connection = connection.borrower = None
        self._transaction_open = borrowed.broken = self.errors_occurred = False
        borrowed.unpin()
        self._begin_due = not self.autocommit
        lender.checkin(lease, dirty=dirty, broken=broken)

    def _end_what_is_open(self) -> None:
        """Close the cursors that this thread left open, and roll back its transaction."""
        with self._internally():
            self._close_cursors()
            if self._transaction_open and not self._borrowed.broken:
                try:
                    self._connection.rollback()
                    self._after_transaction()
                except Exception:
                    self._borrowed.broken = True

    def _close_cursors(self) -> None:
        borrowed = self._borrowed
        left = [cursor for reference in self.open_cursors.values() if (cursor := reference()) is not None]
        for cursor in {id(cursor): cursor for cursor in [*left, *borrowed.lost_cursors]}.values():
            with suppress(Exception):
                cursor.close()
        self.open_cursors.clear()
        borrowed.lost_cursors.clear()

    def _return_if_done(self) -> None:
        borrowed = self._borrowed
        if not self._returns_early or self.open_cursors or self.in_atomic_block:
            return
        if self._transaction_open or self.internal:
            return
        if not ((borrowed.pinned or borrowed.has_held) and self._keep_if_pinned()):
            self._give_back()

    def close(self) -> None:
        with self._internally():  # there is no need of a connection to close it
            super().close()
        if not self.in_atomic_block:
            self._start_afresh()
        elif self._connection is None:
            self.closed_in_transaction = self.needs_rollback = True

    def _close(self) -> None:
        borrowed = self._borrowed
        if self.is_unpooled:
            with self._internally():
                self._close_cursors()
                super()._close()
        elif self.in_atomic_block:
            # Django keeps the closed connection in `self.connection` until the block ends: no other thread may have it.
            borrowed.broken = True
            connection, lease, lender = self._connection, borrowed.lease, borrowed.lender
            borrowed.lease = None
            with suppress(Exception):
                connection.close()
            self.open_cursors.clear()
            if lease is not None and lender is not None:
                lender.checkin(lease, dirty=True)  # its reset finds it closed
        else:
            self._give_back()

    def close_if_unusable_or_obsolete(self) -> None:
        """Called by Django at the start and the end of each request: the end of the lease, except in session mode."""
        borrowed = self._borrowed
        if borrowed.parked:
            self._unpark()
        if self._connection is None and self._is_fresh():
            self._has_been_connected = borrowed.taken = False
            return
        if self.pool_settings.mode != "session" or not self._may_keep_lease():
            self.close()

    def _is_fresh(self) -> bool:
        """Whether nothing has happened that the next request could see."""
        if self.in_atomic_block or self.closed_in_transaction or self.run_on_commit:
            return False
        return bool(self.autocommit == self.settings_dict["AUTOCOMMIT"])

    def _may_keep_lease(self) -> bool:
        borrowed = self._borrowed
        if self.in_atomic_block or borrowed.broken or self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            return False
        return borrowed.lease is None or borrowed.lender is None or not borrowed.lender.has_expired(borrowed.lease)

    def close_if_health_check_failed(self) -> None:
        """The pool has looked after the connection that it lends."""

    def is_usable(self) -> bool:
        with self._internally():
            return self._connection is not None and super().is_usable()

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        with self.cursor() as cursor:
            yield cursor

    def _nodb_cursor(self) -> AbstractContextManager[Any]:
        """For making and dropping test databases: on a connection of its own, which is not used again.

        Sessions on a database keep it from being dropped or copied, and those on one that was made anew are in none.
        """
        self.close_pool()
        return super()._nodb_cursor() if self.is_unpooled else self.unpooled()._nodb_cursor()

    # -- Cursors and statements, see `contracts.Borrower` ------------------------------------------------------------

    def _cursor(self, name: str | None = None) -> Any:
        if self._connection is None or self._borrowed.parked:
            self.ensure_connection()
        self.internal += 1  # the collector may close a forgotten cursor now, which must not return the lease
        try:
            return super()._cursor(name)
        finally:
            self.internal -= 1

    def create_cursor(self, name: str | None = None) -> Any:
        if self.thread_ident != get_ident():
            self.validate_thread_sharing()
        self.internal += 1
        try:
            if self._begin_due and self.begins_with_cursor:
                self._send_due()
            return super().create_cursor(name)
        finally:
            self.internal -= 1

    def cursor_opened(self, cursor: Any) -> None:
        self.open_cursors[id(cursor)] = weakref.ref(cursor)

    def cursor_closed(self, cursor: Any) -> None:
        self.open_cursors.pop(id(cursor), None)
        self._return_if_done()

    def cursor_lost(self, cursor: Any) -> None:
        self._borrowed.lost_cursors.append(cursor)

    def _left_dirty(self) -> bool:
        """Whether the driver knows of something unfinished or changed on the connection; costs no round trip."""
        return bool(self.client_state(self._connection) != self._connection.state_when_opened)
