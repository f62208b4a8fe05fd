"""environ["gunicorn.socket"]: the connection, for an application that speaks another protocol on it (WebSocket).

gunicorn's `gthread` hands its blocking socket out. Here sockets never block, until an application uses this one to send
or receive: from then on the connection is its own, and ends with the request. To look at it, as for a client's
certificate, changes nothing.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_READS = ("recv", "recv_into", "recvfrom", "recvmsg", "read")
_WRITES = ("send", "sendall", "sendmsg", "sendfile", "write")
_CHANGES = ("makefile", "fileno", "setblocking", "settimeout", "shutdown", "unwrap", "detach")
_TAKES = frozenset((*_READS, *_WRITES, *_CHANGES))


class ApplicationSocket:
    """Every attribute of `sock`. take: called before the first one that sends or receives."""

    __slots__ = ("_sock", "_take")

    def __init__(self, sock: Any, take: Callable[[], None]) -> None:
        self._sock = getattr(sock, "tls", sock)
        self._take = take

    def close(self) -> None:
        """End both directions. The descriptor stays the loop's to close: its number must not be another's before."""
        self._take()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def __getattr__(self, name: str) -> Any:
        if name in _TAKES:
            self._take()
        return getattr(self._sock, name)
