"""Counts of durations by bucket, as OpenTelemetry and Prometheus have them."""

from bisect import bisect_left
from collections.abc import Sequence

# Upper bounds in seconds, as OpenTelemetry's semantic conventions advise them for http.server.request.duration ...
REQUEST_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# ... and for db.client.connection.create_time, wait_time and use_time.
CONNECTION_BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class Histogram:
    """Durations since the start. counts: one for each bound, of what took at most so long, and one for all that took
    longer; no duration is in two of them. sum_s: of all.

    One thread writes, or several under a lock of theirs; any may read.
    """

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: Sequence[float], counts: Sequence[int] = (), sum_s: float = 0.0) -> None:
        self.bounds = bounds
        self.counts = list(counts) or [0] * (len(bounds) + 1)
        self.sum_s = sum_s

    def observe(self, duration_s: float) -> None:
        self.counts[bisect_left(self.bounds, duration_s)] += 1
        self.sum_s += duration_s

    def add(self, other: "Histogram") -> None:
        """Count what another one with the same bounds has."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s

    def since(self, earlier: "Histogram") -> "Histogram":
        """What came after it was like the earlier one."""
        counts = [max(0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True)]
        return Histogram(self.bounds, counts, max(0.0, self.sum_s - earlier.sum_s))

    def copy(self) -> "Histogram":
        return Histogram(self.bounds, self.counts, self.sum_s)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile_s(self, share: float) -> float | None:
        """The duration that this share of all, 0 to 1, has not exceeded; None where there are none.

        Interpolated within its bucket, as Prometheus's histogram_quantile does; at most the last bound.
        """
        wanted = share * self.count
        if not wanted:
            return None
        below, lower = 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= wanted:
                return lower + (bound - lower) * (wanted - below) / count
            below, lower = below + count, bound
        return self.bounds[-1]
