"""Whether the server has let a session go, which it says by the end of its stream.

A driver says goodbye and closes its descriptor without waiting for that. So the descriptor is duplicated before the
driver closes it, and read to the end after. Raw bytes show as much under TLS.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

PATIENCE_S = 5.0
"""How long the end of a stream is waited for: a server that does not send it hangs, or cannot be reached."""

_LOOK_AGAIN_S = 0.001
_DRAIN_BYTES = 65536
_FIN_WAIT = (4, 5)  # of <netinet/tcp_states.h>: closed here, and not yet there
_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 seconds


@dataclass(frozen=True)
class Wire:
    """The socket of a session as it was when it was opened: a number that is closed may be another's later."""

    descriptor: int
    inode: tuple[int, int]

    @classmethod
    def of(cls, descriptor: int) -> "Wire":
        return cls(descriptor, _inode(descriptor))

    def duplicate(self) -> socket.socket | None:
        """A second descriptor of the socket; None: it is closed already."""
        with suppress(OSError):
            if _inode(self.descriptor) == self.inode:
                return socket.socket(fileno=os.dup(self.descriptor))
        return None


def close_all(
    sessions: Sequence[tuple[Wire | None, Callable[[], object]]], patience_s: float = PATIENCE_S, *, resets: bool = True
) -> list[bool]:
    """Close sessions, each given with what closes it, and wait for the server together. Never raises.

    resets: send a reset after `patience_s`; else the system goes on saying goodbye, for minutes.
    Returns for each whether the server has let it go within `patience_s`; False also where that is not known.
    """
    ends: list[socket.socket | None] = []
    for wire, close in sessions:
        ends.append(wire.duplicate() if wire is not None else None)
        with suppress(Exception):
            close()
    for end in ends:
        if end is not None:
            _finish(end)
    gone = _wait_gone([end for end in ends if end is not None], time.monotonic() + patience_s)
    for end in ends:
        if end is not None:
            if resets and end not in gone:
                with suppress(OSError):  # a server that lives at all learns from a reset
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
    return [end in gone for end in ends]


def _finish(end: socket.socket) -> None:
    """Say that nothing more comes, for a driver that closed without goodbye."""
    with suppress(OSError):
        end.setblocking(False)
        end.shutdown(socket.SHUT_WR)


def _wait_gone(ends: Iterable[socket.socket], deadline: float) -> set[socket.socket]:
    waiting = set(ends)
    gone: set[socket.socket] = set()
    poller = select.poll()
    for end in waiting:
        poller.register(end, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        poller.poll(left_s * 1000)
        lingering = False
        for end in list(waiting):
            if _is_at_end(end):
                if _is_half_closed(end):
                    lingering = True
                    continue
                waiting.discard(end)
                gone.add(end)
                poller.unregister(end)
        if lingering:
            time.sleep(_LOOK_AGAIN_S)
    return gone


def _is_at_end(end: socket.socket) -> bool:
    try:
        while end.recv(_DRAIN_BYTES):
            pass
    except BlockingIOError:
        return False
    except OSError:  # reset by the server: it is gone as well
        return True
    return True


def _is_half_closed(end: socket.socket) -> bool:
    """Whether the driver has shut reading down too, so that the stream ended here and not there."""
    if end.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return False
    with suppress(OSError):
        return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _FIN_WAIT
    return False


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
