"""A request that is answered by the server itself: the status, and the bytes of the answer."""

from dataclasses import dataclass
from http import HTTPStatus

from fullhouse.worker.request import Request


class RefusedError(Exception):
    """The bytes on a connection are not a request that may be served. Nothing after them can be trusted.

    `status` is the HTTP status of the answer; `str(error)` is the short text of its body.
    """

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
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Connection: {'close' if request.must_close else 'keep-alive'}\r\n"
            f"Retry-After: {retry_after_s}\r\n"
            "Cache-Control: no-store\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if request.method == "HEAD" else self.body)


def refusal_bytes(status: HTTPStatus, message: str) -> bytes:
    """The whole answer to a refused request; the connection is closed after it."""
    body = f"{status.phrase}: {message}\n".encode("latin-1", "backslashreplace")
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
