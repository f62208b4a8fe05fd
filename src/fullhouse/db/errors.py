"""What a view sees when it gets no connection: Django's OperationalError, with the pool's evidence."""

from django.db.utils import OperationalError

from fullhouse.pool.statistics import PoolStatistics


class ConnectionUnavailable(OperationalError):  # noqa: N818 - the names of this tree say a fact
    """No connection within the deadline. `statistics` is the pool at that moment, where it has any."""

    def __init__(self, message: str, statistics: PoolStatistics | None = None) -> None:
        super().__init__(message)
        self.statistics = statistics


class RequestCancelled(OperationalError):  # noqa: N818
    """The request was over its time (`request_timeout`) and its client was answered: it may change nothing any more."""

    def __init__(self) -> None:
        super().__init__(
            "The request was over its time and its client has been answered: it runs no further statement."
        )


class PoolExhausted(ConnectionUnavailable):
    """The database works, but every connection was busy for as long as this request could wait."""


class DatabaseDown(ConnectionUnavailable):
    """The database does not answer, or refuses this user."""
