"""All clients of a worker: what is read from them, handed over and sent to them, and how long that may take.

The thread that runs the loop owns all of this; any thread may use `take_back` and `send_made`. While a thread runs the
request of a channel, the channel is that thread's (`channel`); then, who takes it from `_made` sends its response, and
the loop goes on with it.
"""

import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from fullhouse.telemetry.tally import Tally
from fullhouse.telemetry.times import Times
from fullhouse.worker.admission.queue import Waiting
from fullhouse.worker.arrival import age_s
from fullhouse.worker.channel import Channel
from fullhouse.worker.http.body import Data
from fullhouse.worker.http.connection import HttpConnection
from fullhouse.worker.http.head import HeadParser
from fullhouse.worker.http.refusal import RefusedError, body_bytes, refusal_bytes
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import HttpRules
from fullhouse.worker.options import Options
from fullhouse.worker.poller import GONE, READ, WRITE, Poller
from fullhouse.worker.probes import Probes
from fullhouse.worker.transfer_memory import TransferMemory
from fullhouse.worker.triage import Job, Triage
from fullhouse.worker.unsent import Unsent

_RECV_BYTES = 64 * 1024
_RECV_BODY_BYTES = 256 * 1024
_HELD_UP_S = 0.01  # the loop was, for twice as long
_HALF_CLOSED_S = 0.5  # who closes its side sooner after its request only says that it sends no more


class AnswerLog(Protocol):
    """Where the answers that the application has not made are logged."""

    def write_answer(self, channel: Channel, request: Request | None, status: HTTPStatus, body_bytes: int) -> None: ...


class Channels:
    """The clients that are connected.

    threads: that run requests. now: on the monotonic clock, set by the loop once per round, since most deadlines are
    seconds away. arrived_s: when what is read now has come to the kernel, about. batch: the requests that are complete
    and not in the queue yet. stopping: no connection is kept open for long.
    """

    def __init__(
        self,
        *,
        poller: Poller,
        threads: int,
        rules: HttpRules,
        options: Options,
        probes: Probes,
        triage: Triage,
        tally: Tally,
        log: Any,
        access_log: AnswerLog,
        wrap_tls: Callable[[socket.socket], Any] | None = None,
    ) -> None:
        self._poller = poller
        self._rules = rules
        self._options = options
        self._kept_s = options.keepalive_s  # how long a connection is kept open for its next request
        self._probes = probes
        self._triage = triage
        self._tally = tally
        self._log = log
        self._access_log = access_log
        self._wrap_tls = wrap_tls
        self._max_kept = options.worker_connections - threads
        self._memory = TransferMemory(options.transfer_memory_bytes, options.worker_connections)
        self._parser = HeadParser()
        self._body_buffer = memoryview(bytearray(_RECV_BODY_BYTES))  # used by one _read at a time
        self._open: dict[int, Channel] = {}
        self._made: deque[Channel] = deque()  # with a response to send; who takes one of them sends it
        self._returned: deque[Channel] = deque()
        self.is_owed = False  # a channel has come back for which the loop has to do something
        self.batch: list[Waiting[Job]] = []
        self.now = self.arrived_s = time.monotonic()
        self.stopping = False

    # any thread

    def take_back(self, channel: Channel, *, answered: bool) -> None:
        """Return a channel whose request has been run. answered: by the caller, and not by the loop meanwhile.

        Its response is sent by the loop, or by a thread that calls `send_made`.
        """
        channel.ended_s = time.monotonic()
        if answered:
            self._made.append(channel)
        else:
            self._return(channel)

    def send_made(self) -> None:
        """Send the responses that are there. Where the loop `is_owed` something then, the caller wakes it."""
        with suppress(IndexError):
            while True:
                channel = self._made.popleft()
                if channel.small_response:
                    channel.send_small()
                self._return(channel)

    def _return(self, channel: Channel) -> None:
        self._returned.append(channel)
        if channel.needs_loop:
            self.is_owed = True

    # the thread that runs the loop

    def give_up(self, channel: Channel, request: Request, answer: bytes) -> None:
        """Answer a request for its thread, unless that has begun to; the connection ends with it. For `tick`."""
        if channel.request is request and channel.take_turn():
            channel.must_close, channel.small_response, channel.failed = True, answer, True
            channel.times = Times(request.method, 0.0)
            channel.times.status, channel.times.total_s = 503, time.monotonic() - channel.began_s
            self._access_log.write_answer(channel, request, HTTPStatus.SERVICE_UNAVAILABLE, body_bytes(answer))
            self._end_request(channel)
            channel.given_up = True

    def __len__(self) -> int:
        return len(self._open)

    @property
    def has_returned(self) -> bool:
        """Whether there is a channel to go on with."""
        return bool(self._made or self._returned)

    def connect(self, sock: socket.socket, peer: Any, server: Any) -> None:
        """A client was accepted. Raises OSError where it can't be watched; its socket is closed then."""
        transport: Any = sock
        if self._wrap_tls is not None:
            try:
                transport = self._wrap_tls(sock)
            except OSError:  # the client has gone
                sock.close()
                return
        channel = Channel(transport, HttpConnection(self._rules, self._parser, peer), server, self._options)
        channel.deadline = self.now + self._options.header_timeout_s
        try:
            self._watch(channel, READ)
        except OSError:  # the user may watch no more descriptors
            transport.close()
            raise
        self._open[channel.fd] = channel

    def on_event(self, fd: int, event: int) -> bool:
        """Read or write as the poller says; whether the descriptor is that of a client."""
        channel = self._open.get(fd)
        if channel is None:
            return False
        channel.gone = channel.busy and bool(event & GONE) and self.now - channel.began_s > _HALF_CLOSED_S
        try:
            self._on_ready(channel)
        except Exception:
            self._close_failed(channel)
        return True

    def end_returned(self) -> None:
        """Send what threads have made, and go on with the channels that they have returned."""
        self.is_owed = False
        for ended in (self._made, self._returned):
            while ended:
                try:
                    channel = ended.popleft()
                except IndexError:  # a thread has taken it
                    break
                try:
                    self._end_request(channel)
                except Exception:
                    self._close_failed(channel)

    def sweep(self) -> None:
        """End the requests and responses that are over their time."""
        expired = [c for c in self._open.values() if c.deadline <= self.now and not c.busy]
        for channel in expired:
            try:
                self._on_expired(channel)
            except Exception:
                self._close_failed(channel)

    def stop(self) -> None:
        """Answer a little longer on connections that were kept open, and close them then."""
        self.stopping = True
        self._kept_s = min(self._kept_s, self._options.stop_linger_s)
        until = time.monotonic() + self._kept_s
        for channel in self._open.values():
            if not channel.busy and not channel.http.in_request and channel.unsent is None:
                channel.deadline = min(channel.deadline, until)

    def close(self) -> None:
        """Close every connection at once."""
        for channel in list(self._open.values()):
            self._close(channel)

    # one channel

    def _close_failed(self, channel: Channel) -> None:
        """What goes wrong with one client must not end this worker, and all others with it."""
        self._log.exception("Closing the connection of ip=%s", _host(channel.peer))
        self._close(channel)

    def _watch(self, channel: Channel, events: int) -> None:
        if events == channel.watched:
            return
        if not events:
            self._poller.unregister(channel.fd)
        elif channel.watched:
            self._poller.modify(channel.fd, events)
        else:
            self._poller.register(channel.fd, events)
        channel.watched = events

    def _close(self, channel: Channel) -> None:
        if self._open.get(channel.fd) is channel:  # else the application closed it, and the number is another's
            with suppress(OSError):
                self._watch(channel, 0)
            del self._open[channel.fd]
        self._memory.forget(channel)
        channel.http.discard()
        if channel.unsent is not None:
            channel.unsent.close()
        channel.sock.close()

    def _on_ready(self, channel: Channel) -> None:
        if channel.busy:
            if not channel.sending:
                self._watch(channel, 0)  # what has come is read after the response
        elif channel.unsent is not None:
            self._send_unsent(channel, channel.unsent)
        else:
            self._read(channel)

    def _end_request(self, channel: Channel) -> None:
        """Take a channel back, send what is left of its response, and go on with its next request."""
        if channel.given_up:  # its client was answered while the thread was still at it
            channel.given_up = False
            return
        channel.busy, channel.request = False, None
        if channel.began_s:
            self._tally.count(channel.ended_s - channel.began_s, failed=channel.failed, times=channel.times)
            channel.began_s = 0.0
        if channel.must_close:
            channel.lingering = True
            channel.http.discard()
        if channel.counted_bytes:
            self._memory.forget(channel)
        if channel.small_response:
            channel.send_small()
        channel.sending = False
        if channel.send_error is not None:
            self._end(channel, channel.send_error)
            return
        if channel.unsent is None:
            self._on_sent(channel)
        else:
            self._send_unsent(channel, channel.unsent)

    def _on_sent(self, channel: Channel) -> None:
        """A response has gone out: linger if it was the last one, else wait for the next request."""
        channel.deadline = self.now + self._kept_s
        if channel.lingering:
            channel.deadline = self.now + self._options.linger_s
            try:
                channel.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._end(channel, error)
                return
        if channel.watched != READ:
            self._watch(channel, READ)
        if channel.http.has_unparsed:
            self._feed(channel, b"")

    def _read(self, channel: Channel) -> None:
        data: Data
        try:
            if channel.http.body_bytes is None:
                data = channel.sock.recv(_RECV_BYTES)
            else:
                # A TLS record is taken whole: the poller does not see what OpenSSL would keep of it.
                room = channel.http.room if self._wrap_tls is None else None
                if room is None:
                    room = self._body_buffer[: channel.http.missing_bytes + _RECV_BYTES]
                data = room[: channel.sock.recv_into(room)]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(channel, error)
            return
        if not data:
            self._close(channel)
        elif not channel.lingering:
            self._feed(channel, data)

    def _feed(self, channel: Channel, data: Data) -> None:
        http = channel.http
        try:
            request = http.feed(data)
            if request is None:
                self._memory.count(channel)
        except RefusedError as error:
            self._refuse(channel, error.status, str(error), error.request)
            return
        except OSError as error:
            self._log.error("Cannot keep the body of a request: %s", error)
            self._answer(channel, HTTPStatus.INSUFFICIENT_STORAGE, "no space left for the request body", http.request)
            return
        if request is not None:
            self._hand_over(channel, request)
        else:
            self._await_rest(channel)

    def _hand_over(self, channel: Channel, request: Request) -> None:
        """A request is complete: to the queue with it, or answer it here."""
        http = channel.http
        if self.stopping or not self._options.keepalive_s or len(self._open) > self._max_kept:
            request.force_close()
        request.received_s = arrived_s = self._arrival_s(channel)
        channel.head_begun = False
        channel.pace = None
        channel.begin_request(request)
        if request.content_length or http.has_unparsed:
            self._memory.count(channel)
            if self._memory.is_short_for(channel):
                request.force_close()
                http.drop_unparsed()
        probed = self._probes.answer(request)
        if probed is None:
            channel.began_s = arrived_s
            self.batch.append(self._triage.entry(channel, request, arrived_s))
        else:
            channel.must_close, channel.small_response = request.must_close, probed
            self._made.append(channel)  # not at once: a client may have sent many

    def _arrival_s(self, channel: Channel) -> float:
        """When the kernel has received a request that is complete now.

        Asked where that can be long ago: the connection had to wait until it was accepted, or the loop was held up.
        """
        if channel.http.requests > 1 and self.now - self.arrived_s < _HELD_UP_S:
            return self.arrived_s
        return min(self.arrived_s, self.now - age_s(channel.sock))

    def _await_rest(self, channel: Channel) -> None:
        """A request is not complete: until when it must be, or go on."""
        http = channel.http
        if self._memory.is_short_for(channel):
            self._refuse(channel, HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are being received", http.request)
        elif http.body_bytes is not None:
            if channel.pace is None:
                channel.pace = self._options.pace(self.now)
                self._send_interim(channel, http.take_continue())
            channel.deadline = channel.pace.moved(self.now, http.body_bytes)
        elif http.in_request and not channel.head_begun:
            channel.head_begun = True
            channel.deadline = self.now + self._options.header_timeout_s

    def _send_interim(self, channel: Channel, interim: bytes) -> None:
        try:
            if interim:
                channel.sock.send(interim)
        except OSError as error:  # reading will show whether the client has gone
            self._log.debug("Cannot ask for a body: %s", error)

    def _refuse(self, channel: Channel, status: HTTPStatus, message: str, request: Request | None) -> None:
        self._log.warning("Invalid request from ip=%s: %s", _host(channel.peer), message)
        self._answer(channel, status, message, request)

    def _answer(self, channel: Channel, status: HTTPStatus, message: str, request: Request | None) -> None:
        """Answer for the server itself, and end the connection. request: where its head could be read."""
        channel.must_close = True
        channel.small_response = refusal_bytes(status, message)
        self._access_log.write_answer(channel, request, status, body_bytes(channel.small_response))
        self._end_request(channel)

    def _send_unsent(self, channel: Channel, unsent: Unsent) -> None:
        try:
            finished = unsent.send_nowait(channel.sock)
            self._memory.count(channel)
        except OSError as error:
            self._end(channel, error)
            return
        if finished:
            channel.unsent = channel.pace = None
            self._on_sent(channel)
        else:
            if channel.pace is None:
                channel.pace = self._options.pace(self.now, unsent.sent)
            channel.deadline = channel.pace.moved(self.now, unsent.sent)
            self._watch(channel, WRITE)

    def _end(self, channel: Channel, error: OSError) -> None:
        self._log.debug("Closing a connection: %s", error)
        self._close(channel)

    def _on_expired(self, channel: Channel) -> None:
        """A client was too slow: 408 where an answer is still possible, and the end of the connection."""
        if channel.lingering or channel.unsent is not None:
            self._log.debug("Closing a connection: ip=%s reads too slowly", _host(channel.peer))
            self._close(channel)
        elif channel.http.in_request:
            self._refuse(
                channel, HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time", channel.http.request
            )
        else:
            self._read(channel)  # it may have sent a request this very moment
            idle = self._open.get(channel.fd) is channel and not channel.busy
            if idle and not channel.http.in_request and not channel.lingering:
                channel.lingering = True
                self._on_sent(channel)


def _host(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) else str(peer)
