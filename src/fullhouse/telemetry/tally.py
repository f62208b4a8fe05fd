"""What a worker counts of its requests."""

from fullhouse.histogram import REQUEST_BOUNDS_S, Histogram
from fullhouse.telemetry.times import OTHER, Times

# Methods x routes x status codes that are told apart. What comes after so many is counted together, by the class of
# its status code, for which there is always room.
MOST_SERIES = 128
_KEPT_FOR_OTHERS = 8
SHED_REASONS = ("queue_limit", "overload", "wait_timeout", "client_share", "client_gone")
"""Why a request did not run: see the options of these names; overload: it waited beyond `queue_target`."""

Key = tuple[str, str, int]


class Series:
    """The requests of one method, route and status code. durations: from their arrival. The others are sums, in
    seconds but for the number of statements: see `Times`."""

    __slots__ = ("connection_s", "cpu_s", "durations", "sent_s", "statements", "statements_s", "waited_s")

    def __init__(self) -> None:
        self.durations = Histogram(REQUEST_BOUNDS_S)
        self.waited_s = self.connection_s = self.statements_s = self.cpu_s = self.sent_s = 0.0
        self.statements = 0

    def count(self, times: Times) -> None:
        self.durations.observe(times.total_s)
        self.waited_s += times.waited_s
        self.connection_s += times.connection_s
        self.statements += times.statements
        self.statements_s += times.statements_s
        self.cpu_s += times.cpu_s
        self.sent_s += times.sent_s

    def add(self, other: "Series") -> None:
        self.durations.add(other.durations.counts, other.durations.sum_s)
        self.waited_s += other.waited_s
        self.connection_s += other.connection_s
        self.statements += other.statements
        self.statements_s += other.statements_s
        self.cpu_s += other.cpu_s
        self.sent_s += other.sent_s


class Tally:
    """Plain numbers, written by one thread only, so that no lock is needed, and read by any.

    requests, seconds (all that they took), errors (answers of 500 and above), waits (for a thread), shed (by reason),
    series: since the start. busy threads, queued requests, the most of them since `take_peak`, and how long the oldest
    has waited: now.
    """

    __slots__ = (
        *("busy", "errors", "oldest_wait_s", "peak_queued", "queued", "requests", "seconds", "series", "shed"),
        *("durations", "waits"),
    )

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.errors = 0
        self.shed = dict.fromkeys(SHED_REASONS, 0)
        self.busy = 0
        self.queued = 0
        self.peak_queued = 0
        self.oldest_wait_s = 0.0
        self.durations = Histogram(REQUEST_BOUNDS_S)
        self.waits = Histogram(REQUEST_BOUNDS_S)
        self.series: dict[Key, Series] = {}

    def count(self, duration_s: float, *, failed: bool) -> None:
        """A request is finished; `failed` says whether the server is to blame."""
        self.requests += 1
        self.seconds += duration_s
        self.errors += failed
        self.durations.observe(duration_s)

    def count_times(self, times: Times) -> None:
        """And where its time went."""
        self.waits.observe(times.waited_s)
        key = times.key
        series = self.series.get(key) or self._new_series(key)
        series.count(times)

    def _new_series(self, key: Key) -> Series:
        if len(self.series) >= MOST_SERIES - _KEPT_FOR_OTHERS:
            key = (OTHER, OTHER, key[2] // 100 * 100)
        return self.series.setdefault(key, Series())

    def take_peak(self) -> int:
        """The most requests that waited at once since the last call."""
        peak, self.peak_queued = max(self.peak_queued, self.queued), 0
        return peak
