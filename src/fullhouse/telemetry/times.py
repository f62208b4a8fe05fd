"""Where the time of a request goes, part by part.

`own_times` are those of the thread that reads them: the database side adds to them while a request runs, and the worker
takes them when it has ended. What is added outside of requests is lost with the next one.
"""

import threading

# The key of a WSGI environ under which Django's template of the path is left.
ROUTE = "fullhouse.route"
# Routes x methods x status codes that are told apart; the rest is counted under this name, by class of status code.
OTHER = "_OTHER"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


class DatabaseTimes(threading.local):
    """Of the request that this thread runs. connection_s: waited for one. statements, statements_s: how many, and how
    long they took, in the driver and on the server."""

    connection_s = 0.0
    statements = 0
    statements_s = 0.0


own_times = DatabaseTimes()


class Times:
    """One request, in seconds. waited_s: for a thread. cpu_s: its thread computed. connection_s, statements_s: see
    `DatabaseTimes`. sent_s: waited for its client, while the application sent. total_s: from its arrival.

    route: Django's template of the path, without the leading slash; empty where none matched. status: 0 before there
    is one.
    """

    __slots__ = (
        *("connection_s", "cpu_s", "method", "route", "sent_s", "statements", "statements_s", "status"),
        *("total_s", "waited_s"),
    )

    def __init__(self, method: str, waited_s: float) -> None:
        self.method = method
        self.route = ""
        self.status = 0
        self.waited_s = waited_s
        self.connection_s = self.statements_s = self.cpu_s = self.sent_s = self.total_s = 0.0
        self.statements = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is counted under."""
        return self.method if self.method in _METHODS else OTHER, self.route, self.status

    @property
    def other_s(self) -> float:
        """Neither computed nor waited for what is known: waited for the interpreter, a disk, another service."""
        known = self.waited_s + self.connection_s + self.statements_s + self.cpu_s + self.sent_s
        return max(0.0, self.total_s - known)
