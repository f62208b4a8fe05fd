"""A pool's numbers: immutable, consistent within one snapshot."""

import dataclasses

from fullhouse.errors import described
from fullhouse.histogram import Histogram


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectFailure:
    """The last connect that failed. `age_s` is counted at the time of the snapshot."""

    error: Exception
    age_s: float
    server_full: bool

    def __str__(self) -> str:
        return described(self.error)


@dataclasses.dataclass(frozen=True, slots=True)
class HangingConnect:
    """A connect that has not returned for `age_s` at the time of the snapshot. where: the line that it stands at."""

    age_s: float
    where: str


@dataclasses.dataclass(frozen=True, slots=True)
class PinnedLease:
    """A connection that its thread keeps between statements, for `age_s` at the time of the snapshot."""

    thread: str
    age_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """One snapshot of a pool. Its counters began with the pool, in a forked child with the fork."""

    name: str
    total: int
    """Connections open: in use + idle + vetting + closing."""
    in_use: int
    idle: int
    vetting: int
    """Being checked or reset, not available for the moment."""
    closing: int
    connecting: int
    waiting: int
    max_size: int | None
    slots_held: int
    slots_budget: int
    last_failure: ConnectFailure | None
    """The last connect that failed, also when others have succeeded since."""
    pinned: tuple[PinnedLease, ...]
    """Connections that their threads keep for what they have left in the session, the oldest first."""
    hanging: tuple[HangingConnect, ...]
    """Connects that take longer than a second, the longest first."""

    checkouts: int
    checkouts_waited: int
    checkouts_refused: int
    connects: int
    connects_failed: int
    closed: int
    leaks_reported: int
    leases_reclaimed: int
    waits: Histogram
    """How long each checkout waited that got a connection."""
    connect_times: Histogram
    uses: Histogram
    """How long each connection was lent."""
