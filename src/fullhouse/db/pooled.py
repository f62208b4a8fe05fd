"""The mixin that makes a Django database wrapper borrow its connection from the pool.

Django gives each thread its own wrapper for each alias; only that thread touches it, so nothing here needs a lock.
What threads share is the pool behind `self.pool`.

The life of a lease in `transaction` mode: the first cursor takes it; it goes back when the last cursor is closed and
no transaction is open (see `transactions`). A statement that changes the session pins the lease until the end of the
request, and the connection is reset before anyone else gets it.

Django's internals that this and `transactions` rely on, each covered by tests/integration/test_django_internals.py:
`connect`, `ensure_connection`, `_cursor`, `create_cursor`, `_set_autocommit`, `_savepoint*`, `_commit`, `_rollback`,
`_close`, of its cursors `_execute` and `_executemany`, and the fields `in_atomic_block`, `closed_in_transaction`,
`autocommit`, `errors_occurred`, `needs_rollback`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from fullhouse.db import errors, pools
from fullhouse.db.cursors import PooledCursor, PooledDebugCursor
from fullhouse.db.options import PoolSettings, pool_settings, unpooled_settings
from fullhouse.db.transactions import LazyTransactions
from fullhouse.errors import ConfigurationError
from fullhouse.pool.core import Pool
from fullhouse.pool.errors import CheckoutRefused, DatabaseDown, PoolError
from fullhouse.pool.hygiene import changes_session
from fullhouse.pool.sessions import Lease

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


# The settings of an alias that a connection is made from: where one differs, so does the pool.
_made_from = itemgetter("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "TIME_ZONE")


def _copied(value: Any) -> Any:
    """Containers anew; what they hold, such as an SSLContext, need not be of a kind that can be copied."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return tuple(_copied(item) for item in value) if isinstance(value, tuple) else value


class Pooled(LazyTransactions):
    """Mix in before a backend's DatabaseWrapper, which is named in `stock`."""

    stock: "type[BaseDatabaseWrapper]"
    begins_with_cursor = True  # since a server-side cursor depends on the transaction
    cursor_class: type = PooledCursor
    debug_cursor_class: type = PooledDebugCursor
    Database: Any
    _thread_ident: int

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(settings_dict, *args, **kwargs)
        try:
            self.pool_settings: PoolSettings = pool_settings(self.alias, settings_dict)
        except ConfigurationError as error:
            raise ImproperlyConfigured(str(error)) from error
        self._returns_early = self.pool_settings.mode == "transaction"
        self._lease: Lease[Any] | None = None
        self._lender: Pool[Any] | None = None
        self._pool: Pool[Any] | None = None
        self._pool_made_from: tuple[Any, ...] = ()
        # The driver's cursors that are open. One whose wrapper was collected in another thread stays here, so that
        # it is closed by this thread, and not destroyed by that one while this thread uses its connection.
        self.open_cursors: set[Any] = set()
        self._opening = 0
        self._start_afresh()

    def _start_afresh(self) -> None:
        """The logical state of a connection that nobody has used yet."""
        self._no_transaction()
        self.needs_rollback = False
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.run_on_commit = []
        self._pinned = False

    def unpooled(self) -> "BaseDatabaseWrapper":
        """Django's own wrapper for the same database: a connection of it stands on no slot."""
        return self.stock(unpooled_settings(self.settings_dict), self.alias)

    # -- What a backend fills in ---------------------------------------------------------------------------------

    def _is_gone(self) -> bool:
        """Whether the driver knows that `self.connection` is dead; costs no round trip."""
        return False

    def _left_dirty(self) -> bool:
        """Whether the driver knows of something unfinished on `self.connection`; costs no round trip."""
        return False

    @staticmethod
    def opened(stock: Any) -> None:
        """Called with Django's own wrapper when it has opened a connection for the pool."""

    @staticmethod
    def idle_limit_s(connection: Any) -> float | None:
        """Seconds after which the server ends an idle session; None: never."""
        raise NotImplementedError

    @staticmethod
    def descriptor(connection: Any) -> int:
        """The descriptor of the connection's socket."""
        raise NotImplementedError

    @staticmethod
    def answers(connection: Any) -> bool:
        """Whether the session is alive, by one round trip."""
        raise NotImplementedError

    @staticmethod
    def reset(stock: Any) -> bool:
        """Make the session of `stock`, Django's own wrapper around a connection, like new; False: it cannot be."""
        raise NotImplementedError

    @staticmethod
    def says_full(error: BaseException) -> bool:
        """Whether the driver's `error` says that the server has no session left."""
        raise NotImplementedError

    # -- The lease -----------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool[Any]:
        """This process's pool of this alias and its settings, which test runners and tests change in place.

        Raises ImproperlyConfigured for settings that cannot be used, or that Django refuses to connect with.
        """
        made_from = _made_from(self.settings_dict)
        if self._pool is None or self._pool.is_closed or made_from != self._pool_made_from:
            self.get_connection_params()
            try:
                self._pool = pools.pool_of(self, made_from)
            except ConfigurationError as error:
                raise ImproperlyConfigured(str(error)) from error
            self._pool_made_from = _copied(made_from)
        return self._pool

    def close_pool(self) -> None:
        """Close the pool, as Django asks before it drops a test database."""
        pools.close_pool_of(self, _made_from(self.settings_dict))

    def connect(self) -> None:
        """Take a connection from the pool. Raises Django's OperationalError with the pool's evidence."""
        self.check_settings()
        if not self.in_atomic_block and self.closed_in_transaction:
            self._start_afresh()
        lender = self.pool
        try:
            self._lease = lender.checkout()
        except CheckoutRefused as refused:
            kind = errors.DatabaseDown if isinstance(refused, DatabaseDown) else errors.PoolExhausted
            raise kind(str(refused), refused.statistics) from refused
        except PoolError as refused:
            raise errors.ConnectionUnavailable(str(refused)) from refused
        self._lender = lender
        self.connection = self._lease.connection

    def ensure_connection(self) -> None:
        if self._changing_autocommit:
            return  # autocommit is a note here, until there is a statement
        if self._lease is not None:
            if not self._lease.ended:
                return
            self._lose_lease()
        super().ensure_connection()

    def _lose_lease(self) -> None:
        """After a fork the connection is the parent's, and so is its transaction: this process has none."""
        self._lease = self.connection = None
        self.open_cursors.clear()
        self._transaction_open = self._pinned = False
        if self.in_atomic_block:
            self.closed_in_transaction = self.needs_rollback = True

    def _give_back(self) -> None:
        """Return the lease, with everything this thread left open closed and rolled back."""
        lease, lender = self._lease, self._lender
        if lease is None or lender is None:
            return
        while self.open_cursors:
            with suppress(Exception):
                self.open_cursors.pop().close()
        if self._lease is None:
            return  # the collector has dropped a cursor meanwhile, which returned it
        if self._transaction_open and not self._broken:
            try:
                self.connection.rollback()
                self._after_transaction()
            except Exception:
                self._broken = True
        self._lease = None
        broken = self._broken or self._is_gone()
        dirty = self._pinned or (not broken and self._left_dirty())
        self.connection = None
        self._transaction_open = self._pinned = self._broken = self.errors_occurred = False
        self._begin_due = not self.autocommit
        lender.checkin(lease, dirty=dirty, broken=broken)

    def _return_if_done(self) -> None:
        if self._returns_early and not (self._transaction_open or self._pinned or self._opening or self.open_cursors):
            self._give_back()

    def close(self) -> None:
        if self.in_atomic_block and self.connection is None and not self.closed_in_transaction:
            self.validate_thread_sharing()
            self.run_on_commit = []
            self.closed_in_transaction = self.needs_rollback = True
            return
        super().close()
        if not self.in_atomic_block:
            self._start_afresh()

    def _close(self) -> None:
        if self.in_atomic_block:
            # Django keeps the closed connection in `self.connection` until the block ends: nobody else may have it.
            self._broken = True
            connection, lease, lender = self.connection, self._lease, self._lender
            self._lease = None
            with suppress(Exception):
                connection.close()
            self.open_cursors.clear()
            if lease is not None and lender is not None:
                lender.checkin(lease, dirty=True)  # its reset finds it closed
        else:
            self._give_back()

    def close_if_unusable_or_obsolete(self) -> None:
        """Called by Django at the start and the end of each request: the end of the lease, except in session mode."""
        if self.connection is None and self._is_fresh():
            return
        if self.pool_settings.mode != "session" or not self._may_keep_lease():
            self.close()

    def _is_fresh(self) -> bool:
        """Whether nothing has happened that the next request could see."""
        if self.in_atomic_block or self.closed_in_transaction or self.run_on_commit:
            return False
        return bool(self.autocommit == self.settings_dict["AUTOCOMMIT"])

    def _may_keep_lease(self) -> bool:
        if self.in_atomic_block or self._broken or self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            return False
        return self._lease is None or self._lender is None or not self._lender.has_expired(self._lease)

    def close_if_health_check_failed(self) -> None:
        """The pool has looked after the connection that it lends."""

    def is_usable(self) -> bool:
        return self.connection is not None and super().is_usable()

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        with self.cursor() as cursor:
            yield cursor

    def _nodb_cursor(self) -> AbstractContextManager[Any]:
        """For making and dropping test databases: on a connection of its own, which nobody uses again."""
        return self.unpooled()._nodb_cursor()

    # -- Cursors -------------------------------------------------------------------------------------------------

    def _cursor(self, name: str | None = None) -> Any:
        # The garbage collector may close a forgotten cursor at any moment of this, which must not return the lease.
        self._opening += 1
        try:
            return super()._cursor(name)
        finally:
            self._opening -= 1

    def create_cursor(self, name: str | None = None) -> Any:
        if self._begin_due and self.begins_with_cursor:
            self._send_due()
        return super().create_cursor(name)

    def make_cursor(self, cursor: Any) -> Any:
        return self.cursor_class(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        return self.debug_cursor_class(cursor, self)

    def close_cursor(self, cursor: Any) -> None:
        """Close one of the driver's, and give the connection back if it was the last thing that needed it."""
        try:
            cursor.close()
        finally:
            self.open_cursors.discard(cursor)
            self._return_if_done()

    def statement_begins(self, sql: Any) -> None:
        """Send the BEGIN that is due, and pin the connection if the statement leaves something in the session."""
        self.validate_no_broken_transaction()  # before anything is sent
        if not self._pinned:
            text = self._as_text(sql)
            self._pinned = text is None or changes_session(text, self.vendor)
        if self._begin_due:
            self._send_due()

    def _as_text(self, sql: Any) -> str | None:
        """The text of a statement; None: it cannot be had."""
        if isinstance(sql, str):
            return sql
        return sql.decode(errors="replace") if isinstance(sql, bytes | bytearray) else None

    def pin(self) -> None:
        """Keep the connection until the end of the request, and have it reset before anyone else gets it."""
        self._pinned = True
