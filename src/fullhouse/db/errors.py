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
            "The request exceeded request_timeout and its client has received 503: it may not run further statements."
        )


class PinnedConnectionTaken(OperationalError):  # noqa: N818
    """A thread outside of requests had changed its session and left it idle; one that waited has it now."""

    def __init__(self) -> None:
        super().__init__(
            "This thread serves no request, and the pool has taken its idle connection for one that waited: what it "
            "had SET in the session is lost.\nCall close_old_connections() when its work is done, or pin() to keep it."
        )


class PoolExhausted(ConnectionUnavailable):
    """The database works, but every connection was busy for as long as this request could wait."""


class DatabaseDown(ConnectionUnavailable):
    """The database does not answer, or refuses this user."""
