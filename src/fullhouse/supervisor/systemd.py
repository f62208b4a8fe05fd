"""systemd's two conventions: sockets that it hands over (sd_listen_fds), and notifications (sd_notify)."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

# Variables that are for the supervisor's process alone.
VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"})
_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


def activated_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that were handed to this process; none where LISTEN_PID is another's."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    last = _FIRST_DESCRIPTOR + int(environ["LISTEN_FDS"])
    sockets = [socket.socket(fileno=descriptor) for descriptor in range(_FIRST_DESCRIPTOR, last)]
    for listener in sockets:
        listener.set_inheritable(False)
    return sockets


class Notifier:
    """Notifies systemd, or a program that speaks its protocol, of the service's state, if one asked for it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = int(environ.get("WATCHDOG_USEC", "0")) if watched else 0
        # Twice within the time after which systemd takes the service for dead.
        self.watchdog_s = usec / 2_000_000 if usec else None
        self._next_sign = 0.0

    def ready(self) -> None:
        self._tell(f"READY=1\nMAINPID={os.getpid()}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self, now: float) -> None:
        """Give the watchdog its sign of life, when one is due."""
        if self.watchdog_s is not None and now >= self._next_sign:
            self._next_sign = now + self.watchdog_s
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.setblocking(False)  # a reader that does not read must not stop the site
            sender.sendto(state.encode(), self._address)
