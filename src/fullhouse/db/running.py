"""Which request and statement each thread runs, and how to cancel them.

A thread writes its own entries only; others read. The canceller marks the entry first, and the thread does not leave
its statement before the cancelling is over: so it can never hit the statement after it. A request that was cancelled
runs no further statement and commits nothing, because its client has received a 503.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from math import inf
from typing import Any

from fullhouse.db.contracts import Backend
from fullhouse.errors import described
from fullhouse.telemetry.times import own

# How long a statement that has ended waits for its canceller; connecting takes longer only if the server is in trouble.
_PATIENCE_S = 5.0
_CONNECT_TIMEOUT_S = 4


class Statement:
    """One that runs now. `sql` is None where its text cannot be had. connection: the driver's. session: MySQL's number
    for it, which mysqlclient gives only to the thread that uses the connection.

    abandoned: its thread has gone on, and the session may be another's; `_cancelling` guards it.
    """

    __slots__ = ("abandoned", "began_s", "cancelled", "connection", "session", "sql", "wrapper")

    def __init__(self, wrapper: Backend, sql: Any) -> None:
        self.began_s = time.monotonic()
        self.wrapper = wrapper
        self.sql = sql
        self.connection = wrapper.connection
        self.session = int(self.connection.thread_id()) if wrapper.vendor == "mysql" else None
        self.cancelled: threading.Event | None = None
        self.abandoned = False


class RunningRequest:
    """One that a thread runs, or has run last. began_s: on the monotonic clock."""

    __slots__ = ("began_s",)

    def __init__(self) -> None:
        self.began_s = time.monotonic()


cancelled: set[int] = set()
"""Threads whose request was cancelled: they may neither run a statement nor commit until their next request."""
_requests: dict[int, RunningRequest] = {}
_own = threading.local()


class _OwnThread:
    """Goes with its thread, and with it what is known of it: the system gives the identifier to another thread."""

    # Bound here, since the names of the module may be gone when the main thread ends.
    _forget_request, _forget_cancelling = _requests.pop, cancelled.discard

    def __init__(self) -> None:
        self.ident = threading.get_ident()

    def __del__(self) -> None:
        self._forget_request(self.ident, None)
        self._forget_cancelling(self.ident)


_running: dict[int, Statement] = {}
_cancelling = threading.Lock()
_before_wait: Callable[[], object] = bool


def tell_waits(before_wait: Callable[[], object]) -> None:
    """Have each thread call `before_wait` when it is about to wait for the answer of a database."""
    global _before_wait
    _before_wait = before_wait


def waits() -> None:
    """The calling thread is about to wait for a database."""
    _before_wait()


def request_begins() -> None:
    """The calling thread runs another request from now on."""
    ident = threading.get_ident()
    if ident not in _requests:
        _own.thread = _OwnThread()
    _requests[ident] = RunningRequest()
    cancelled.discard(ident)


def serves_request(thread: int) -> bool:
    """Whether the thread is one that requests run in. Where requests are not announced here, any thread may be."""
    return thread in _requests or not _requests


def begins(wrapper: Backend, sql: Any) -> None:
    """The calling thread runs a statement from now on. Without a connection there is nothing to cancel."""
    _before_wait()
    if wrapper.connection is not None:
        _running[threading.get_ident()] = Statement(wrapper, sql)


def ends() -> None:
    """The calling thread's statement has ended, well or not."""
    statement = _running.pop(threading.get_ident(), None)
    if statement is None:
        return
    times = own.times
    times.statements += 1
    times.statements_s += time.monotonic() - statement.began_s
    if statement.cancelled is not None and not statement.cancelled.wait(_PATIENCE_S):
        with _cancelling:
            statement.abandoned = True


def statement_of(thread: int) -> str | None:
    """The SQL that the thread with this identifier runs; None where it runs none."""
    statement = _running.get(thread)
    return None if statement is None else str(statement.sql or "a statement whose text is not known")


def cancel(thread: int, began_before_s: float = inf) -> str | None:
    """Cancel the thread's request, and its statement on the server: MySQL's over a session of its own, on no slot.

    A request that began later than `began_before_s`, on the monotonic clock, is not the one that was meant.

    Blocks for a connect and one statement. Returns why it could not be done; None where it was, or nothing ran.
    """
    request = _requests.get(thread)
    if request is not None:
        if request.began_s > began_before_s:
            return None
        cancelled.add(thread)
    statement = _running.get(thread)
    if statement is None:
        return None
    statement.cancelled = done = threading.Event()
    try:
        if _running.get(thread) is statement:  # it had not ended before it was marked
            _cancel_on_server(statement)
    except Exception as error:
        return described(error)
    finally:
        done.set()
    return None


def _cancel_on_server(statement: Statement) -> None:
    wrapper = statement.wrapper
    if wrapper.vendor == "postgresql":
        # The protocol's own request: it needs no session, and a pooler in between knows whom it is for.
        with _cancelling:
            if not statement.abandoned:
                statement.connection.cancel_safe(timeout=_CONNECT_TIMEOUT_S)
        return
    other = wrapper.unpooled()
    other.settings_dict["OPTIONS"].setdefault("connect_timeout", _CONNECT_TIMEOUT_S)
    with closing(other), other.cursor() as cursor, _cancelling:
        if not statement.abandoned:
            cursor.execute("KILL QUERY %s", [statement.session])
