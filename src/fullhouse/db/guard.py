"""The pool's rules at the driver's edge.

Other people's code wraps Django's cursors, unwraps them, replaces their classes, or uses the driver's connection. So
the rules stand in the driver's classes: each connection of a pool, and each cursor that it makes, is of a subclass of
the driver's own, which asks the connection's borrower before a statement.

A connection has at most one borrower at a time: the wrapper that has it on lease, or the one that opens or resets it.
Without one it is the pool's, and no thread may use it. Only the borrower's thread comes here, so nothing needs a lock;
but the garbage collector may drop a cursor in another thread.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from typing import Any, ClassVar

from fullhouse.db import running

UNREADABLE = None
"""Stands for a statement whose text cannot be had: it may do anything to the session."""

# The methods of both drivers' cursors that run a statement, and whether its text is their first argument.
_STATEMENTS = (("execute", True), ("executemany", True), ("callproc", False), ("copy", False), ("stream", False))
# Those by which a server-side cursor goes on with the statement that it has begun.
_FETCHES = ("fetchone", "fetchmany", "fetchall", "scroll", "__next__")


class Upkeep:
    """The borrower while the pool itself looks after a connection, in this thread: it needs no rules."""

    internal = 1
    allow_thread_sharing = False
    open_cursors: ClassVar[dict[int, Any]] = {}  # nothing is owed when one is closed

    def __init__(self) -> None:
        self.thread_ident = threading.get_ident()

    def cursor_opened(self, cursor: Any) -> None:
        """They are not counted."""


def guard_cursor(cursor: Any, borrower: Any) -> Any:
    """Make the driver's cursor a guarded one of the borrower's, and return it."""
    cursor.__class__ = guarded_cursor_class(cursor.__class__)
    cursor.borrower = borrower
    borrower.cursor_opened(cursor)
    return cursor


@lru_cache(maxsize=256)
def guarded_cursor_class(driver_class: type) -> type:
    """The driver's class of cursors under the rules; itself where it is that already.

    A subclass with no base but the driver's class: only then can an object of the driver's become one of it.
    """
    if hasattr(driver_class, "borrower"):
        return driver_class
    namespace: dict[str, Any] = {"__module__": driver_class.__module__, "borrower": Upkeep()}
    for name, has_text in _STATEMENTS:
        method = getattr(driver_class, name, None)
        if method is not None:
            namespace[name] = _running_guarded(method, has_text=has_text)
    close = driver_class.close  # type: ignore[attr-defined]
    if hasattr(driver_class, "itersize"):  # it is a server-side one
        close = _going_on(close)
        namespace |= {name: _going_on(getattr(driver_class, name)) for name in _FETCHES}
    namespace["close"] = _closing(close)
    namespace["__del__"] = _dropping(getattr(driver_class, "__del__", None))
    return type(driver_class.__name__, (driver_class,), namespace)


def _running_guarded(method: Callable[..., Any], *, has_text: bool) -> Callable[..., Any]:
    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        borrower = self.borrower
        # A statement that the driver runs within another passes; a closed cursor raises the driver's own error.
        if borrower.internal or id(self) not in borrower.open_cursors:
            return method(self, *args, **kwargs)
        sql = (args[0] if args else kwargs.get("query")) if has_text else UNREADABLE
        borrower.internal += 1
        try:
            borrower.statement_begins(sql)
            running.begins(borrower, sql)
            try:
                result = method(self, *args, **kwargs)
            except BaseException as error:
                borrower.statement_failed(error)
                raise
            finally:
                running.ends()
            if borrower.thread_ident in running.cancelled:
                borrower.refuse_if_cancelled()
            return result
        finally:
            borrower.internal -= 1

    return run


def _going_on(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def go_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        borrower = self.borrower
        borrower.internal += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            borrower.internal -= 1

    return go_on


def _closing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def close(self: Any) -> None:
        try:
            method(self)
        finally:
            if id(self) in self.borrower.open_cursors:
                self.borrower.cursor_closed(self)

    return close


def _dropping(method: Callable[..., Any] | None) -> Callable[..., Any]:
    def drop(self: Any) -> None:
        """A cursor that was dropped unread gives its connection back at once, unless the collector runs in a thread
        that must not touch it: then its borrower closes it later.
        """
        borrower = self.borrower
        if id(self) in borrower.open_cursors:
            if not _is_for_this_thread(borrower):
                borrower.cursor_lost(self)
                return
            with suppress(Exception):  # a destructor cannot report it
                self.close()
        if method is not None:
            method(self)

    return drop


def _is_for_this_thread(borrower: Any) -> bool:
    return borrower.thread_ident == threading.get_ident() or bool(borrower.allow_thread_sharing)


def _is_internal(borrower: Any) -> bool:
    """Whether a step of Django's or the pool's is at work, in this thread: nothing is asked then."""
    return borrower is not None and borrower.internal and borrower.thread_ident == threading.get_ident()


def ask_for_direct_use(connection: Any) -> None:
    """Called by each guarded method. Raises the driver's error where the connection has been given back."""
    _refuse_if_given_back(connection)
    if not connection.borrower.internal:
        connection.was_used_directly = True
        connection.borrower.used_directly()


def _refuse_if_given_back(connection: Any) -> None:
    borrower = connection.borrower
    if borrower is None or not _is_for_this_thread(borrower):
        raise connection.gone_error(
            "This connection was returned to the pool and may belong to another request now. Get it from Django's "
            "connection each time, or call connection.pin() first."
        )


def _talking(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def talk(self: Any, *args: Any, **kwargs: Any) -> Any:
        borrower = self.borrower
        if borrower is None or not borrower.internal:  # a cursor that the connection has not made, or COPY
            _refuse_if_given_back(self)
            borrower.used_directly()
        return method(self, *args, **kwargs)

    return talk


def _asking_first(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def asking(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_internal(self.borrower):
            ask_for_direct_use(self)
        return method(self, *args, **kwargs)

    return asking


def _making_cursors(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def cursor(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_internal(self.borrower):
            ask_for_direct_use(self)
        made = method(self, *args, **kwargs)
        try:
            return guard_cursor(made, self.borrower)
        except TypeError:  # a class of another layout that the site has set: its statements are not seen
            self.was_used_directly = True
            self.borrower.used_directly()
            return made

    return cursor


@lru_cache(maxsize=64)
def guarded_connection_class(
    driver_class: type, methods: tuple[str, ...], gone_error: type[Exception], talks: tuple[str, ...] = ()
) -> type:
    """The driver's class of connections under the rules; itself where it is that already.

    methods: through which something other than a cursor of Django's uses the connection, where the driver has them.
    talks: those through which every cursor of the driver talks to the server, however it was made.
    gone_error: what is raised for a connection that was given back.

    Of its objects, `borrower` is a Borrower or None; `was_used_directly` says that one of the methods was called since
    the pool opened it, so that anything about it may have changed. `fence`: its lock of its slot, in a fleet.
    """
    if hasattr(driver_class, "borrower"):
        return driver_class
    namespace = {
        "__module__": driver_class.__module__,
        "borrower": None,
        "was_used_directly": False,
        "fence": None,
        "gone_error": gone_error,
        "cursor": _making_cursors(driver_class.cursor),  # type: ignore[attr-defined]
        **{name: _asking_first(getattr(driver_class, name)) for name in methods if hasattr(driver_class, name)},
        **{name: _talking(getattr(driver_class, name)) for name in talks},
    }
    return type(driver_class.__name__, (driver_class,), namespace)


@contextmanager
def borrowed(connection: Any, borrower: Any) -> Iterator[None]:
    """Have another borrower for as long as the block takes."""
    before, connection.borrower = connection.borrower, borrower
    try:
        yield
    finally:
        connection.borrower = before
