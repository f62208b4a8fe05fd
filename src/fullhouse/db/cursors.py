"""Cursors that tell their wrapper when they are done, and which statements leave something behind."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

from fullhouse.db import running

if TYPE_CHECKING:
    from fullhouse.db.pooled import Pooled


# Stands for a statement whose text cannot be had: it may do anything to the session.
UNREADABLE = None


class _Tracked:
    """Mixed into Django's cursor wrappers. `db` is the database wrapper that made the cursor, `cursor` the driver's."""

    db: "Pooled"
    cursor: Any

    def __init__(self, cursor: Any, db: "Pooled") -> None:
        super().__init__(cursor, db)  # type: ignore[call-arg]  # Django's wrapper, next in line
        db.open_cursors.add(cursor)

    # The innermost steps of `execute` and `executemany`: execute wrappers may have changed the statement.
    def _execute(self, sql: Any, *args: Any) -> Any:
        return self._run(sql, super()._execute, sql, *args)

    def _executemany(self, sql: Any, *args: Any) -> Any:
        return self._run(sql, super()._executemany, sql, *args)

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(UNREADABLE, super().callproc, *args, **kwargs)

    def _run(self, sql: Any, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.db.statement_begins(sql)
        running.begins(self.db, sql)
        try:
            return run(*args, **kwargs)
        except BaseException as error:
            self.db.statement_failed(error)
            raise
        finally:
            running.ends()

    def close(self) -> None:
        if self.cursor in self.db.open_cursors:
            self.db.close_cursor(self.cursor)

    def __exit__(self, *exc_info: object) -> None:
        with suppress(self.db.Database.Error):  # as Django does: it would hide the error that brought us here
            self.close()

    def __del__(self) -> None:
        # A cursor that was dropped unread gives its connection back at once, unless the collector runs in a thread
        # that must not touch it: then the end of the request does.
        db = self.__dict__.get("db")
        if db is not None and self.cursor in db.open_cursors and db._thread_ident == threading.get_ident():
            with suppress(Exception):  # a destructor has nobody to tell
                self.close()


class PooledCursor(_Tracked, CursorWrapper):
    """Django's cursor wrapper, tracked."""


class PooledDebugCursor(_Tracked, CursorDebugWrapper):
    """Django's logging cursor wrapper, tracked."""
