"""When the loop accepts connections, and how many at a time."""

import socket
from collections.abc import Callable
from typing import Any

from fullhouse.worker.poller import READ, Poller

# Puma's numbers (lib/puma/cluster_accept_loop_delay.rb): the longest delay, and at what load it is reached
MAX_ACCEPT_DELAY_S = 0.005
FULL_LOAD_PER_THREAD = 25
_PAUSE_S = 0.1  # after the system had no descriptor or no memory left
_MOST_AT_ONCE = 64


def accept_delay_s(in_flight: int, threads: int) -> float:
    """How long to wait before accepting, so that a sibling with less to do comes first."""
    full_load = FULL_LOAD_PER_THREAD * threads
    return MAX_ACCEPT_DELAY_S * min(in_flight, full_load) / full_load


class Acceptor:
    """The listening sockets, as the loop sees them. Used by the thread that runs the loop.

    It accepts one connection in a round, and twice as many in the next as long as more wait: siblings that begin
    together share them evenly, and under load none is left in the kernel, where nobody sees how long it waits.

    delay_s: how long to leave a new connection to siblings, asked for each.
    """

    def __init__(
        self, listeners: list[socket.socket], poller: Poller, log: Any, delay_s: Callable[[], float] | None
    ) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._poller = poller
        self._log = log
        self._delay_s = delay_s
        self._watching = False
        self._at_once = 1
        self.resume_at = 0.0  # when it listens again, on the monotonic clock

    def watch(self, now: float, *, has_room: bool) -> None:
        """Have the poller tell of new connections, or not."""
        watching = has_room and now >= self.resume_at
        if watching == self._watching:
            return
        self._watching = watching
        for fd in self._listeners:
            if watching:
                self._poller.register(fd, READ)
            else:
                self._poller.unregister(fd)

    def listens_on(self, fd: int) -> bool:
        return fd in self._listeners

    def accept(self, fd: int, now: float, room: int) -> list[tuple[socket.socket, Any, Any]]:
        """New connections of a listener that is ready, at most `room`: each with the client's address and our own."""
        delayed = 0.0 < self.resume_at <= now
        if self._delay_s is not None and not delayed:
            delay_s = self._delay_s()
            if delay_s:
                self.resume_at = now + delay_s
                return []
        self.resume_at = 0.0
        listener, accepted = self._listeners[fd], []
        try:
            for _ in range(min(room, self._at_once)):
                sock, peer = listener.accept()
                sock.setblocking(False)
                accepted.append((sock, peer, listener.getsockname()))
            self._at_once = min(2 * self._at_once, _MOST_AT_ONCE)
        except (BlockingIOError, ConnectionAbortedError):  # a sibling was faster, or the client has gone
            self._at_once = 1
        except OSError as error:  # out of descriptors or memory: the others must not suffer for it
            self._log.warning("Cannot accept a connection: %s; trying again in %s s.", error, _PAUSE_S)
            self.resume_at = now + _PAUSE_S
        return accepted
