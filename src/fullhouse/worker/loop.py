"""The loop: it waits for events and passes each to the part that handles it. It never waits for one client.

It accepts, has the channels read and written, hands complete requests to the queue, and looks at the timeouts. One
thread at a time runs it, mostly the main thread (`turns` says when another does).

Requests are handed over, and responses sent, in batches: Python changes threads whenever one of them makes a
system call, and each change costs more than a small request.
"""

import os
import socket
import time
from math import inf
from typing import Any, Protocol

from fullhouse.worker.accepting import Acceptor
from fullhouse.worker.admission.queue import Waiting
from fullhouse.worker.channels import Channels
from fullhouse.worker.poller import READ, Poller
from fullhouse.worker.siblings import Siblings
from fullhouse.worker.triage import Job

_WAITING_POLL_S = 0.001  # how soon to look again whether the threads that run get to all requests
_AT_ONCE_S = 0.0001  # the poller has not waited
_SWEEP_INTERVAL_S = 0.5  # how exact timeouts are, and how often the heartbeat is given


class Owner(Protocol):
    """What the loop asks of the worker."""

    @property
    def waiting(self) -> int: ...
    def put(self, batch: list[Waiting[Job]]) -> None: ...
    def wake_for_waiting(self) -> None: ...
    def in_flight(self) -> int: ...
    def tick(self) -> None:
        """Called now and then."""

    def end_round(self) -> None:
        """Called at the end of each round."""


class Loop:
    """Serves `listeners` until `stop` was called and every client is finished with.

    wake_fd: becomes readable when a thread has made a response. max_connections: clients at once.
    """

    def __init__(
        self,
        *,
        poller: Poller,
        listeners: list[socket.socket],
        wake_fd: int,
        channels: Channels,
        max_connections: int,
        owner: Owner,
        log: Any,
        siblings: Siblings | None,
    ) -> None:
        self._poller = poller
        self._acceptor = Acceptor(listeners, poller, log, siblings)
        self._wake_fd = wake_fd
        self._channels = channels
        self._max_connections = max_connections
        self._owner = owner
        self._next_sweep = 0.0
        self._polled_at = time.monotonic()
        self.waited_s = 0.0  # it has waited for events
        poller.register(wake_fd, READ)

    @property
    def connections(self) -> int:
        return len(self._channels)

    def run_once(self, *, wait: bool = True, dedicated: bool = True) -> bool:
        """Wait for what happens next, at most until timeouts are due to be looked at, and deal with it.

        dedicated: by a thread that runs no requests itself. Returns whether there were requests to run.
        """
        channels = self._channels
        channels.now = time.monotonic()
        channels.end_returned()
        self._watch_listeners(channels.now)
        events = self._poll(wait=wait)
        channels.end_returned()  # the next request of one of them may be among the events
        for fd, event in events:
            if channels.on_event(fd, event):
                continue
            if self._acceptor.listens_on(fd):
                self._accept(fd)
            elif fd == self._wake_fd:
                os.read(fd, 4096)
        if dedicated:
            self._owner.wake_for_waiting()
        channels.end_returned()
        if channels.now >= self._next_sweep:
            self._next_sweep = channels.now + _SWEEP_INTERVAL_S
            channels.sweep()
            self._owner.tick()
        handed_over = bool(channels.batch)
        if handed_over:
            self._owner.put(channels.batch)
            channels.batch.clear()
        self._acceptor.publish(self._load, channels.now)
        self._owner.end_round()
        return handed_over

    def _poll(self, *, wait: bool) -> list[tuple[int, int]]:
        """What has happened. What was there already came, on average, in the middle of the time since the last look."""
        channels, began_at = self._channels, self._channels.now
        events = self._poller.poll(self._poll_timeout_s() if wait else 0)
        channels.now = now = time.monotonic()
        waited_s = now - began_at
        self.waited_s += waited_s
        channels.arrived_s = now if waited_s > _AT_ONCE_S else (self._polled_at + now) / 2
        self._polled_at = now
        return events

    def _poll_timeout_s(self) -> float:
        now, wake_at = self._channels.now, self._next_sweep
        if now < self._acceptor.resume_at < wake_at:
            wake_at = self._acceptor.resume_at
        if self._owner.waiting:
            wake_at = min(wake_at, now + _WAITING_POLL_S)
        # Looked at last: a thread gives a channel back before it takes the next request.
        if self._channels.batch or self._channels.has_returned or self._acceptor.resumed:
            return 0.0
        return max(0.0, wake_at - now)

    def stop(self) -> None:
        """Accept no more; connections that were kept open are answered a little longer, then closed."""
        self._channels.stop()
        self._watch_listeners(time.monotonic())

    # accepting

    @property
    def _room(self) -> int:
        return 0 if self._channels.stopping else self._max_connections - len(self._channels)

    def _load(self) -> float:
        return len(self._channels) + self._owner.in_flight() if self._room > 0 else inf

    def _watch_listeners(self, now: float) -> None:
        self._acceptor.watch(now, has_room=self._room > 0)

    def _accept(self, fd: int) -> None:
        now = self._channels.now
        for sock, peer, server in self._acceptor.accept(fd, now, len(self._channels), self._room):
            try:
                self._channels.connect(sock, peer, server)
            except OSError as error:
                self._acceptor.pause(error, now)
