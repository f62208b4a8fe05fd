"""One client: its socket, its HTTP state, and the response on its way to it.

A channel belongs to the loop. While it is `busy`, a thread runs its request: then the loop neither reads nor
writes, and the thread may use the methods below, until it puts the channel among those that the loop takes
back. So no two threads ever use a socket or its TLS state at once, and nothing here needs a lock.
"""

import select
import time
from math import inf
from typing import Any

from fullhouse.telemetry.times import Times
from fullhouse.worker.http.connection import HttpConnection
from fullhouse.worker.http.request import Request
from fullhouse.worker.options import Options
from fullhouse.worker.pace import Pace
from fullhouse.worker.unsent import FileRange, Unsent

SMALL_BYTES = 64 * 1024  # up to here, head and body are joined, which costs less than a second piece


class ClientGoneError(Exception):
    """The client closed its connection, or reads too slowly, while a thread was sending to it."""


class Channel:
    """A client's connection, as the loop and the thread that runs its request see it."""

    __slots__ = (
        "_turn",
        "_write_pace",
        "_written",
        "began_s",
        "busy",
        "counted_bytes",
        "deadline",
        "ended_s",
        "failed",
        "fd",
        "given_up",
        "gone",
        "head_begun",
        "http",
        "lingering",
        "must_close",
        "options",
        "pace",
        "peer",
        "request",
        "send_error",
        "sending",
        "sent_s",
        "server",
        "small_response",
        "sock",
        "times",
        "unsent",
        "watched",
    )

    def __init__(self, sock: Any, http: HttpConnection, server: Any, options: Options) -> None:
        self.sock = sock
        self.fd: int = sock.fileno()
        self.http = http
        self.peer = http.peer
        self.server = server
        self.options = options
        self.busy = False
        self.request: Request | None = None  # that is run, or waits for it
        self.gone = False  # the client has closed its end and waits for no answer
        self.given_up = False  # the loop has answered its request, whose thread has not come back yet
        self._turn: list[bool] = []  # one item until its request is answered
        # The pace of the response that a thread writes: its clock stands while the application has nothing to send.
        self._write_pace: Pace | None = None
        self.sent_s = 0.0  # how long that thread has waited for the client
        self._written = 0
        self.began_s = 0.0  # when its request was complete, as long as that is not counted
        self.ended_s = 0.0  # when its response was made
        self.times: Times | None = None  # of the last request that the application has answered
        self.failed = False  # whether the last request was answered with a status of 500 or above
        self.head_begun = False  # some bytes of a request have come, not all of its headers
        self.small_response = b""  # complete
        self.sending = False  # a thread sends it, and returns the channel next
        self.send_error: OSError | None = None
        self.unsent: Unsent | None = None  # what the socket did not take
        self.must_close = False  # after the response
        self.lingering = False  # closed by us; kept only until the client has read the end
        self.deadline = inf  # on the monotonic clock, for whatever is waited for; not while busy
        self.pace: Pace | None = None  # of the body or response that is on its way
        self.watched = 0  # the events that the loop polls it for
        self.counted_bytes = 0  # what the worker's memory for transfers counts for it

    def begin_request(self, request: Request) -> None:
        """The loop hands its request to a thread, or to the queue in front of them."""
        self.busy, self.request, self.gone = True, request, False
        self._turn, self.times = [True], None
        self._write_pace, self.sent_s, self._written = None, 0.0, 0

    @property
    def kept_bytes(self) -> int:
        """How much of its requests and of its response is in memory. For the loop."""
        return (
            self.http.kept_bytes
            + (0 if self.request is None else self.request.kept_bytes)
            + (0 if self.unsent is None else self.unsent.kept_bytes)
        )

    def spool(self) -> None:
        """Move to files what can be. For the loop. Raises OSError."""
        self.http.spool()
        if self.unsent is not None:
            self.unsent.spool(0, sendfile=self.options.sendfile)

    def take_turn(self) -> bool:
        """Whether the caller, of all that might, is the one to answer the request. Taking an item is atomic."""
        try:
            return self._turn.pop()
        except IndexError:
            return False

    # for the thread that runs its request

    def send_whole(self, head: bytes, body: bytes, file: FileRange | None = None) -> None:
        """Send a response without waiting for the client, or leave it to the loop.

        What is small is sent in batches, when the request has ended. This thread begins with what may have to be
        spooled to a file, which would hold the loop up; the loop sends the rest. Raises ClientGoneError.
        """
        if file is None and len(body) <= SMALL_BYTES:
            self.small_response = head + body
            return
        unsent = Unsent([head, body], file)
        if file is None and len(body) <= self.options.unsent_memory_bytes:
            self.unsent = unsent
            return
        try:
            finished = self._send_nowait(unsent)
        except ClientGoneError:
            unsent.close()
            raise
        if not finished:
            unsent.spool(self.options.unsent_memory_bytes, sendfile=self.options.sendfile)
            self.unsent = unsent

    def send_small(self) -> None:
        """Send what `small_response` holds, as far as the socket takes it; the loop looks after the rest."""
        data, self.small_response = self.small_response, b""
        self.sending = True
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.send_error = error
            return
        if sent < len(data):
            self.unsent = Unsent([memoryview(data)[sent:]])

    @property
    def needs_loop(self) -> bool:
        """Whether a channel that its thread returns is more than an idle one whose next event will be seen."""
        return (
            self.must_close
            or self.unsent is not None
            or self.send_error is not None
            or not self.watched
            or self.http.has_unparsed
        )

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for the client as long as it keeps the minimum rate over the whole response.

        Raises ClientGoneError.
        """
        unsent = Unsent([data])
        while not self._send_nowait(unsent):
            if self._write_pace is None:
                self._write_pace = self.options.pace(0.0)
            began_s = time.monotonic()
            until = self._write_pace.moved(self.sent_s, self._written + unsent.sent)
            self._wait_writable(until - self.sent_s)
            self.sent_s += time.monotonic() - began_s
        self._written += len(data)

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
