"""Django's MySQL backend on the pool."""

from typing import Any

import MySQLdb as Database
from django.db.backends.mysql import base
from django.utils.functional import cached_property

from fullhouse.db import pooled
from fullhouse.db.mysql import guarded
from fullhouse.db.mysql.statements import STATEMENTS, may_commit
from fullhouse.plan.limits import server_address

# Too many sessions: on the server, of the account at once (two ways to count), or of the account in an hour.
SERVER_FULL = {1040, 1203, 1226}
# The session is gone. From the client libraries, any error of their own: out of step (2014), lost (2006, 2013), and
# over TLS 2026 for every end of a session. 0 is what the drivers give for a connection that is closed already.
# From the servers: aborted (1152, 1184), out of step (1156, 1157), lost (1153, 1158 to 1161), shut down (1053, 1077,
# 1080, 3032), killed (1927, 3169), timed out (4031), or over a limit of memory (4081, 4082). MySQL's 1317 reports a
# statement that was killed, and of one whose session was. Where a code means less, as the last three do on MariaDB,
# taking the session for gone costs a reconnect.
DISCONNECTED = {
    *(0, 1053, 1077, 1080, 1152, 1153, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 3032, 3169),
    *(4031, 4081, 4082),
    *range(2000, 3000),
}
# After a failover the old primary only reads: these sessions are of no more use (1290, 1792, 1836).
READ_ONLY = {1290, 1792, 1836}

# Django's facts about each server, (host, port) → facts: its version and SQL mode decide what features it has.
_server_data: dict[tuple[str, str], dict[str, Any]] = {}


class Pooled(pooled.Pooled):
    """Mix in before a DatabaseWrapper that is built on Django's for MySQL and MariaDB.

    A pinned connection is replaced: mysqlclient cannot reset a session.
    """

    begins_with_cursor = False  # SET TRANSACTION must come before anything else

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """What Django asks a server once for each thread is asked once for each process here."""
        server = server_address(self.vendor, self.settings_dict)
        if server not in _server_data and self.is_unpooled:
            _server_data[server] = base.DatabaseWrapper.mysql_server_data.func(self)  # type: ignore[attr-defined]
        elif server not in _server_data:
            self.ensure_connection()
        return _server_data[server]

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        params.pop("pool", None)
        return params

    def _begin(self) -> None:
        if self._borrowed.pinned:  # as Django's own engine does: START TRANSACTION would end LOCK TABLES
            self._connection.autocommit(False)
        else:
            self._connection.query("START TRANSACTION")

    def statement_failed(self, error: BaseException) -> None:
        super().statement_failed(error)
        # A deadlock, say, has ended the transaction. What follows in the block belongs to a new one, as with Django's
        # own engine; if the old one is still open, this changes nothing.
        failed_on_server = isinstance(error.__cause__ or error, Database.Error)
        if (
            failed_on_server
            and self._transaction_open
            and not self._borrowed.broken
            and self._connection.get_autocommit()
        ):
            try:
                self._connection.autocommit(False)
            except Database.Error:
                self._borrowed.broken = True

    def statement_begins(self, sql: Any) -> None:
        super().statement_begins(sql)
        # DDL ends the transaction, and what follows in the block belongs to a new one, as with Django's own engine.
        if self._transaction_open:
            text = self._as_text(sql)
            if text is None or may_commit(text):
                self._expect_any_end()

    def _after_transaction(self) -> None:
        self.autocommit_on(self._connection)

    def _expect_any_end(self) -> None:
        if self._connection.get_autocommit():  # a transaction that is begun by START TRANSACTION
            self._connection.autocommit(False)

    def _end_by_autocommit(self) -> None:
        self._connection.commit()  # as SET autocommit = 1 does
        self._after_transaction()

    def _is_gone(self) -> bool:
        return self._connection is None or not self._connection.open

    def _is_disconnect(self, error: BaseException) -> bool:
        if isinstance(error, Database.InterfaceError):
            return True
        code = error.args[0] if error.args else None
        return isinstance(error, Database.Error) and code in DISCONNECTED | READ_ONLY

    # -- What the pool's driver asks -----------------------------------------------------------------------------

    statements = STATEMENTS
    guard = staticmethod(guarded.guard)
    client_state = staticmethod(guarded.client_state)

    def opened(self) -> None:
        self.mysql_server_data  # noqa: B018  asked now, while no request waits

    @staticmethod
    def autocommit_on(connection: Any) -> None:
        if not connection.get_autocommit():  # the drivers know: no round trip
            connection.autocommit(True)

    @staticmethod
    def idle_limit_s(connection: Any) -> float | None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@session.wait_timeout")
            return float(cursor.fetchone()[0])

    @staticmethod
    def descriptor(connection: Any) -> int:
        if hasattr(connection, "fileno"):
            return int(connection.fileno())
        return int(connection._sock.fileno())  # PyMySQL has no public way

    @staticmethod
    def answers(connection: Any) -> bool:
        try:
            # A statement, not ping(): PyMySQL's would connect again, and the new session lacks all that Django set.
            connection.query("DO 1")
        except Database.Error:
            return False
        return True

    def reset_session(self) -> bool:
        return False

    @staticmethod
    def says_full(error: BaseException) -> bool:
        return isinstance(error, Database.Error) and bool(error.args) and error.args[0] in SERVER_FULL


class DatabaseWrapper(Pooled, base.DatabaseWrapper):
    """ENGINE "fullhouse.db.mysql"."""
