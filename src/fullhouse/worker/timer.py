"""Measures where the time of one request goes, in the thread that runs it."""

import time

from fullhouse.telemetry.times import Times, own_times
from fullhouse.worker.channel import Channel


class Timer:
    """Made where the thread begins with a request; nothing that ran in the thread before is counted."""

    __slots__ = ("_began_s", "_channel", "_cpu_s", "_times")

    def __init__(self, method: str, channel: Channel) -> None:
        self._channel = channel
        self._began_s = channel.began_s  # the loop may end the request meanwhile
        self._times = Times(method, time.monotonic() - self._began_s)
        own_times.connection_s = own_times.statements_s = 0.0
        own_times.statements = 0
        self._cpu_s = time.thread_time()

    def look(self) -> Times:
        """As it is now."""
        times = self._times
        times.cpu_s = time.thread_time() - self._cpu_s
        times.connection_s, times.statements_s = own_times.connection_s, own_times.statements_s
        times.statements = own_times.statements
        times.sent_s = self._channel.sent_s
        times.total_s = time.monotonic() - self._began_s
        return times

    def stop(self, route: str, status: int) -> Times:
        """Of the whole request."""
        times = self.look()
        times.route, times.status = route, status
        return times
