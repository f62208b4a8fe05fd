"""From two looks to the figures that people want: rates, percentiles, the slowest routes. Pure.

The dict that `figures` returns is what the live page gets, and `fullhouse top --format json` prints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fullhouse.histogram import Histogram
from fullhouse.observer.look import Look
from fullhouse.telemetry.rows import Database, Row
from fullhouse.telemetry.tally import SHED_REASONS, Key, Series, by_route

PERCENTILES = (50, 95, 99)
MOST_ROUTES = 12


def figures(before: Look, now: Look) -> dict[str, Any]:
    """What happened between two looks, and how things are at the later one. Times are in seconds, memory in bytes."""
    span_s = now.clock - before.clock
    earlier, later = before.total, now.total
    status, workers = now.status, now.workers

    def rate(count: int) -> float:
        return round(max(0, count) / span_s, 2) if span_s > 0 else 0.0

    shed = dict(zip(SHED_REASONS, map(int.__sub__, later.totals.shed, earlier.totals.shed), strict=True))
    return {
        "at": round(now.at, 3),
        "span_s": round(span_s, 3),
        "uptime_s": status["uptime_s"],
        "stopping": status["stopping"],
        "last_failure": status["last_failure"],
        "requests_per_s": rate(later.totals.requests - earlier.totals.requests),
        "errors_per_s": rate(later.totals.errors - earlier.totals.errors),
        "shed_per_s": {reason: rate(count) for reason, count in shed.items() if count > 0},
        "requests": later.totals.requests,
        "errors": later.totals.errors,
        "shed": sum(later.totals.shed),
        "durations_s": percentiles(later.durations.since(earlier.durations)),
        "waits_s": percentiles(later.waits.since(earlier.waits)),
        "threads": sum(row.gauges.threads for row in workers),
        "busy": sum(row.gauges.busy for row in workers),
        "queued": sum(row.gauges.queued for row in workers),
        "peak_queued": sum(row.gauges.peak_queued for row in workers),
        "oldest_wait_s": max((row.gauges.oldest_wait_ms for row in workers), default=0) / 1000,
        "generations": [
            {name: one[name] for name in ("number", "state", "since_s", "planned")} | {"ready": len(one["workers"])}
            for one in status["generations"]
        ],
        "workers": [_worker(row, now.at) for row in workers],
        "processes": status["processes"],
        "budgets": [asdict(one) for one in now.budgets],
        "databases": _databases(earlier, later, now.pools),
        "routes": routes(earlier.series, later.series, span_s),
    }


def percentiles(found: Histogram) -> dict[str, float | None]:
    """By name, as p50; None where nothing was counted."""
    quantiles = {f"p{number}": found.quantile_s(number / 100) for number in PERCENTILES}
    return {name: None if value is None else round(value, 4) for name, value in quantiles.items()}


def routes(earlier: Mapping[Key, Series], later: Mapping[Key, Series], span_s: float) -> list[dict[str, Any]]:
    """Those that took the most time, all their methods and status codes together, the most first.

    mean_s and its parts: of a request. share: of the time that all requests took.
    """
    before = by_route(earlier)
    found = {route: series.since(before.get(route, Series())) for route, series in by_route(later).items()}
    asked = {route: series for route, series in found.items() if series.durations.count > 0}
    everything_s = sum(series.durations.sum_s for series in asked.values()) or 1.0
    most = sorted(asked.items(), key=lambda pair: -pair[1].durations.sum_s)[:MOST_ROUTES]
    return [
        {
            "route": route,
            "requests_per_s": round(series.durations.count / span_s, 2) if span_s > 0 else 0.0,
            "mean_s": round(series.durations.sum_s / series.durations.count, 4),
            "p95_s": percentiles(series.durations)["p95"],
            "share": round(series.durations.sum_s / everything_s, 3),
            "queue_s": round(series.waited_s / series.durations.count, 4),
            "connection_s": round(series.connection_s / series.durations.count, 4),
            "statements_s": round(series.statements_s / series.durations.count, 4),
            "statements": round(series.statements / series.durations.count, 1),
        }
        for route, series in most
    ]


def _worker(row: Row, at: float) -> dict[str, Any]:
    gauges = row.gauges
    return {
        "worker": row.number,
        "pid": gauges.pid,
        "generation": gauges.generation,
        "age_s": max(0, round(at) - gauges.began),
        "threads": gauges.threads,
        "busy": gauges.busy,
        "queued": gauges.queued,
        "requests_per_s": round(gauges.requests_per_s, 2),
        "memory": gauges.memory,
    }


def _databases(earlier: Row, later: Row, pools: Sequence[Database]) -> list[dict[str, Any]]:
    """The pools of each alias in all workers together."""
    before = {one.alias: one for one in earlier.databases}
    live = {one.alias: one for one in pools}
    found: list[dict[str, Any]] = []
    for one in later.databases:
        gauges = live[one.alias].gauges if one.alias in live else None
        waits = one.waits if one.alias not in before else one.waits.since(before[one.alias].waits)
        found.append(
            {
                "alias": one.alias,
                **(asdict(gauges) if gauges is not None else {}),
                **asdict(one.totals),
                "waits_s": percentiles(waits),
            }
        )
    return found
