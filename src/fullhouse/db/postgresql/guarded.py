"""Connections of psycopg under the pool's rules (see `fullhouse.db.guard`)."""

import weakref
from threading import RLock
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap

from fullhouse.db.guard import ask_for_direct_use, guarded_connection_class, guarded_cursor_class

_DIRECT = (
    *("commit", "rollback", "transaction", "pipeline", "notifies", "set_autocommit", "set_isolation_level"),
    *("set_read_only", "set_deferrable", "add_notice_handler", "remove_notice_handler", "add_notify_handler"),
    *("remove_notify_handler", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback", "tpc_recover"),
)


class _GuardedAdapters(AdaptersMap):
    """A connection's own: a type that is registered here is registered for all its borrowers."""

    guarded: "weakref.ref[Any]"

    def register_dumper(self, *args: Any, **kwargs: Any) -> None:
        ask_for_direct_use(self.guarded())
        super().register_dumper(*args, **kwargs)

    def register_loader(self, *args: Any, **kwargs: Any) -> None:
        ask_for_direct_use(self.guarded())
        super().register_loader(*args, **kwargs)


def guard(connection: Any) -> None:
    """Put the driver's connection under the pool's rules."""
    # Who makes a cursor by its class, as in ClientCursor(connection), goes by no method of the connection but `wait`.
    connection.__class__ = guarded_connection_class(connection.__class__, _DIRECT, psycopg.InterfaceError, ("wait",))
    connection.lock = RLock()  # which such a cursor holds while `wait` begins the transaction that is due
    for factory in ("cursor_factory", "server_cursor_factory"):
        made = getattr(connection, factory)
        if not made.__dictoffset__:  # psycopg's own, whose cursors have no room for a borrower
            setattr(connection, factory, guarded_cursor_class(made))
    connection.adapters.__class__ = _GuardedAdapters
    connection.adapters.guarded = weakref.ref(connection)


def client_state(connection: Any) -> Any:
    """What of the driver's own settings a borrower can change by an assignment that no method sees."""
    return (
        connection.row_factory,
        connection.cursor_factory,
        connection.server_cursor_factory,
        connection.prepare_threshold,
        connection.prepared_max,
    )
