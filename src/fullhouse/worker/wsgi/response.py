"""The response to one request: start_response, the head, and how the body is framed."""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any

from gunicorn import SERVER
from gunicorn.util import hop_headers

from fullhouse.telemetry.times import Times
from fullhouse.worker.channel import Channel, ClientGoneError
from fullhouse.worker.http.refusal import date_line
from fullhouse.worker.http.request import Request
from fullhouse.worker.timer import Timer
from fullhouse.worker.unsent import FileRange

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Headers = list[tuple[str, str]]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_STATUS = re.compile(r"([0-9]{3})(?: [ \t\x21-\x7e\x80-\xff]*)?")


@lru_cache(maxsize=256)
def _field(name: str, value: str) -> tuple[str, tuple[str, str]]:
    """Its name in lower case, and the field as it is sent. An application sets the same ones again and again.

    Raises TypeError or ValueError for what is none.
    """
    for text in (name, value):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a string")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"Invalid response header name from the application: {name!r}")
    if not _VALUE.fullmatch(value):  # the value may be a secret: only the name is reported
        raise ValueError(f"Invalid response header from the application: {name!r}")
    return name.lower(), (name, value.strip(" \t"))


@lru_cache(maxsize=1024)
def _status_code(status: str) -> int:
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ValueError(f"Invalid status {status!r}")
    return int(match[1])


@lru_cache(maxsize=16)
def _head_start(version: tuple[int, int], status: str, connection: str, second: int) -> str:
    """The lines of a response's head that are the same for many."""
    protocol = "HTTP/1.1" if version == (1, 1) else "HTTP/1.0"
    return f"{protocol} {status}\r\nServer: {SERVER}\r\n{date_line(second)}Connection: {connection}\r\n"


def _length(value: str, before: int | None) -> int:
    """An application's Content-Length. Raises ValueError for one that is none, or contradicts the one before."""
    if not (value.isascii() and value.isdigit()) or before not in (None, int(value)):
        raise ValueError(f"Invalid Content-Length from the application: {value!r}")
    return int(value)


def server_timing(times: Times) -> str:
    """The value of Server-Timing (W3C): the parts and their sum, in milliseconds; without those that are exactly 0."""
    found = f"queue;dur={1000 * times.waited_s:.1f}, "
    if times.connection_s or times.statements:
        connection_ms, statements_ms = 1000 * times.connection_s, 1000 * times.statements_s
        found += f"connection;dur={connection_ms:.1f}, statements;dur={statements_ms:.1f}, "
    if times.sent_s:
        found += f"send;dur={1000 * times.sent_s:.1f}, "
    if times.cpu_s is not None:
        found += f"computed;dur={1000 * times.cpu_s:.1f}, "
    return f"{found}application;dur={1000 * times.application_s:.1f}, total;dur={1000 * times.total_s:.1f}"


class Response:
    """What gunicorn's hooks and access log know of a response; and the only writer of its bytes.

    `headers` are those that the application set and may set. `sent` counts bytes of the body.
    """

    status = ""
    status_code = 0
    headers_sent = False
    has_turn = False
    socket_taken = False
    response_length: int | None = None
    chunked = False
    upgrade = False
    sent = 0
    times: Timer | None = None
    server_timing = False  # whether its head tells them

    def __init__(self, request: Request, channel: Channel, is_stopping: Callable[[], bool]) -> None:
        self.request = request
        self._channel = channel
        self._is_stopping = is_stopping
        self.headers: Headers = []
        self.must_close = request.must_close

    def force_close(self) -> None:
        self.must_close = True

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Any:
        """PEP 3333's start_response. Raises for what may not be sent, or may not be sent any more."""
        if exc_info:
            try:
                if self.headers_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise AssertionError("start_response was called twice without exc_info")
        if not isinstance(status, str):
            raise TypeError(f"{status!r} is not a string")
        self.status_code = _status_code(status)
        self.status = status
        self._set_headers(headers)
        return self.write

    def _set_headers(self, headers: Headers) -> None:
        self.headers = kept = []
        self.response_length = None
        for name, value in headers:
            key, field = _field(name, value)
            if key == "content-length":
                if self.status_code == 204 or self.status_code < 200:  # RFC 9110 section 8.6
                    continue
                self.response_length = _length(field[1], self.response_length)
            elif key in hop_headers:
                websocket = key == "upgrade" and field[1].lower() == "websocket"
                self.upgrade = self.upgrade or (key == "connection" and field[1].lower() == "upgrade")
                if not websocket:
                    continue
            kept.append(field)

    @property
    def omits_body(self) -> bool:
        """Whether the response has no body, whatever the application returns (RFC 9110 section 6.4.1)."""
        return self.status_code in (204, 304) or self.status_code < 200 or self.request.method == "HEAD"

    def write(self, data: bytes) -> None:
        """Send a piece of a body whose end is not known yet. Blocks while the client cannot take it."""
        if not isinstance(data, bytes):
            raise TypeError(f"{data!r} is not bytes")
        first = not self.headers_sent
        head = self._begin_stream() if first else b""
        piece = self._cut(data)
        self.sent += len(piece)
        if self.chunked and piece:
            piece = b"%X\r\n%b\r\n" % (len(piece), piece)
        if first or piece:
            self._channel.write(head + piece)

    def _begin_stream(self) -> bytes:
        known = self.response_length is not None or self.omits_body
        self.chunked = not known and self.request.version >= (1, 1)
        if not (known or self.chunked):
            self.force_close()
        return self._head()

    def _cut(self, data: bytes) -> bytes:
        """`data` without what exceeds the announced length, or without anything if there is no body."""
        if self.omits_body:
            return b""
        if self.response_length is None:
            return data
        return data[: self.response_length - self.sent]

    def finish_stream(self) -> None:
        """End what `write` has begun."""
        if not self.headers_sent:
            self.write(b"")
        if self.chunked:
            self._channel.write(b"0\r\n\r\n")
        elif self._is_short():
            self.force_close()

    def _is_short(self) -> bool:
        """Whether the client would wait for ever for the rest of the announced length."""
        return self.response_length is not None and not self.omits_body and self.sent < self.response_length

    def send_whole(self, body: bytes) -> None:
        """Send a response whose body is all there, without waiting."""
        length = self.response_length
        if self.omits_body:
            body = b""
        elif length is None:
            self.headers.append(("Content-Length", str(len(body))))
        elif len(body) < length:
            self.force_close()
        else:
            body = body[:length]
        self.sent = len(body)
        self._channel.send_whole(self._head(), body)

    def send_file(self, file: FileRange) -> None:
        """Send a response whose body is in a file, without waiting. Takes over the descriptor, even if it raises."""
        if self.omits_body:
            file.count = 0
        elif self.response_length is None:
            self.headers.append(("Content-Length", str(file.count)))
        else:
            file.count = min(file.count, self.response_length)
        self.sent = file.count
        if self._is_short():
            self.force_close()
        try:
            head = self._head()
        except BaseException:
            file.close()
            raise
        self._channel.send_whole(head, b"", file)

    def take_turn(self) -> None:
        """Become the one who answers. Raises ClientGoneError where the loop has answered 503 for us."""
        if not (self.has_turn or self._channel.take_turn()):
            raise ClientGoneError("its request exceeded its time limit and got 503")
        self.has_turn = True

    def take_socket(self) -> None:
        """Leave the connection to the application, which speaks another protocol on it; it ends with the request."""
        if not self.socket_taken:
            self.take_turn()
            self.socket_taken = True
            self.force_close()
            self._channel.sock.setblocking(True)

    def _head(self) -> bytes:
        if not self.status:
            raise AssertionError("the application did not call start_response")
        self.take_turn()
        self.headers_sent = True
        if self._is_stopping():
            self.force_close()
        connection = "upgrade" if self.upgrade else "close" if self.must_close else "keep-alive"
        lines = [_head_start(self.request.version, self.status, connection, int(time.time()))]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        if self.server_timing and self.times is not None:
            self.times.look()
            lines.append(f"Server-Timing: {server_timing(self.times)}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

    def send_early_hints(self, headers: list[tuple[str | bytes, str | bytes]]) -> None:
        """wsgi.early_hints: a 103 response, to HTTP/1.1 and before the real one has begun."""
        if self.headers_sent or self.request.version < (1, 1):
            return
        self.take_turn()
        lines = ["HTTP/1.1 103 Early Hints\r\n"]
        for raw_name, raw_value in headers:
            name = raw_name.decode("latin-1") if isinstance(raw_name, bytes) else raw_name
            value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value
            _, field = _field(name, value)
            lines.append(f"{field[0]}: {field[1]}\r\n")
        self._channel.write("".join([*lines, "\r\n"]).encode("latin-1"))
