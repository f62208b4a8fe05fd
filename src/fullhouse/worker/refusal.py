"""A request that is answered by the server itself: the status, and the bytes of the answer."""

from http import HTTPStatus


class RefusedError(Exception):
    """The bytes on a connection are not a request that may be served. Nothing after them can be trusted.

    `status` is the HTTP status of the answer; `str(error)` is the short text of its body.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def bad_request(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


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
