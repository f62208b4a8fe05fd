"""Connections of mysqlclient and PyMySQL under the pool's rules (see `fullhouse.db.guard`)."""

from typing import Any

import MySQLdb

from fullhouse.db.guard import guarded_connection_class

# Either driver's.
_DIRECT = (
    *("autocommit", "begin", "commit", "rollback", "query", "send_query", "change_user", "select_db", "kill"),
    *("set_character_set", "set_charset", "set_sql_mode", "set_server_option"),
)


def guard(connection: Any) -> None:
    """Put the driver's connection under the pool's rules."""
    connection.__class__ = guarded_connection_class(connection.__class__, _DIRECT, MySQLdb.InterfaceError)


def client_state(connection: Any) -> Any:
    """What of the driver's own settings a borrower can change."""
    decoders = connection.converter if hasattr(connection, "converter") else connection.decoders  # PyMySQL's
    return connection.cursorclass, connection.encoders, decoders
