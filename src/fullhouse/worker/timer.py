"""Measures where the time of one request goes, in the thread that runs it.

What the thread computes is not measured from the start: to ask the kernel costs more than all the rest. The worker
looks twice a second at all requests that run, and notes it of those that it sees for the first time; so it is known of
long requests, which are the ones that somebody asks about.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fullhouse.telemetry.times import Times, own
from fullhouse.worker.channel import Channel
from fullhouse.worker.threads import ThreadState

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# In less time after the first look, the kernel's ticks say too little.
_FEWEST_TICKS = 10


class Timer(Times):
    """Made where the thread begins with a request. The database side adds to it from then on."""

    _seen: tuple[float, float] | None = None  # what the thread had computed, and when; set once, by the worker

    def __init__(self, method: str, channel: Channel) -> None:
        self.method = method
        self._channel: Channel | None = channel
        self._began_s = channel.began_s  # the loop may end the request meanwhile
        self.waited_s = time.monotonic() - self._began_s
        own.times = channel.times = self

    def see(self, cpu_s: float, now: float) -> None:
        """The thread has computed so much in its life, at `now` in monotonic seconds."""
        if self._seen is None:
            self._seen = cpu_s, now

    def look(self) -> None:
        """Bring it up to date. By its own thread."""
        now = time.monotonic()
        if self._channel is not None:
            self.sent_s = self._channel.sent_s
        self.total_s = now - self._began_s
        if self._seen is not None:
            before_s, at = self._seen
            if now - at >= _FEWEST_TICKS * _TICK_S:
                share = (time.thread_time() - before_s) / (now - at)
                self.cpu_s = min(self.application_s, share * (self.total_s - self.waited_s))

    def stop(self, route: str, status: int) -> None:
        """The request has ended. From now on nothing is kept alive, and no cycle: its channel refers to this."""
        self.look()
        self.route, self.status = route, status
        self._channel = None


def see_running(states: Iterable[ThreadState], now: float) -> None:
    """Look at what runs, at `now` in monotonic seconds; by any one thread."""
    for state in list(states):
        channel = state.channel
        if channel is not None and isinstance(channel.times, Timer) and channel.times._seen is None:
            cpu_s = _computed_s(state.native)
            if cpu_s is not None:
                channel.times.see(cpu_s, now)


def _computed_s(native: int) -> float | None:
    """By a thread of this process, in ticks; None where that is not told, or it has ended."""
    with suppress(OSError, ValueError):
        fields = Path(f"/proc/self/task/{native}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    return None
