"""Which transaction is the one that ATOMIC_REQUESTS opens around a view, for a request that is there to read.

By HTTP, a GET, HEAD or OPTIONS request changes nothing that its client would have to answer for (RFC 9110, 9.2.1). Its
transaction need not stand in the line of the writers before it writes. One that a view opens itself does so at once: it
may read first what it changes afterwards.

Django does not say which of both a transaction is, so the calls that lead to it are looked at. That Django opens the
one of the request in `django.core.handlers.base` is covered by tests/integration/test_sqlite.py.
"""

import sys
import threading
from collections.abc import Mapping
from typing import Any

from django.core.signals import request_finished, request_started

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPENS_TRANSACTION_OF_REQUEST = "django.core.handlers.base"
# What lies between the caller of `atomic` and a backend.
_BETWEEN = ("fullhouse.db.", "django.db.", "django.utils.asyncio", "contextlib")

_current = threading.local()


def _started(environ: Mapping[str, Any] | None = None, **_: Any) -> None:
    _current.is_safe = environ is not None and environ.get("REQUEST_METHOD") in SAFE_METHODS


def _finished(**_: Any) -> None:
    _current.is_safe = False


request_started.connect(_started, dispatch_uid=__name__)
request_finished.connect(_finished, dispatch_uid=__name__)


def only_reads_at_first(database: Mapping[str, Any]) -> bool:
    """Whether the transaction that is being opened is that of a safe request, by ATOMIC_REQUESTS."""
    if not database["ATOMIC_REQUESTS"] or not getattr(_current, "is_safe", False):
        return False
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(_BETWEEN):
        frame = frame.f_back
    return bool(frame.f_globals["__name__"] == OPENS_TRANSACTION_OF_REQUEST)
