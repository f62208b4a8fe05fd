"""The worker's main thread: it owns every socket that no thread is writing to, and never waits for one.

It accepts, reads, hands complete requests over, finishes what slow readers have not taken, and enforces the
timeouts. Everything here runs in the main thread, except `call`, which any thread may use.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from fullhouse.worker.accept_delay import accept_delay_s
from fullhouse.worker.channel import Channel
from fullhouse.worker.connection import HttpConnection
from fullhouse.worker.head import HeadParser
from fullhouse.worker.options import HttpRules, Options
from fullhouse.worker.refusal import RefusedError, refusal_bytes
from fullhouse.worker.request import Request
from fullhouse.worker.unsent import Unsent

READ = select.POLLIN
WRITE = select.POLLOUT
_RECV_BYTES = 64 * 1024
_RECV_BODY_BYTES = 256 * 1024
_SWEEP_INTERVAL_S = 0.5  # how exact timeouts are, and how often the heartbeat is given


class Poller(Protocol):
    """What epoll offers, and poll(2) where there is no epoll. Timeouts in seconds."""

    def register(self, fd: int, events: int, /) -> None: ...
    def modify(self, fd: int, events: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout_s: float, /) -> list[tuple[int, int]]: ...


class _Poll:
    """poll(2) with epoll's unit of time."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify, self.unregister = (
            self._poll.register,
            self._poll.modify,
            self._poll.unregister,
        )

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        return self._poll.poll(timeout_s * 1000)


class RequestSink(Protocol):
    """Where complete requests go: the queue in front of the threads."""

    threads: int

    def put(self, channel: Channel, request: Request) -> None: ...
    def in_flight(self) -> int: ...


class Loop:
    """Serves `listeners` until `stop` was called and every client is finished with."""

    def __init__(
        self,
        listeners: list[socket.socket],
        wake_fds: tuple[int, int],
        sink: RequestSink,
        rules: HttpRules,
        options: Options,
        log: Any,
        tick: Callable[[], None],
        wrap_tls: Callable[[socket.socket], Any] | None = None,
    ) -> None:
        self._poller: Poller = select.epoll() if hasattr(select, "epoll") else _Poll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._wake_fds = wake_fds
        self._sink = sink
        self._rules = rules
        self._options = options
        self._log = log
        self._tick = tick
        self._wrap_tls = wrap_tls
        self._max_kept = options.worker_connections - sink.threads
        self._parser = HeadParser()
        self._channels: dict[int, Channel] = {}
        self._calls: deque[Channel] = deque()
        self._accepting = False
        self._accept_at = 0.0
        self._next_sweep = 0.0
        self.stopping = False
        self._poller.register(wake_fds[0], READ)

    # any thread

    def call(self, channel: Channel) -> None:
        """Have the loop look after a channel that was given back with something left to do."""
        self._calls.append(channel)
        self.wake()

    def wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: the loop will wake all the same
            os.write(self._wake_fds[1], b"c")

    # main thread

    @property
    def connections(self) -> int:
        return len(self._channels)

    def run_once(self) -> None:
        """Wait for what happens next, at most until timeouts are due to be looked at, and deal with it."""
        now = time.monotonic()
        self._set_accepting(now)
        wake_at = self._next_sweep
        if now < self._accept_at < wake_at:
            wake_at = self._accept_at
        for fd, _ in self._poller.poll(max(0.0, wake_at - now)):
            channel = self._channels.get(fd)
            if channel is not None:
                self._on_ready(channel)
            elif fd in self._listeners:
                self._on_client_waiting(self._listeners[fd])
            elif fd == self._wake_fds[0]:
                os.read(fd, 4096)
        while self._calls:
            self._resume(self._calls.popleft())
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_INTERVAL_S
            self._sweep(now)
            self._tick()

    def stop(self) -> None:
        """Accept no more; connections that were kept open are answered a little longer, then closed."""
        self.stopping = True
        self._set_accepting(time.monotonic())
        until = time.monotonic() + min(self._options.keepalive_s, self._options.stop_linger_s)
        for channel in self._channels.values():
            if not channel.busy and not channel.http.in_request and channel.unsent is None:
                channel.deadline = min(channel.deadline, until)

    def close(self) -> None:
        """Close every connection at once."""
        for channel in list(self._channels.values()):
            self._close(channel)

    # accepting

    def _set_accepting(self, now: float) -> None:
        room = len(self._channels) < self._options.worker_connections
        accepting = room and not self.stopping and now >= self._accept_at
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for fd in self._listeners:
            if accepting:
                self._poller.register(fd, READ | getattr(select, "EPOLLEXCLUSIVE", 0))
            else:
                self._poller.unregister(fd)

    def _on_client_waiting(self, listener: socket.socket) -> None:
        now = time.monotonic()
        delayed = 0.0 < self._accept_at <= now
        if self._options.siblings and not delayed:
            delay_s = accept_delay_s(self._sink.in_flight(), self._sink.threads)
            if delay_s:
                self._accept_at = now + delay_s
                return
        self._accept_at = 0.0
        self._accept(listener, now)

    def _accept(self, listener: socket.socket, now: float) -> None:
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # a sibling was faster, or the client has gone
            return
        except OSError as error:  # out of descriptors or memory: the others must not suffer for it
            self._log.warning("Cannot accept a connection: %s; trying again in 0.1 s.", error)
            self._accept_at = now + 0.1
            return
        sock.setblocking(False)
        http = HttpConnection(self._rules, self._parser, peer)
        transport: Any = sock
        if self._wrap_tls is not None:
            try:
                transport = self._wrap_tls(sock)
            except OSError:  # the client has gone
                sock.close()
                return
        channel = Channel(transport, http, listener.getsockname(), self._options, self.call)
        self._channels[channel.fd] = channel
        channel.deadline = now + self._options.header_timeout_s
        self._watch(channel, READ)

    # one channel

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
        self._watch(channel, 0)
        del self._channels[channel.fd]
        channel.http.discard()
        if channel.unsent is not None:
            channel.unsent.close()
        channel.sock.close()

    def _on_ready(self, channel: Channel) -> None:
        if channel.busy:
            self._on_ready_while_busy(channel)
        elif channel.unsent is not None:
            self._send_unsent(channel, channel.unsent)
        else:
            self._read(channel)

    def _on_ready_while_busy(self, channel: Channel) -> None:
        """Leave input to be read later. A thread that is just returning from its send is given a moment."""
        if not channel.contended:
            channel.contended = True
            return
        self._watch(channel, 0)
        channel.input_waiting = True
        if not channel.busy:
            self._resume(channel)

    def _resume(self, channel: Channel) -> None:
        """Go on with a channel that a thread has given back."""
        if channel.busy or self._channels.get(channel.fd) is not channel:
            return
        channel.input_waiting = False
        if channel.unsent is not None:
            channel.started = time.monotonic()
            self._watch(channel, WRITE)
            self._send_unsent(channel, channel.unsent)
        elif channel.lingering:
            self._watch(channel, READ)
            self._read(channel)
        else:
            self._watch(channel, READ)
            if channel.http.has_unparsed:
                self._feed(channel, b"")

    def _read(self, channel: Channel) -> None:
        http = channel.http
        try:
            data = channel.sock.recv(_RECV_BYTES if http.body_bytes is None else _RECV_BODY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._log.debug("Closing a connection: %s", error)
            self._close(channel)
            return
        if not data:
            self._close(channel)
        elif not channel.lingering:
            self._feed(channel, data)

    def _feed(self, channel: Channel, data: bytes) -> None:
        http = channel.http
        begun = http.in_request
        in_body = http.body_bytes is not None
        try:
            request = http.feed(data)
        except RefusedError as error:
            self._refuse(channel, error.status, str(error))
            return
        if request is not None:
            self._hand_over(channel, request)
            return
        now = time.monotonic()
        if http.body_bytes is None:
            if not begun:
                channel.deadline = now + self._options.header_timeout_s
            return
        if not in_body:
            channel.started = now
            self._send_interim(channel, http.take_continue())
        channel.deadline = self._options.transfer_deadline(channel.started, http.body_bytes)

    def _send_interim(self, channel: Channel, interim: bytes) -> None:
        try:
            if interim:
                channel.sock.send(interim)
        except OSError as error:  # reading will tell whether the client has gone
            self._log.debug("Cannot ask for a body: %s", error)

    def _hand_over(self, channel: Channel, request: Request) -> None:
        if self.stopping or not self._options.keepalive_s or len(self._channels) > self._max_kept:
            request.force_close()
        channel.input_waiting = channel.http.has_unparsed
        request.received_s = time.monotonic()
        channel.contended = False
        channel.busy = True
        self._sink.put(channel, request)

    def _refuse(self, channel: Channel, status: HTTPStatus, message: str) -> None:
        """Answer for the server itself, and end the connection."""
        self._log.warning("Invalid request from ip=%s: %s", _host(channel.peer), message)
        channel.http.discard()
        channel.unsent = Unsent([refusal_bytes(status, message)])
        channel.lingering = True
        channel.started = time.monotonic()
        self._send_unsent(channel, channel.unsent)

    def _send_unsent(self, channel: Channel, unsent: Unsent) -> None:
        try:
            finished = unsent.send_nowait(channel.sock)
        except OSError as error:
            self._log.debug("Closing a connection: %s", error)
            self._close(channel)
            return
        if not finished:
            channel.deadline = self._options.transfer_deadline(channel.started, unsent.sent)
            self._watch(channel, WRITE)
            return
        channel.unsent = None
        if channel.lingering:
            channel.half_close()
        else:
            channel.deadline = time.monotonic() + self._options.keepalive_s
        self._resume(channel)

    # timeouts

    def _sweep(self, now: float) -> None:
        expired = [c for c in self._channels.values() if c.deadline <= now and not c.busy]
        for channel in expired:
            self._on_expired(channel)

    def _on_expired(self, channel: Channel) -> None:
        """A client was too slow: 408 where an answer is still possible, and the end of the connection."""
        if channel.lingering or channel.unsent is not None:
            self._close(channel)
        elif channel.http.in_request:
            self._refuse(channel, HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        else:
            self._read(channel)  # it may have sent a request this very moment
            idle = self._channels.get(channel.fd) is channel and not channel.busy
            if idle and not channel.http.in_request and not channel.lingering:
                channel.half_close()


def _host(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) else str(peer)
