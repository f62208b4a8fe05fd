"""The figures of a look as metrics, for any exporter. Pure.

Names, units and buckets are those of OpenTelemetry's semantic conventions where there is one; the rest begins with
fullhouse. What belongs to one worker is labelled with the number of its row, which its successor has, too; durations
are those of all workers together, by route.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fullhouse.histogram import Histogram
from fullhouse.observer.look import Budget, Look
from fullhouse.telemetry.rows import END_REASONS, Database, Row
from fullhouse.telemetry.tally import SHED_REASONS, by_route

_POOL = "db.client.connection.pool.name"
_SECONDS = "s"

Labels = Sequence[str | int]
Kind = Literal["counter", "level", "histogram"]


@dataclass
class Metric:
    """kind: a counter never falls; a level is what it is now. unit: as UCUM writes it, or one in braces that has none.

    values: of each combination of labels, in the order of their names; or histograms, where the kind is that.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    labels: Sequence[str] = ()
    values: list[tuple[Labels, float]] = field(default_factory=list)
    histograms: list[tuple[Labels, Histogram]] = field(default_factory=list)

    def add(self, value: float, *labels: str | int) -> None:
        self.values.append((labels, value))

    def add_histogram(self, found: Histogram, *labels: str | int) -> None:
        self.histograms.append((labels, found))


def metrics(look: Look) -> Iterator[Metric]:
    """All of them; those without a point, too."""
    total, workers = look.total, look.workers
    yield from _requests(total, workers)
    yield from _queue(total, workers)
    yield from _connections(look.pools)
    yield from _checkouts(total.databases)
    yield from _workers(total, workers)
    yield from _site(look)
    yield from _budgets(look.budgets)


def _requests(total: Row, workers: Sequence[Row]) -> Iterator[Metric]:
    labels = ("http.request.method", "http.response.status_code", "http.route")
    durations = _durations(
        "http.server.request.duration", "From a request's arrival until its response is made.", labels
    )
    for (method, route, status), series in total.series.items():
        durations.add_histogram(series.durations, method, status, route)
    yield durations
    yield _by_worker(
        "http.server.active_requests", "{request}", "Requests that run now.", workers, lambda row: row.gauges.busy
    )
    times = Metric("fullhouse.request.time", "counter", _SECONDS, "Where the time of requests went.")
    times.labels = ("http.route", "part")
    statements = Metric("fullhouse.request.statements", "counter", "{statement}", "Statements on databases.")
    statements.labels = ("http.route",)
    for route, series in by_route(total.series).items():
        parts = (series.waited_s, series.connection_s, series.statements_s, series.sent_s)
        for part, part_s in zip(("queue", "connection", "statements", "send"), parts, strict=True):
            times.add(part_s, route, part)
        times.add(max(0.0, series.durations.sum_s - sum(parts)), route, "application")
        statements.add(series.statements, route)
    yield times
    yield statements


def _queue(total: Row, workers: Sequence[Row]) -> Iterator[Metric]:
    waits = _durations("fullhouse.queue.wait", "How long requests waited for a thread.")
    waits.add_histogram(total.waits)
    yield waits
    unit = "{request}"
    now, peak = "Requests that wait now.", "The most requests that waited at once in the last ten seconds."
    yield _by_worker("fullhouse.queue.requests", unit, now, workers, lambda row: row.gauges.queued)
    yield _by_worker("fullhouse.queue.peak_requests", unit, peak, workers, lambda row: row.gauges.peak_queued)
    oldest = "How long the oldest request that waits has done so."
    yield _by_worker(
        "fullhouse.queue.oldest_wait", _SECONDS, oldest, workers, lambda row: row.gauges.oldest_wait_ms / 1000
    )
    shed = Metric("fullhouse.requests.shed", "counter", unit, "Requests that were answered 503 unrun.", ("reason",))
    for reason, count in zip(SHED_REASONS, total.totals.shed, strict=True):
        shed.add(count, reason)
    yield shed


def _connections(live: Iterable[Database]) -> Iterator[Metric]:
    """live: the pools of the workers that live."""
    prefix = "db.client.connection"
    states = (_POOL, "db.client.connection.state")
    count = Metric(f"{prefix}.count", "level", "{connection}", "Open connections.", states)
    most = Metric(f"{prefix}.max", "level", "{connection}", "Connections that there may be.", (_POOL,))
    pending = Metric(f"{prefix}.pending_requests", "level", "{request}", "Checkouts that wait for one.", (_POOL,))
    for one in live:
        count.add(one.gauges.idle, one.alias, "idle")
        count.add(one.gauges.in_use, one.alias, "used")
        most.add(one.gauges.budget, one.alias)
        pending.add(one.gauges.waiting, one.alias)
    yield from (count, most, pending)


def _checkouts(counted: Iterable[Database]) -> Iterator[Metric]:
    """counted: of all workers that there were."""
    prefix = "db.client.connection"
    timeouts = Metric(f"{prefix}.timeouts", "counter", "{timeout}", "Checkouts that got no connection.", (_POOL,))
    failures = Metric("fullhouse.connects.failed", "counter", "{connect}", "Connects that failed.", (_POOL,))
    waits = _durations(f"{prefix}.wait_time", "How long checkouts waited.", (_POOL,))
    connects = _durations(f"{prefix}.create_time", "How long connects took.", (_POOL,))
    uses = _durations(f"{prefix}.use_time", "How long connections were lent.", (_POOL,))
    for one in counted:
        timeouts.add(one.totals.refused, one.alias)
        failures.add(one.totals.connects_failed, one.alias)
        waits.add_histogram(one.waits, one.alias)
        connects.add_histogram(one.connects, one.alias)
        uses.add_histogram(one.uses, one.alias)
    yield from (timeouts, failures, waits, connects, uses)


def _workers(total: Row, workers: Sequence[Row]) -> Iterator[Metric]:
    computed = Metric("process.cpu.time", "counter", _SECONDS, "Computed by the workers.")
    computed.add(total.totals.cpu_ms / 1000)
    yield computed
    memory = "Physical memory of each worker."
    yield _by_worker("process.memory.usage", "By", memory, workers, lambda row: row.gauges.memory)
    threads = "Threads that requests may use."
    yield _by_worker("fullhouse.threads", "{thread}", threads, workers, lambda row: row.gauges.threads)
    ends = Metric("fullhouse.worker.ends", "counter", "{worker}", "Workers that have ended.", ("reason",))
    for reason, count in zip(END_REASONS, total.totals.ends, strict=True):
        ends.add(count, reason)
    yield ends


def _site(look: Look) -> Iterator[Metric]:
    labels = ("generation", "state")
    serving = Metric("fullhouse.generation.workers", "level", "{worker}", "Workers that serve.", labels)
    for one in look.status["generations"]:
        serving.add(len(one["workers"]), str(one["number"]), str(one["state"]))
    crashes = Metric("fullhouse.crashes", "level", "{crash}", "Crashes in a row of the whole site.")
    crashes.add(look.status["crashes"])
    uptime = Metric("fullhouse.uptime", "level", _SECONDS, "Since the site's start.")
    uptime.add(look.status["uptime_s"])
    up = Metric("fullhouse.companion.up", "level", "1", "Whether a companion process runs.", ("name", "number"))
    for one in look.status["processes"]:
        up.add(int(one["state"] == "running"), one["name"], str(one["number"]))
    yield from (serving, crashes, uptime, up)


def _budgets(budgets: Sequence[Budget]) -> Iterator[Metric]:
    limit = Metric("fullhouse.budget.slots", "level", "{session}", "Sessions that this host may have.", ("pools",))
    held = Metric("fullhouse.slots", "level", "{session}", "Slots that are held.", ("pools", "kind", "holder"))
    for budget in budgets:
        pools = ",".join(budget.aliases)
        limit.add(budget.slots, pools)
        slots: dict[tuple[str, str], int] = {}
        for one in budget.holders:
            # A command's words would make a series for each run.
            key = (one.kind, one.title if one.kind != "other" else "")
            slots[key] = slots.get(key, 0) + one.slots
        for (kind, holder), count in slots.items():
            held.add(count, pools, kind, holder)
    yield from (limit, held)
    yield from _fleets(budgets)


def _fleets(budgets: Iterable[Budget]) -> Iterator[Metric]:
    unit, labels = "{session}", ("pools", "host")
    share = Metric("fullhouse.fleet.share", "level", unit, "Slots that a host can always get.", labels)
    held = Metric("fullhouse.fleet.held", "level", unit, "Slots that a host may use now.", labels)
    in_use = Metric("fullhouse.fleet.in_use", "level", unit, "Slots of a host with a session on them.", labels)
    waits = Metric("fullhouse.fleet.waits", "level", "1", "Whether a host waits for more slots.", labels)
    heard = Metric("fullhouse.fleet.heard", "level", _SECONDS, "Since the keeper has asked its server.", ("pools",))
    for budget in budgets:
        if budget.fleet is not None:
            pools = ",".join(budget.aliases)
            heard.add(budget.fleet.age_s, pools)
            for one in budget.fleet.hosts:
                for metric, value in ((share, one.share), (held, one.held), (in_use, one.in_use), (waits, one.waits)):
                    metric.add(int(value), pools, str(one.number))
    yield from (share, held, in_use, waits, heard)


def _durations(name: str, text: str, labels: Sequence[str] = ()) -> Metric:
    return Metric(name, "histogram", _SECONDS, text, labels)


def _by_worker(name: str, unit: str, text: str, workers: Sequence[Row], value: Callable[[Row], float]) -> Metric:
    found = Metric(name, "level", unit, text, ("worker",))
    for row in workers:
        found.add(value(row), str(row.number))
    return found
