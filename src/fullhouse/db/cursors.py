"""Cursors that tell their wrapper when they are done, and which statements leave something behind."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

if TYPE_CHECKING:
    from fullhouse.db.pooled import Pooled


class _Tracked:
    """Mixed into Django's cursor wrappers. `db` is the database wrapper that made the cursor."""

    db: "Pooled"
    cursor: Any

    def __init__(self, cursor: Any, db: "Pooled") -> None:
        super().__init__(cursor, db)  # type: ignore[call-arg]  # Django's wrapper, next in line
        self.is_open = True
        db.cursor_opened(self)

    def execute(self, sql: Any, params: Any = None) -> Any:
        self.db.statement_begins(sql)
        try:
            return super().execute(sql, params)
        except BaseException as error:
            self.db.statement_failed(error)
            raise

    def executemany(self, sql: Any, param_list: Any) -> Any:
        self.db.statement_begins(sql)
        try:
            return super().executemany(sql, param_list)
        except BaseException as error:
            self.db.statement_failed(error)
            raise

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        self.db.pin()  # whatever the procedure does to the session, nobody else may see it
        return super().callproc(*args, **kwargs)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            try:
                with self.db.wrap_database_errors:
                    self.cursor.close()
            finally:
                self.db.cursor_closed(self)

    def __exit__(self, *exc_info: object) -> None:
        with suppress(self.db.Database.Error):  # as Django does: it would hide the error that brought us here
            self.close()

    def __del__(self) -> None:
        # A cursor that was dropped unread gives its connection back at once, unless the collector runs in a thread
        # that must not touch it: then the end of the request does.
        if getattr(self, "is_open", False) and self.db._thread_ident == threading.get_ident():
            with suppress(Exception):  # a destructor has nobody to tell
                self.close()


class PooledCursor(_Tracked, CursorWrapper):
    """Django's cursor wrapper, tracked."""


class PooledDebugCursor(_Tracked, CursorDebugWrapper):
    """Django's logging cursor wrapper, tracked."""
