"""`/metrics`: the figures in Prometheus's formats. The only module that knows prometheus-client.

Names and buckets are those of OpenTelemetry's semantic conventions where there is one, as Prometheus spells them (dots
as underscores, the unit at the end); the rest begins with fullhouse_. What belongs to one worker is labelled with the
number of its row, which its successor has, too; durations are those of all workers together, by route.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fullhouse.histogram import Histogram
from fullhouse.observer.look import Look
from fullhouse.telemetry.rows import END_REASONS, Database, Row
from fullhouse.telemetry.tally import SHED_REASONS, by_route

POOL = "db_client_connection_pool_name"


def exposition(look: Look, accept: str) -> tuple[bytes, str]:
    """The body and its content type, in the format that the Accept header asks for."""
    registry = CollectorRegistry()
    registry.register(_Site(look))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Site(Collector):
    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        total = self._look.total
        yield from _requests(total, self._look.workers)
        yield from _overload(total, self._look.workers)
        yield from _pools(total, self._look.pools)
        yield from _processes(total, self._look)
        yield from _budgets(self._look)


def _requests(total: Row, workers: Sequence[Row]) -> Iterator[Metric]:
    labels = ("http_request_method", "http_response_status_code", "http_route")
    durations = HistogramMetricFamily(
        "http_server_request_duration_seconds", "From a request's arrival until its response is made.", labels=labels
    )
    for (method, route, status), series in total.series.items():
        _add(durations, (method, str(status), route), series.durations)
    yield durations
    yield _by_worker("http_server_active_requests", "Requests that run now.", workers, lambda row: row.gauges.busy)
    times = CounterMetricFamily(
        "fullhouse_request_time_seconds", "Where the time of requests went.", labels=("http_route", "part")
    )
    statements = CounterMetricFamily("fullhouse_request_statements", "Statements on databases.", labels=("http_route",))
    for route, series in by_route(total.series).items():
        parts = (series.waited_s, series.connection_s, series.statements_s, series.sent_s)
        for part, part_s in zip(("queue", "connection", "statements", "send"), parts, strict=True):
            times.add_metric((route, part), part_s)
        times.add_metric((route, "application"), max(0.0, series.durations.sum_s - sum(parts)))
        statements.add_metric((route,), series.statements)
    yield times
    yield statements


def _overload(total: Row, workers: Sequence[Row]) -> Iterator[Metric]:
    waits = HistogramMetricFamily("fullhouse_queue_wait_seconds", "How long requests waited for a thread.", labels=())
    _add(waits, (), total.waits)
    yield waits
    yield _by_worker("fullhouse_queue_requests", "Requests that wait now.", workers, lambda row: row.gauges.queued)
    yield _by_worker(
        "fullhouse_queue_peak_requests",
        "The most requests that waited at once in the last ten seconds.",
        workers,
        lambda row: row.gauges.peak_queued,
    )
    yield _by_worker(
        "fullhouse_queue_oldest_wait_seconds",
        "How long the oldest request that waits has done so.",
        workers,
        lambda row: row.gauges.oldest_wait_ms / 1000,
    )
    shed = CounterMetricFamily("fullhouse_requests_shed", "Requests that were answered 503 unrun.", labels=("reason",))
    for reason, count in zip(SHED_REASONS, total.totals.shed, strict=True):
        shed.add_metric((reason,), count)
    yield shed


def _pools(total: Row, live: Iterable[Database]) -> Iterator[Metric]:
    """total: of all that the workers have counted; live: the pools of those that live."""
    prefix = "db_client_connection"
    count = GaugeMetricFamily(f"{prefix}_count", "Open connections.", labels=(POOL, "db_client_connection_state"))
    most = GaugeMetricFamily(f"{prefix}_max", "Connections that there may be.", labels=(POOL,))
    pending = GaugeMetricFamily(f"{prefix}_pending_requests", "Checkouts that wait for one.", labels=(POOL,))
    for one in live:
        count.add_metric((one.alias, "idle"), one.gauges.idle)
        count.add_metric((one.alias, "used"), one.gauges.in_use)
        most.add_metric((one.alias,), one.gauges.budget)
        pending.add_metric((one.alias,), one.gauges.waiting)
    yield from (count, most, pending)
    timeouts = CounterMetricFamily(f"{prefix}_timeouts", "Checkouts that got no connection.", labels=(POOL,))
    failures = CounterMetricFamily("fullhouse_connects_failed", "Connects that failed.", labels=(POOL,))
    waits = HistogramMetricFamily(f"{prefix}_wait_time_seconds", "How long checkouts waited.", labels=(POOL,))
    connects = HistogramMetricFamily(f"{prefix}_create_time_seconds", "How long connects took.", labels=(POOL,))
    uses = HistogramMetricFamily(f"{prefix}_use_time_seconds", "How long connections were lent.", labels=(POOL,))
    for one in total.databases:
        timeouts.add_metric((one.alias,), one.totals.refused)
        failures.add_metric((one.alias,), one.totals.connects_failed)
        for family, histogram in ((waits, one.waits), (connects, one.connects), (uses, one.uses)):
            _add(family, (one.alias,), histogram)
    yield from (timeouts, failures, waits, connects, uses)


def _processes(total: Row, look: Look) -> Iterator[Metric]:
    workers = look.workers
    yield _counter("process_cpu_time_seconds", "Computed by the workers.", total.totals.cpu_ms / 1000)
    yield _by_worker(
        "process_memory_usage_bytes", "Physical memory of each worker.", workers, lambda row: row.gauges.memory
    )
    yield _by_worker("fullhouse_threads", "Threads that requests may use.", workers, lambda row: row.gauges.threads)
    ends = CounterMetricFamily("fullhouse_worker_ends", "Workers that have ended.", labels=("reason",))
    for reason, count in zip(END_REASONS, total.totals.ends, strict=True):
        ends.add_metric((reason,), count)
    yield ends
    states = GaugeMetricFamily("fullhouse_generation_workers", "Workers that serve.", labels=("generation", "state"))
    for one in look.status["generations"]:
        states.add_metric((str(one["number"]), str(one["state"])), len(one["workers"]))
    yield states
    yield _gauge("fullhouse_crashes", "Crashes in a row of the whole site.", look.status["crashes"])
    yield _gauge("fullhouse_uptime_seconds", "Since the site's start.", look.status["uptime_s"])
    up = GaugeMetricFamily("fullhouse_companion_up", "Whether a companion process runs.", labels=("name", "number"))
    for one in look.status["processes"]:
        up.add_metric((one["name"], str(one["number"])), one["state"] == "running")
    yield up


def _budgets(look: Look) -> Iterator[Metric]:
    limit = GaugeMetricFamily("fullhouse_budget_slots", "Sessions that this host may have.", labels=("pools",))
    held = GaugeMetricFamily("fullhouse_slots", "Slots that are held.", labels=("pools", "kind", "holder"))
    for budget in look.budgets:
        pools = ",".join(budget.aliases)
        limit.add_metric((pools,), budget.slots)
        slots: dict[tuple[str, str], int] = {}
        for one in budget.holders:
            # A command's words would make a series for each run.
            key = (one.kind, one.title if one.kind != "other" else "")
            slots[key] = slots.get(key, 0) + one.slots
        for (kind, holder), count in slots.items():
            held.add_metric((pools, kind, holder), count)
    yield from (limit, held)


def _add(family: HistogramMetricFamily, labels: Sequence[str], found: Histogram) -> None:
    bounds = [*map(str, found.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(found.counts), strict=True)), found.sum_s)


def _by_worker(name: str, text: str, workers: Sequence[Row], value: Callable[[Row], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("worker",))
    for row in workers:
        family.add_metric((str(row.number),), value(row))
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text)
    family.add_metric((), value)
    return family
