"""A request that is answered by the server itself: the status, and the bytes of the answer."""

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from fullhouse.worker.http.request import Request


class RefusedError(Exception):
    """The bytes on a connection are not a request that may be served. Nothing after them can be trusted.

    `status` is the HTTP status of the answer; `str(error)` is the short text of its body. `request` is the one that
    they belong to, where its head could be read.
    """

    request: Request | None = None

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def bad_request(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


def fields_too_large(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)


@dataclass(frozen=True)
class OverloadAnswer:
    """The answer to a request that is shed, or given up. body, content_type: what the client sees with the 503."""

    body: bytes = b"Service Unavailable: the server has more requests than it can answer. Try again soon.\n"
    content_type: str = "text/plain"

    def bytes_for(self, request: Request, retry_after_s: int) -> bytes:
        """The whole response; the connection stays as the request asks for it."""
        status = HTTPStatus.SERVICE_UNAVAILABLE
        fields = f"Retry-After: {retry_after_s}\r\nCache-Control: no-store\r\n"
        return server_answer(
            status,
            self.body,
            fields,
            content_type=self.content_type,
            must_close=request.must_close,
            is_head=request.method == "HEAD",
        )


def refusal_bytes(status: HTTPStatus, message: str, *, is_head: bool = False) -> bytes:
    """The whole answer to a refused request; the connection is closed after it."""
    body = f"{status.phrase}: {message}\n".encode("latin-1", "backslashreplace")
    return server_answer(status, body, must_close=True, is_head=is_head)


def server_answer(
    status: HTTPStatus,
    body: bytes,
    fields: str = "",
    *,
    content_type: str = "text/plain",
    must_close: bool,
    is_head: bool,
) -> bytes:
    """A whole answer that no application has made. fields: further lines of its head. is_head: it is one to HEAD."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"{date_line(int(time.time()))}"
        f"Connection: {'close' if must_close else 'keep-alive'}\r\n"
        f"{fields}"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if is_head else body)


def body_bytes(answer: bytes) -> int:
    """How long the body of a whole answer is."""
    return len(answer.partition(b"\r\n\r\n")[2])


@lru_cache(maxsize=1)
def date_line(second: int) -> str:
    """The Date field of a response that is made in this second since 1970."""
    return f"Date: {formatdate(second, usegmt=True)}\r\n"
