"""Django's PostgreSQL backend on the pool."""

from contextlib import suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.db.backends.signals import connection_created

from fullhouse.db import pooled
from fullhouse.db.guard import guard_cursor
from fullhouse.db.postgresql.statements import STATEMENTS

if not is_psycopg3:
    raise ImproperlyConfigured(
        "fullhouse.db.postgresql needs psycopg 3, and psycopg2 is installed.\nRun: pip install 'fullhouse[postgresql]'"
    )

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from fullhouse.db.postgresql import guarded

# SQLSTATE of a write on a server that only reads, as an old primary does after a failover: the session is of no use.
READ_ONLY = "25006"
# libpq reports a refused connect as text only. The server's texts for SQLSTATE 53300, too_many_connections:
SERVER_FULL = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)


HOLDS = """
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND classid IS DISTINCT FROM {}
    UNION ALL SELECT 1 FROM pg_listening_channels() LIMIT 1
"""


class Pooled(pooled.Pooled):
    """Mix in before a DatabaseWrapper that is built on Django's for PostgreSQL.

    A pinned connection is reset by DISCARD ALL, and set up again as Django does.
    """

    statements = STATEMENTS
    guard = staticmethod(guarded.guard)
    client_state = staticmethod(guarded.client_state)

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        return guard_cursor(cursor, self) if name else cursor  # Django makes those with a name by itself

    def _begin(self) -> None:
        self._connection.autocommit = False  # psycopg sends BEGIN with the first statement

    def _end_by_autocommit(self) -> None:
        self._connection.autocommit = True

    def _after_transaction(self) -> None:
        self.autocommit_on(self._connection)

    def _as_text(self, sql: Any) -> str | None:
        return sql.as_string(self._connection) if isinstance(sql, psycopg.sql.Composable) else super()._as_text(sql)

    def _is_disconnect(self, error: BaseException) -> bool:
        return self._is_gone() or getattr(error, "sqlstate", None) == READ_ONLY

    def _is_gone(self) -> bool:
        return self._connection is None or self._connection.pgconn.status != ConnStatus.OK

    def _left_dirty(self) -> bool:
        in_transaction = self._connection.pgconn.transaction_status != TransactionStatus.IDLE
        return in_transaction or super()._left_dirty()

    # -- What the pool's driver asks -----------------------------------------------------------------------------

    @staticmethod
    def autocommit_on(connection: Any) -> None:
        connection.autocommit = True  # psycopg's own note: no round trip

    @staticmethod
    def idle_limit_s(connection: Any) -> float | None:
        if connection.info.server_version < 140000:
            return None  # idle_session_timeout came with PostgreSQL 14
        cursor = connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'idle_session_timeout'")
        timeout_ms = cursor.fetchone()[0]
        return timeout_ms / 1000 if timeout_ms else None

    @staticmethod
    def descriptor(connection: Any) -> int:
        return int(connection.fileno())

    @staticmethod
    def answers(connection: Any) -> bool:
        try:
            connection.execute("")
        except psycopg.Error:
            return False
        return True

    def holds_something(self) -> bool:
        if self._borrowed.has_held:  # a statement may take any number of locks, or none
            with self._internally(), suppress(psycopg.Error):
                fence = self._connection.fence
                holds = HOLDS.format("NULL" if fence is None else fence.key % 2**32)
                self._borrowed.held = self._connection.execute(holds).rowcount
                self._borrowed.has_held = self._borrowed.held > 0
        return super().holds_something()

    def reset_session(self) -> bool:
        if _makes_sessions_of_its_own(type(self)):
            return False  # what it has set in a new session could not be set again
        connection = self._connection
        try:
            with self._internally():
                connection.rollback()
                # psycopg would go on with statements that it has prepared, and the server has forgotten.
                if connection.prepare_threshold is not None or self._left_dirty():
                    return False
                connection.execute("DISCARD ALL" if connection.fence is None else connection.fence.reset)
            self.init_connection_state()
            connection_created.send(sender=type(self), connection=self)  # receivers set up a new session
        except psycopg.Error:
            return False
        return True

    @staticmethod
    def says_full(error: BaseException) -> bool:
        if getattr(error, "sqlstate", None) == "53300":
            return True
        return isinstance(error, psycopg.OperationalError) and any(text in str(error) for text in SERVER_FULL)


def _makes_sessions_of_its_own(wrapper_class: type) -> bool:
    """Whether code other than Django's overrides how a session is opened."""
    makers = [each for each in wrapper_class.__mro__ if "get_new_connection" in vars(each)]
    return any(each.__module__.partition(".")[0] not in ("django", "fullhouse") for each in makers)


class DatabaseWrapper(Pooled, base.DatabaseWrapper):
    """ENGINE "fullhouse.db.postgresql"."""
