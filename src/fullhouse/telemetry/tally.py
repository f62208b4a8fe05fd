"""What a worker counts of its requests."""

from collections.abc import Iterable, Mapping

from fullhouse.histogram import REQUEST_BOUNDS_S, Histogram
from fullhouse.telemetry.times import Times

# Methods x routes x status codes that are told apart. What comes after so many is counted together, by the class of
# its status code, for which there is always room.
MOST_SERIES = 128
_KEPT_FOR_OTHERS = 8
SHED_REASONS = ("queue_limit", "overload", "wait_timeout", "client_share", "client_gone")
"""Why a request did not run: see the options of these names; overload: it waited beyond `queue_target`."""

Key = tuple[str, str, int]
OTHER = "_OTHER"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


# Of a Series, what is a plain sum.
SUMS = ("statements", "waited_s", "connection_s", "statements_s", "sent_s")


class Series:
    """The requests of one method, route and status code. durations: from their arrival. The others are sums, in
    seconds but for the number of statements: see `Times`."""

    __slots__ = ("durations", *SUMS)

    def __init__(self) -> None:
        self.durations = Histogram(REQUEST_BOUNDS_S)
        self.waited_s = self.connection_s = self.statements_s = self.sent_s = 0.0
        self.statements = 0

    def add(self, other: "Series") -> None:
        self.durations.add(other.durations)
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, earlier: "Series") -> "Series":
        """What came after it was like the earlier one."""
        found = Series()
        found.durations = self.durations.since(earlier.durations)
        for name in SUMS:
            setattr(found, name, getattr(self, name) - getattr(earlier, name))
        return found

    @property
    def run_s(self) -> float:
        """How long they were in threads."""
        return self.durations.sum_s - self.waited_s


def together(series: Iterable[Series]) -> Series:
    """Their sum."""
    found = Series()
    for one in series:
        found.add(one)
    return found


def by_route(series: Mapping[Key, Series]) -> dict[str, Series]:
    """All methods and status codes of each route together."""
    found: dict[str, Series] = {}
    for (_, route, _), one in series.items():
        found.setdefault(route, Series()).add(one)
    return found


class Tally:
    """Plain numbers, written by one thread only, so that no lock is needed, and read by any.

    requests, seconds (all that they took), errors (answers of 500 and above), waits (for a thread), shed (by reason),
    series: since the start. busy threads, queued requests, the most of them since `take_peak`, and how long the oldest
    has waited: now.
    """

    __slots__ = (
        *("busy", "errors", "oldest_wait_s", "peak_queued", "queued", "requests", "seconds", "series", "shed"),
        "waits",
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
        self.waits = Histogram(REQUEST_BOUNDS_S)
        self.series: dict[Key, Series] = {}

    def count(self, duration_s: float, *, failed: bool, times: Times | None = None) -> None:
        """A request is finished; `failed` says whether the server is to blame. times: where its time went, if known."""
        self.requests += 1
        self.seconds += duration_s
        self.errors += failed
        if times is None:
            return
        self.waits.observe(times.waited_s)
        series = self.series.get((times.method, times.route, times.status)) or self._series_of(times)
        series.durations.observe(times.total_s)
        series.waited_s += times.waited_s
        if times.statements or times.connection_s:
            series.connection_s += times.connection_s
            series.statements += times.statements
            series.statements_s += times.statements_s
        if times.sent_s:
            series.sent_s += times.sent_s

    def _series_of(self, times: Times) -> Series:
        """What it is counted under, where that is not there yet, or not under its own method."""
        key = times.method if times.method in _METHODS else OTHER, times.route, times.status
        if key not in self.series and len(self.series) >= MOST_SERIES - _KEPT_FOR_OTHERS:
            key = OTHER, OTHER, times.status // 100 * 100
        return self.series.setdefault(key, Series())

    def take_peak(self) -> int:
        """The most requests that waited at once since the last call."""
        peak, self.peak_queued = max(self.peak_queued, self.queued), 0
        return peak
