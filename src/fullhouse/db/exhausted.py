"""A view that gets no connection within its deadline: the site is full, which is not a bug in its code.

Django answers such an error with 500, like any other. Here it becomes 503 with Retry-After, at the edge of the WSGI
application: Django says by a signal which exception it has turned into a response.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from django.core.signals import got_request_exception

from fullhouse.db import running
from fullhouse.db.errors import ConnectionUnavailable

RETRY_AFTER_S = 1
_BODY = b"Service Unavailable: no database connection came free in time. Try again soon.\n"


class AnsweringExhausted:
    """A WSGI application around another. Each thread knows of its own request only."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self._request = threading.local()
        got_request_exception.connect(self._note, weak=False)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        running.request_begins()
        self._request.is_unavailable = False
        started: list[tuple[Any, ...]] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            if self._request.is_unavailable and status.startswith("500"):
                started.append((status, headers))
                status = "503 Service Unavailable"
                headers = [
                    ("Content-Type", "text/plain"),
                    ("Content-Length", str(len(_BODY))),
                    ("Retry-After", str(RETRY_AFTER_S)),
                ]
            return start_response(status, headers, *([exc_info] if exc_info else []))

        answer = self._application(environ, start)
        return _instead_of(answer) if started else answer

    def _note(self, **_: Any) -> None:
        if isinstance(sys.exc_info()[1], ConnectionUnavailable):
            self._request.is_unavailable = True


def _instead_of(answer: Any) -> Iterable[bytes]:
    close = getattr(answer, "close", None)
    if close is not None:
        close()
    return [_BODY]
