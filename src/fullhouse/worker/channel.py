"""One client: its socket, its HTTP state, and who may touch them.

A channel belongs to the loop until a complete request is handed over, then to the thread that runs it, and to
the loop again when that thread calls `give_back`. `busy` says which; only the loop sets it, only the thread
clears it. While a thread owns the channel, the loop reads nothing and parses nothing: it only notes in
`input_waiting` that there is more. Setting one flag and then looking at the other, on both sides, makes sure
that one of them goes on.
"""

import select
import socket
import time
from collections.abc import Callable
from math import inf
from typing import Any

from fullhouse.worker.connection import HttpConnection
from fullhouse.worker.options import Options
from fullhouse.worker.unsent import FileRange, Unsent

_COPY_LIMIT_BYTES = 64 * 1024  # up to here, joining head and body is cheaper than a second system call


class ClientGoneError(Exception):
    """The client closed its connection, or read too slowly, while a response was being streamed."""


class Channel:
    """A client's connection. Methods named `*_nowait` never block; the others may, and are for threads."""

    __slots__ = (
        "_call_loop",
        "busy",
        "contended",
        "deadline",
        "fd",
        "http",
        "input_waiting",
        "lingering",
        "options",
        "peer",
        "server",
        "sock",
        "started",
        "unsent",
        "watched",
    )

    def __init__(
        self,
        sock: Any,
        http: HttpConnection,
        server: Any,
        options: Options,
        call_loop: Callable[["Channel"], None],
    ) -> None:
        self.sock = sock
        self.fd: int = sock.fileno()
        self.http = http
        self.peer = http.peer
        self.server = server
        self.options = options
        self.busy = False
        self.contended = False  # the loop has seen input once while a thread owned the channel
        self.input_waiting = False
        self.unsent: Unsent | None = None
        self.lingering = False  # closed by us, kept only until the client has read the end
        self.deadline = inf  # on the monotonic clock, for whatever is waited for
        self.started = 0.0  # when the transfer that has a minimum rate began
        self.watched = 0  # the events that the loop polls it for
        self._call_loop = call_loop

    def send(self, head: bytes, body: bytes, file: FileRange | None = None) -> None:
        """Send a whole response without waiting; what the socket does not take is left to the loop.

        Raises ClientGoneError.
        """
        unsent: Unsent | None = None
        try:
            if file is None and len(body) <= _COPY_LIMIT_BYTES:
                unsent = self._send_joined_nowait(head + body if body else head)
            else:
                unsent = Unsent([head, body], file)
            if unsent is None or unsent.send_nowait(self.sock):
                return
        except OSError as error:
            if unsent is not None:
                unsent.close()
            raise ClientGoneError(str(error)) from None
        unsent.spool(self.options.unsent_memory_bytes, sendfile=self.options.sendfile)
        self.unsent = unsent

    def _send_joined_nowait(self, data: bytes) -> Unsent | None:
        """The usual small response: one system call, nothing left."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        return None if sent == len(data) else Unsent([memoryview(data)[sent:]])

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for the client as long as it keeps the minimum rate.

        Raises ClientGoneError.
        """
        unsent = Unsent([data])
        started = time.monotonic()
        while not self._send_nowait(unsent):
            self._wait_writable(self.options.transfer_deadline(started, unsent.sent) - time.monotonic())

    def _send_nowait(self, unsent: Unsent) -> bool:
        try:
            return unsent.send_nowait(self.sock)
        except OSError as error:
            raise ClientGoneError(str(error)) from None

    def _wait_writable(self, timeout_s: float) -> None:
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        if timeout_s <= 0 or not poller.poll(timeout_s * 1000):
            raise ClientGoneError("it reads too slowly")

    def half_close(self) -> None:
        """End the connection after the last response, so that the client can still read it to its end."""
        self.lingering = True
        self.deadline = time.monotonic() + self.options.linger_s
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.deadline = 0.0  # there is nobody left to wait for

    def give_back(self, idle_until: float) -> None:
        """Return the channel to the loop. The caller must not touch it any more."""
        if not self.lingering:
            self.deadline = idle_until
        has_unsent = self.unsent is not None
        self.busy = False
        if has_unsent or self.input_waiting:
            self._call_loop(self)
