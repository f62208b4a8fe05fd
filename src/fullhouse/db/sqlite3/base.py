"""Django's SQLite backend with what a server with many threads needs: writers wait for one another instead of failing.

- WAL: readers and one writer do not wait for each other. synchronous=NORMAL is safe with it, and spares a sync for
  each commit.
- BEGIN IMMEDIATE: a transaction that will write says so at once, and waits, instead of failing in its middle.
- What ATOMIC_REQUESTS opens for a GET, HEAD or OPTIONS request only reads until its first write (see `requests`).
- A busy timeout that outlasts a queue of writers. Foreign keys are on, as always with Django.

A database that cannot be written is only read. SQLite has no sessions to run out of, so there are no slots and no pool.
"""

import re
import sqlite3
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.db.backends.sqlite3 import base

from fullhouse.db.sqlite3 import requests

BUSY_TIMEOUT_S = 20

# Statements that only read. Of others than these, SAVEPOINT among them, each may be the first of some that write.
_READS = re.compile(
    r"\s*(?:SELECT|VALUES|EXPLAIN|WITH(?!.*\b(?:INSERT|UPDATE|DELETE|REPLACE)\b))\b", re.IGNORECASE | re.DOTALL
)


class Cursor(base.SQLiteCursorWrapper):
    """Django's, with a word to its connection before it writes."""

    database: "DatabaseWrapper"

    def execute(self, query: Any, params: Any = None) -> Any:
        if self.database.only_reads and not _READS.match(query):
            self.database.begin_to_write()
        return super().execute(query, params)

    def executemany(self, query: Any, param_list: Iterable[Any]) -> Any:
        if self.database.only_reads:
            self.database.begin_to_write()
        return super().executemany(query, param_list)


class DatabaseWrapper(base.DatabaseWrapper):
    """SQLite; every option of OPTIONS overrides what is set here."""

    transaction_mode: str | None
    only_reads = False
    """Whether the transaction that is open has not been asked to write yet."""

    def get_connection_params(self) -> dict[str, Any]:
        if "pool" in self.settings_dict["OPTIONS"]:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]: SQLite has no sessions to pool; remove OPTIONS['pool']."
            )
        options = {"timeout": BUSY_TIMEOUT_S, "transaction_mode": "IMMEDIATE", **self.settings_dict["OPTIONS"]}
        self.settings_dict["OPTIONS"] = options
        return super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        if "init_command" not in self.settings_dict["OPTIONS"]:
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: Any) -> None:
        """Switch to WAL, at once or not at all: to wait for those at work would keep others from reading.

        Then the file stays as it is, and a later connection tries again.
        """
        timeout_ms = round(1000 * self.settings_dict["OPTIONS"]["timeout"])
        for pragma in (
            "busy_timeout = 0",
            "journal_mode = WAL",
            f"busy_timeout = {timeout_ms}",
            "synchronous = NORMAL",
        ):
            try:
                connection.execute(f"PRAGMA {pragma}")
            except sqlite3.OperationalError as error:
                if _code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY):
                    raise

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = self.connection.cursor(factory=Cursor)
        cursor.database = self
        return cursor

    def _start_transaction_under_autocommit(self) -> None:
        self.only_reads = False
        if self.transaction_mode == "IMMEDIATE" and requests.only_reads_at_first(self.settings_dict):
            self.cursor().execute("BEGIN")
            self.only_reads = True
            return
        try:
            super()._start_transaction_under_autocommit()
        except OperationalError as error:
            if _code(error.__cause__) != sqlite3.SQLITE_READONLY:
                raise
            self.cursor().execute("BEGIN")

    def begin_to_write(self) -> None:
        """Begin anew, in the line of the writers: what was read before may be old, as in READ COMMITTED."""
        self.only_reads = False
        if not self.in_atomic_block:
            return
        with self.wrap_database_errors:
            self.connection.execute("COMMIT")
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                self.connection.execute("BEGIN")  # Django goes on to think that there is a transaction
                raise


def _code(error: BaseException | None) -> int | None:
    """SQLite's primary result code."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
