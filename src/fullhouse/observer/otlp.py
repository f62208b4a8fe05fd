"""Sends the metrics to a collector by OTLP, for as long as the observer lives. The only module that knows the exporter.

Where to, how often and with which headers is told by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT (or
…_METRICS_ENDPOINT), …_HEADERS, …_TIMEOUT, OTEL_METRIC_EXPORT_INTERVAL, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import fullhouse
from fullhouse.errors import ConfigurationError
from fullhouse.observer.look import Look
from fullhouse.observer.metrics import Metric, metrics

_EVERY_MS = "60000"  # OpenTelemetry's default
_SCHEMA = ""
_CUMULATIVE = export.AggregationTemporality.CUMULATIVE


def start(latest: Callable[[], Look | None], name: str) -> None:
    """Send what `latest` returns, again and again, in a thread of its own. name: of the site, where none is told.

    Raises ConfigurationError for a protocol or an interval that cannot be had.
    """
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", ""))
    if protocol not in ("", "http/protobuf"):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and fullhouse sends its metrics as http/protobuf: they stay "
            "here. Set OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf and the endpoint for it, often port 4318."
        )
    every_ms = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", _EVERY_MS)
    if not every_ms.isdecimal() or int(every_ms) == 0:
        raise ConfigurationError(f"OTEL_METRIC_EXPORT_INTERVAL is {every_ms!r}: give milliseconds, such as 60000.")
    exporter, resource = OTLPMetricExporter(), _resource(name)
    run = partial(_run, latest, exporter, resource, int(every_ms) / 1000)
    threading.Thread(target=run, name="otlp", daemon=True).start()


def _run(latest: Callable[[], Look | None], exporter: OTLPMetricExporter, resource: Resource, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        look = latest()
        if look is not None:
            exporter.export(_data(look, resource), timeout_millis=1000 * every_s)


def _resource(name: str) -> Resource:
    told = Resource.create({SERVICE_INSTANCE_ID: socket.gethostname()})
    if str(told.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return told.merge(Resource({SERVICE_NAME: name}))
    return told


def _data(look: Look, resource: Resource) -> export.MetricsData:
    end = int(look.at * 1e9)
    start = end - int(look.status["uptime_s"] * 1e9)
    found = [_metric(metric, start, end) for metric in metrics(look) if metric.values or metric.histograms]
    scope = export.ScopeMetrics(InstrumentationScope("fullhouse", fullhouse.__version__), found, _SCHEMA)
    return export.MetricsData([export.ResourceMetrics(resource, [scope], _SCHEMA)])


def _metric(metric: Metric, start: int, end: int) -> export.Metric:
    """start, end: nanoseconds since 1970, of the site's start and of the look."""
    unknown: Any = None  # least and most: the encoder leaves them out
    data: export.DataT
    if metric.kind == "histogram":
        durations = [
            export.HistogramDataPoint(
                dict(zip(metric.labels, labels, strict=True)),
                start,
                end,
                found.count,
                found.sum_s,
                found.counts,
                found.bounds,
                unknown,
                unknown,
            )
            for labels, found in metric.histograms
        ]
        data = export.Histogram(durations, _CUMULATIVE)
    else:
        numbers = [
            export.NumberDataPoint(dict(zip(metric.labels, labels, strict=True)), start, end, value)
            for labels, value in metric.values
        ]
        data = export.Sum(numbers, _CUMULATIVE, is_monotonic=metric.kind == "counter")
    return export.Metric(metric.name, metric.text, metric.unit, data)
