"""When a worker accepts connections, how many at a time, and which of them it leaves to its siblings.

Connections are kept open, so the worker that accepts one has all its requests. The kernel gives it to the worker that
wakes first: one may have most of the clients while others have none. So each worker publishes how much it has, in
shared memory, and the one with more waits for a moment before it accepts.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fullhouse.worker.poller import READ, Poller
from fullhouse.worker.siblings import Siblings

_LEAVE_S = 0.001  # the poller's clock is no finer
_PAUSE_S = 0.1  # after the system had no descriptor or no memory left
_MOST_AT_ONCE = 64


class Acceptor:
    """The listening sockets, as the loop sees them. Used by the thread that runs the loop. siblings: None if alone."""

    def __init__(self, listeners: list[socket.socket], poller: Poller, log: Any, siblings: Siblings | None) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._poller = poller
        self._log = log
        self._siblings = siblings
        self._watching = False
        self.resumed = False  # in this round: what the poller reports at once, no other worker wanted
        self.resume_at = 0.0  # when it listens again, on the monotonic clock; 0 while it does

    def watch(self, now: float, *, has_room: bool) -> None:
        """Have the poller report new connections, or not. For each round of the loop."""
        watching = has_room and now >= self.resume_at
        if watching and self.resume_at:
            self.resumed, self.resume_at = True, 0.0
        if watching == self._watching:
            return
        if not watching:
            self._unwatch()
            return
        self._watching = True
        try:
            for fd in self._listeners:
                self._poller.register(fd, READ)
        except OSError as error:
            self._unwatch()
            self.pause(error, now)

    def _unwatch(self) -> None:
        self._watching = False
        for fd in self._listeners:
            with suppress(OSError):  # it was not registered
                self._poller.unregister(fd)

    def pause(self, error: OSError, now: float) -> None:
        """Accept nothing for a moment: the system has no descriptor or memory left, and the clients must not suffer."""
        self._log.warning("Cannot accept a connection: %s; trying again in %s s.", error, _PAUSE_S)
        self.resume_at = now + _PAUSE_S

    def listens_on(self, fd: int) -> bool:
        return fd in self._listeners

    def publish(self, load: Callable[[], float], now: float) -> None:
        """Tell siblings how much there is to do, if there are any; infinity for a worker that accepts no more.

        At the end of each round.
        """
        self.resumed = False
        if self._siblings is not None:
            self._siblings.publish_load(load(), now)

    def accept(self, fd: int, now: float, connections: int, room: int) -> list[tuple[socket.socket, Any, Any]]:
        """New connections of a listener that is ready: each with the client's address and our own.

        now: when the poller reported it. connections: there are so many. Alone, it takes all that wait, so that none is
        left in the kernel, where its waiting is not seen; else a part of what it has, so that those who begin
        together remain equal.
        """
        if self._siblings is not None and not self.resumed and self._siblings.is_lighter_elsewhere(now):
            self.resume_at = max(self.resume_at, now + _LEAVE_S)
            return []
        at_once = _MOST_AT_ONCE if self._siblings is None else 1 + connections // 8
        listener, accepted = self._listeners[fd], []
        try:
            for _ in range(min(room, at_once)):
                sock, peer = listener.accept()
                sock.setblocking(False)
                accepted.append((sock, peer, listener.getsockname()))
        except (BlockingIOError, ConnectionAbortedError):  # a sibling was faster, or the client has gone
            pass
        except OSError as error:
            self.pause(error, now)
        return accepted
