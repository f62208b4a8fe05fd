"""A worker's row of the stats board: what it says, and its bytes.

Counters and sums go on from those of the worker that had the row before: they begin with the site and never fall.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from operator import attrgetter

from fullhouse.histogram import CONNECTION_BOUNDS_S, REQUEST_BOUNDS_S, Histogram
from fullhouse.telemetry.tally import MOST_SERIES, SHED_REASONS, SUMS, Key, Series, together

DATABASES = 8
END_REASONS = ("stopped", "max_requests", "max_worker_memory", "stuck_request", "timeout", "crashed")
"""Why a worker ended; crashed: it did not say. stopped: by a reload, a stop or a signal."""


@dataclass(frozen=True)
class Gauges:
    """How a worker is now.

    pid, generation: who writes; began: when its process did, in seconds since 1970. threads: it has; busy: of them;
    queued: requests that wait for one, at most peak_queued at once in the last ten seconds, the oldest for
    oldest_wait_ms. memory: bytes, shared ones included. requests_per_s: of the last ten seconds.
    """

    pid: int = 0
    generation: int = 0
    began: int = 0
    threads: int = 0
    busy: int = 0
    queued: int = 0
    peak_queued: int = 0
    oldest_wait_ms: int = 0
    memory: int = 0
    requests_per_s: float = 0.0


@dataclass(frozen=True)
class Totals:
    """What has happened in this row since the site's start. errors: answers of 500 and above. cpu_ms: of processor."""

    requests: int = 0
    errors: int = 0
    cpu_ms: int = 0
    shed: tuple[int, ...] = (0,) * len(SHED_REASONS)
    ends: tuple[int, ...] = (0,) * len(END_REASONS)


@dataclass(frozen=True)
class DatabaseGauges:
    """The pool of one alias in one worker. waiting: for a connection. budget: slots of the host; slots: held here.

    limit: connections that this pool may have at most.
    """

    connections: int = 0
    in_use: int = 0
    idle: int = 0
    waiting: int = 0
    slots: int = 0
    budget: int = 0
    limit: int = 0


@dataclass(frozen=True)
class DatabaseTotals:
    """Of one alias, since the site's start. refused: checkouts that got no connection in time."""

    checkouts: int = 0
    refused: int = 0
    connects: int = 0
    connects_failed: int = 0


@dataclass(frozen=True)
class Database:
    """waits: of checkouts. connects: how long each took. uses: how long each connection was lent."""

    alias: str
    gauges: DatabaseGauges = DatabaseGauges()
    totals: DatabaseTotals = DatabaseTotals()
    waits: Histogram = field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))
    connects: Histogram = field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))
    uses: Histogram = field(default_factory=lambda: Histogram(CONNECTION_BOUNDS_S))


@dataclass(frozen=True)
class Row:
    """One worker as it was at one moment. waits: for a thread. number: of the row; lives: whether its process does."""

    gauges: Gauges = Gauges()
    totals: Totals = Totals()
    waits: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
    databases: tuple[Database, ...] = ()
    series: Mapping[Key, Series] = field(default_factory=dict)
    number: int = 0
    lives: bool = True

    @property
    def durations(self) -> Histogram:
        """Of all requests together."""
        return together(self.series.values()).durations


_GAUGES = struct.Struct(f"={len(fields(Gauges)) - 1}Qd")
_TOTALS = struct.Struct(f"={3 + len(SHED_REASONS) + len(END_REASONS)}Q")
_REQUESTS = struct.Struct(f"={len(REQUEST_BOUNDS_S) + 1}Qd")
_CONNECTIONS = struct.Struct(f"={len(CONNECTION_BOUNDS_S) + 1}Qd")
_DATABASE = struct.Struct(f"=32s{len(fields(DatabaseGauges)) + len(fields(DatabaseTotals))}Q")
_DATABASE_SIZE = _DATABASE.size + 3 * _CONNECTIONS.size
_KEY = struct.Struct("=8sH190s")
_SUMS = struct.Struct("=Q4d")
_sums = attrgetter(*SUMS)
_SERIES_SIZE = _KEY.size + _REQUESTS.size + _SUMS.size
_DATABASES_AT = _GAUGES.size + _TOTALS.size + _REQUESTS.size
_SERIES_AT = _DATABASES_AT + DATABASES * _DATABASE_SIZE
SIZE = _SERIES_AT + MOST_SERIES * _SERIES_SIZE
_LONGEST_ROUTE = 190


def pack(row: Row) -> bytes:
    """Its bytes. Databases beyond the number that a row holds are left out."""
    totals = row.totals
    return b"".join(
        [
            _GAUGES.pack(*astuple(row.gauges)),
            _TOTALS.pack(totals.requests, totals.errors, totals.cpu_ms, *totals.shed, *totals.ends),
            _packed(_REQUESTS, row.waits),
            b"".join(map(_packed_database, row.databases[:DATABASES])).ljust(DATABASES * _DATABASE_SIZE, b"\0"),
            *(_packed_series(key, series) for key, series in row.series.items()),
            bytes(_KEY.size) if len(row.series) < MOST_SERIES else b"",  # the end
        ]
    )


def unpack(data: bytes, number: int = 0) -> Row:
    """The row again."""
    requests, errors, cpu_ms, *rest = _TOTALS.unpack_from(data, _GAUGES.size)
    shed, ends = tuple(rest[: len(SHED_REASONS)]), tuple(rest[len(SHED_REASONS) :])
    return Row(
        Gauges(*_GAUGES.unpack_from(data)),
        Totals(requests, errors, cpu_ms, shed, ends),
        _histogram(data, _GAUGES.size + _TOTALS.size, _REQUESTS, REQUEST_BOUNDS_S),
        tuple(_databases(data)),
        dict(_series(data)),
        number,
    )


def _packed(layout: struct.Struct, histogram: Histogram) -> bytes:
    return layout.pack(*histogram.counts, histogram.sum_s)


def _histogram(data: bytes, at: int, layout: struct.Struct, bounds: tuple[float, ...]) -> Histogram:
    *counts, sum_s = layout.unpack_from(data, at)
    return Histogram(bounds, counts, sum_s)


def _packed_database(one: Database) -> bytes:
    numbers = _DATABASE.pack(_cut(one.alias, 32), *astuple(one.gauges), *astuple(one.totals))
    return numbers + b"".join(_packed(_CONNECTIONS, each) for each in (one.waits, one.connects, one.uses))


def _databases(data: bytes) -> Iterator[Database]:
    for at in range(_DATABASES_AT, _SERIES_AT, _DATABASE_SIZE):
        alias, *numbers = _DATABASE.unpack_from(data, at)
        if not alias[0]:
            return
        gauges, totals = numbers[: len(fields(DatabaseGauges))], numbers[len(fields(DatabaseGauges)) :]
        histograms = (
            _histogram(data, at + _DATABASE.size + which * _CONNECTIONS.size, _CONNECTIONS, CONNECTION_BOUNDS_S)
            for which in range(3)
        )
        yield Database(_text(alias), DatabaseGauges(*gauges), DatabaseTotals(*totals), *histograms)


def _packed_series(key: Key, series: Series) -> bytes:
    method, route, status = key
    text = route.encode()
    if len(text) > _LONGEST_ROUTE:
        text = _cut(route, _LONGEST_ROUTE - 3) + "…".encode()
    return _KEY.pack(method.encode(), status, text) + _packed(_REQUESTS, series.durations) + _SUMS.pack(*_sums(series))


def _series(data: bytes) -> Iterator[tuple[Key, Series]]:
    for at in range(_SERIES_AT, SIZE, _SERIES_SIZE):
        method, status, route = _KEY.unpack_from(data, at)
        if not method[0]:
            return
        found = Series()
        found.durations = _histogram(data, at + _KEY.size, _REQUESTS, REQUEST_BOUNDS_S)
        for name, value in zip(SUMS, _SUMS.unpack_from(data, at + _KEY.size + _REQUESTS.size), strict=True):
            setattr(found, name, value)
        yield (_text(method), _text(route), status), found


def _cut(text: str, size: int) -> bytes:
    """At most so many bytes, of whole characters."""
    return text.encode()[:size].decode(errors="ignore").encode()


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def summed(rows: Iterable[Row]) -> Row:
    """The totals and histograms of all rows together; its gauges are empty."""
    waits = Histogram(REQUEST_BOUNDS_S)
    totals: list[tuple[int, ...]] = []
    series: dict[Key, Series] = {}
    databases: list[Database] = []
    for row in rows:
        waits.add(row.waits)
        totals.append((row.totals.requests, row.totals.errors, row.totals.cpu_ms, *row.totals.shed, *row.totals.ends))
        for key, one in row.series.items():
            series.setdefault(key, Series()).add(one)
        databases += row.databases
    requests, errors, cpu_ms, *rest = map(sum, zip(*totals, strict=True)) if totals else (0,) * (_TOTALS.size // 8)
    both = Totals(requests, errors, cpu_ms, tuple(rest[: len(SHED_REASONS)]), tuple(rest[len(SHED_REASONS) :]))
    return Row(Gauges(), both, waits, merged(databases), series)


def merged(found: Iterable[Database]) -> tuple[Database, ...]:
    """One of each alias, in several workers, or before and after."""
    by_alias: dict[str, list[Database]] = {}
    for one in found:
        by_alias.setdefault(one.alias, []).append(one)
    return tuple(_added(alias, each) for alias, each in by_alias.items())


def _added(alias: str, found: Sequence[Database]) -> Database:
    """The sums; of the budget, the greatest."""
    sums = DatabaseGauges(*map(sum, zip(*(astuple(one.gauges) for one in found), strict=True)))
    gauges = replace(sums, budget=max(one.gauges.budget for one in found))
    totals = DatabaseTotals(*map(sum, zip(*(astuple(one.totals) for one in found), strict=True)))
    result = Database(alias, gauges, totals)
    for one in found:
        result.waits.add(one.waits)
        result.connects.add(one.connects)
        result.uses.add(one.uses)
    return result
