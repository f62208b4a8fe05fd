"""How the loop learns which sockets are ready: epoll, or poll(2) where there is none."""

import select
from typing import Protocol

GONE = getattr(select, "POLLRDHUP", 0)  # the client has closed its end; only Linux reports it
READ = select.POLLIN | GONE
WRITE = select.POLLOUT


class Poller(Protocol):
    """What epoll offers. Timeouts in seconds."""

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


def new_poller() -> Poller:
    return select.epoll() if hasattr(select, "epoll") else _Poll()
