"""What a worker counts of its requests."""

# Bucket k counts the requests of less than 2**k milliseconds, and not less than half of it; the last, all others.
BUCKETS = 16


class Tally:
    """Plain numbers, written by one thread only, so that no lock is needed, and read by any.

    requests, seconds (all that they took), errors (answers of 500 and above), latency (requests by bucket): finished
    since the start. busy threads, queued requests and how long the oldest has waited: now.
    """

    __slots__ = ("busy", "errors", "latency", "oldest_wait_s", "queued", "requests", "seconds", "shed")

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.errors = 0
        self.shed = 0
        self.busy = 0
        self.queued = 0
        self.oldest_wait_s = 0.0
        self.latency = [0] * BUCKETS

    def count(self, duration_s: float, *, failed: bool) -> None:
        """A request is finished; `failed` says whether the server is to blame."""
        self.requests += 1
        self.seconds += duration_s
        self.errors += failed
        self.latency[min(int(duration_s * 1000).bit_length(), BUCKETS - 1)] += 1
