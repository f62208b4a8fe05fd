"""Where the time of a request goes, part by part."""

import threading

# The key of a WSGI environ under which Django's template of the path is left.
ROUTE = "fullhouse.route"
# The parts by name, as attributes of Times.
PARTS = {
    "queue": "waited_s",
    "connection": "connection_s",
    "statements": "statements_s",
    "application": "application_s",
    "computed": "cpu_s",
    "send": "sent_s",
}


class Times:
    """One request, in seconds.

    waited_s: for a thread. connection_s: for database connections. statements, statements_s: how many, and how long
    they took in the driver and on the server. sent_s: waited for its client, while the application sent. cpu_s: of
    application_s, what its thread computed; None where that is not known. total_s: from its arrival.

    route: Django's template of the path, as /seats/<int:seat>/; empty where none matched. status: 0 before there
    is one.
    """

    # what most requests leave as it is, on the class: setting fewer attributes is measurably cheaper
    route = ""
    status = 0
    connection_s = statements_s = sent_s = total_s = 0.0
    statements = 0
    cpu_s: float | None = None

    def __init__(self, method: str, waited_s: float) -> None:
        self.method = method
        self.waited_s = waited_s

    @property
    def application_s(self) -> float:
        """All that is no other part: the thread computed, or waited for the interpreter, a disk, another service."""
        known_s = self.waited_s + self.connection_s + self.statements_s + self.sent_s
        return max(0.0, self.total_s - known_s)

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name. They add up to total_s, but for `computed`, which is of the application's."""
        found = {name: getattr(self, attribute) for name, attribute in PARTS.items()}
        return {name: part_s for name, part_s in found.items() if part_s is not None}


class Own(threading.local):
    """times: of the request that the thread runs; what its database side adds outside of requests is nobody's."""

    def __init__(self) -> None:
        self.times = Times("", 0.0)


own = Own()
