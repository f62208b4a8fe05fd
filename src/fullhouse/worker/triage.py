"""What the queue needs to know of a request: how much it matters, until when, and whose it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from fullhouse.worker.admission.queue import Priority, Waiting
from fullhouse.worker.channel import Channel
from fullhouse.worker.http.request import Request

Job = tuple[Channel, Request]
# A time since 1970 is in seconds below this, in milliseconds below its thousandfold, and so on.
_SECONDS_BELOW = 1e11


def parse_request_start(value: str) -> float | None:
    """X-Request-Start in seconds since 1970: `t=1512379167.574`, or milli-, micro- or nanoseconds; `t=` may be missing.

    None for what is none of these.
    """
    try:
        start = float(value.strip().removeprefix("t="))
    except ValueError:
        return None
    if not 0 < start < _SECONDS_BELOW * 1e9:
        return None
    while start >= _SECONDS_BELOW:
        start /= 1000
    return start


@dataclass(frozen=True)
class Triage:
    """critical, sheddable: prefixes of paths. priority_of: asked where no prefix fits; None means normal.

    wait_timeout_s: how long a client waits for its turn, the time in a proxy's queue included. counts_clients: whether
    anybody asks whose a request is. log: where a failing `priority_of` is logged.
    """

    critical: tuple[str, ...] = ()
    sheddable: tuple[str, ...] = ()
    priority_of: Callable[[Request], str | None] | None = None
    wait_timeout_s: float = inf
    counts_clients: bool = False
    wall_clock: Callable[[], float] = time.time
    log: Any = None

    def entry(self, channel: Channel, request: Request, now: float) -> Waiting[Job]:
        """The request as it goes into the queue, at `now` in monotonic seconds."""
        waited_s = self._waited_s(request) if channel.http.trusted else 0.0
        return Waiting(
            (channel, request),
            now,
            now + self.wait_timeout_s - waited_s,
            self._priority(request),
            self._client(channel, request) if self.counts_clients else "",
        )

    def _waited_s(self, request: Request) -> float:
        """How long it has waited before it came to us. Clocks that disagree count for nothing."""
        for name, value in request.headers:
            if name == "X-REQUEST-START":
                start = parse_request_start(value)
                return 0.0 if start is None else max(0.0, self.wall_clock() - start)
        return 0.0

    def _priority(self, request: Request) -> Priority:
        if self.critical and request.path.startswith(self.critical):
            return Priority.CRITICAL
        if self.sheddable and request.path.startswith(self.sheddable):
            return Priority.SHEDDABLE
        if self.priority_of is None:
            return Priority.NORMAL
        try:
            said = self.priority_of(request)
            return Priority.NORMAL if said is None else Priority[said.upper()]
        except Exception:
            self.log.exception("Cannot determine the priority of %s; using normal", request.path)
            return Priority.NORMAL

    @staticmethod
    def _client(channel: Channel, request: Request) -> str:
        if channel.http.trusted:
            for name, value in reversed(request.headers):
                if name == "X-FORWARDED-FOR":
                    return value.rpartition(",")[2].strip()
        return str(channel.peer[0]) if isinstance(channel.peer, tuple) else ""
