"""Why a checkout failed. Each text is the fact, its numbers and the remedy."""

from fullhouse.errors import DatabaseError
from fullhouse.pool.statistics import PoolStatistics

MOST_NAMED = 4
"""Holders of pinned connections that an error names."""


class PoolError(DatabaseError):
    """The root of what a checkout raises."""


class PoolClosed(PoolError):  # noqa: N818 (the names say a fact: "the pool is closed")
    """The pool was closed, or this process must not open connections."""


class CheckoutRefused(PoolError):  # noqa: N818 (see above)
    """No connection within the deadline. `statistics` is the pool at that moment.

    is_down: the pool has no connection, and cannot open one; else the database works, but nothing came free in time.
    The driver's error of the last failed connect, if there was one, is the `__cause__`.
    """

    def __init__(self, message: str, statistics: PoolStatistics, *, is_down: bool) -> None:
        super().__init__(message)
        self.statistics = statistics
        self.is_down = is_down
        failure = statistics.last_failure
        self.__cause__ = failure.error if failure else None


def exhausted(statistics: PoolStatistics, reason: str) -> CheckoutRefused:
    remedy = "Keep transactions short, or raise max_size or the host's connection budget."
    if statistics.pinned:
        holders = [f"{lease.thread} for {lease.age_s:.1f} s" for lease in statistics.pinned[:MOST_NAMED]]
        holders += ["..."] if len(statistics.pinned) > MOST_NAMED else []
        remedy = (
            f"{len(statistics.pinned)} are pinned by a lock or a changed session: {', '.join(holders)}. Release "
            "the locks, or call close_old_connections() at the end of a thread's work."
        )
    return CheckoutRefused(
        f"Pool {statistics.name!r} is exhausted: {reason}; {_numbers(statistics)}.\n{remedy}", statistics, is_down=False
    )


def database_down(statistics: PoolStatistics, reason: str) -> CheckoutRefused:
    remedy = (
        "Check that the server is running and that host, port, user and password are correct; the pool keeps trying."
    )
    if statistics.hanging:
        longest = statistics.hanging[0]
        remedy = (
            f"{len(statistics.hanging)} connection attempts have not returned; the longest has taken "
            f"{longest.age_s:.1f} s and is at {longest.where}. Check that the server is reachable, and what "
            "connection_created receivers do."
        )
    return CheckoutRefused(
        f"The database of pool {statistics.name!r} cannot be reached: {reason}; {_numbers(statistics)}.\n{remedy}",
        statistics,
        is_down=True,
    )


def _numbers(statistics: PoolStatistics) -> str:
    failure = statistics.last_failure
    size = "" if statistics.max_size is None else f" of {statistics.max_size}"
    return (
        f"connections {statistics.total}{size}: {statistics.in_use} in use, {statistics.idle} idle; "
        f"{statistics.connecting} connecting, {statistics.waiting} waiting; "
        f"slots {statistics.slots_held} of the host's {statistics.slots_budget}; "
        + (f"last connect failure {failure.age_s:.1f} s ago: {failure}" if failure else "no connect failed")
    )
