"""Django's PostgreSQL backend on the pool."""

from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base, operations
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.db.backends.signals import connection_created

from fullhouse.db.cursors import UNREADABLE, PooledCursor
from fullhouse.db.pooled import Pooled

if not is_psycopg3:
    raise ImproperlyConfigured(
        "fullhouse.db.postgresql needs psycopg 3, and psycopg2 is installed.\nRun: pip install 'fullhouse[postgresql]'"
    )

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

# libpq reports a refused connect as text only. The server's texts for SQLSTATE 53300, too_many_connections:
SERVER_FULL = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)


class DatabaseOperations(operations.DatabaseOperations):
    """Composing SQL needs a connection at hand, which a thread between two statements has not."""

    def compose_sql(self, sql: Any, params: Any) -> Any:
        with self.connection.temporary_connection():
            return super().compose_sql(sql, params)


class PostgresCursor(PooledCursor):
    """With psycopg's further ways to run a statement."""

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(UNREADABLE, self.cursor.copy, *args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(UNREADABLE, self.cursor.stream, *args, **kwargs)


class PostgresDebugCursor(PostgresCursor, base.CursorDebugWrapper):
    """Django's logging cursor wrapper for PostgreSQL, which logs COPY too, tracked."""

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(UNREADABLE, partial(base.CursorDebugWrapper.copy, self), *args, **kwargs)


class DatabaseWrapper(Pooled, base.DatabaseWrapper):
    """PostgreSQL. A pinned connection is reset by DISCARD ALL, and set up again as Django does."""

    stock = base.DatabaseWrapper
    ops_class = DatabaseOperations
    cursor_class = PostgresCursor
    debug_cursor_class = PostgresDebugCursor

    def _begin(self) -> None:
        self.connection.autocommit = False  # psycopg sends BEGIN with the first statement

    def _end_by_autocommit(self) -> None:
        self.connection.autocommit = True

    def _after_transaction(self) -> None:
        self.connection.autocommit = True  # psycopg's own note: no round trip

    def _as_text(self, sql: Any) -> str | None:
        return sql.as_string(self.connection) if isinstance(sql, psycopg.sql.Composable) else super()._as_text(sql)

    def _is_disconnect(self, error: BaseException) -> bool:
        return self._is_gone()

    def _is_gone(self) -> bool:
        return self.connection is None or self.connection.pgconn.status != ConnStatus.OK

    def _left_dirty(self) -> bool:
        return bool(self.connection.pgconn.transaction_status != TransactionStatus.IDLE)

    # -- What the pool's driver asks -----------------------------------------------------------------------------

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

    @staticmethod
    def reset(stock: Any) -> bool:
        connection, stock.connection = stock.connection, stock.connection
        try:
            connection.rollback()
            connection.autocommit = True
            level = stock.settings_dict["OPTIONS"].get("isolation_level")
            connection.isolation_level = None if level is None else psycopg.IsolationLevel(level)
            connection.read_only = connection.deferrable = None
            connection.execute("DISCARD ALL")
            stock.init_connection_state()
            connection_created.send(sender=type(stock), connection=stock)  # receivers set up a new session
        except psycopg.Error:
            return False
        finally:
            stock.connection = None
        return True

    @staticmethod
    def says_full(error: BaseException) -> bool:
        if getattr(error, "sqlstate", None) == "53300":
            return True
        return isinstance(error, psycopg.OperationalError) and any(text in str(error) for text in SERVER_FULL)
