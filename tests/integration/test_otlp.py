"""The metrics of a served site, as a collector of OpenTelemetry reads them by its own protocol."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from private_servers import PrivateServer
from supervised import DEADLINE_S, Site, wait_until


class Collector(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def resource(self) -> dict[str, str]:
        _, request = self.received[-1]
        return {one.key: one.value.string_value for one in request.resource_metrics[0].resource.attributes}

    def metrics(self) -> dict[str, Any]:
        """The last ones, by name."""
        if not self.received:
            return {}
        _, request = self.received[-1]
        return {one.name: one for one in request.resource_metrics[0].scope_metrics[0].metrics}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, ExportMetricsServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join(DEADLINE_S)


@pytest.fixture
def site(tmp_path: Path, postgresql_server: PrivateServer) -> Site:
    site = Site(tmp_path / "site")
    site.use_database(postgresql_server)
    site.make_pages_ask_the_database()
    return site


def variables(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_METRIC_EXPORT_INTERVAL": "200", **more}


def test_a_collector_reads_the_metrics(site: Site) -> None:
    with (
        collecting() as collector,
        site.served("--observe=127.0.0.1:0", "--budget=8", **variables(collector)) as running,
    ):
        for _ in range(20):
            running.get()

        def counted() -> int:
            found = collector.metrics().get("http.server.request.duration")
            return sum(point.count for point in found.histogram.data_points) if found else 0

        wait_until(lambda: counted() >= 20, "the collector had all requests")
        wait_until(lambda: "fullhouse.budget.slots" in collector.metrics(), "the plan was in force")
        metrics = collector.metrics()
        assert collector.received[-1][0] == "/v1/metrics"
        assert collector.resource()["service.name"].startswith("mysite on ")
        durations = metrics["http.server.request.duration"]
        assert durations.unit == "s"
        (point,) = durations.histogram.data_points
        labels = {one.key: one.value for one in point.attributes}
        assert labels["http.request.method"].string_value == "GET"
        assert labels["http.response.status_code"].int_value == 200
        assert sum(point.bucket_counts) == point.count
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert not point.HasField("min")
        assert not point.HasField("max")
        assert 0 < point.start_time_unix_nano < point.time_unix_nano
        assert metrics["fullhouse.budget.slots"].sum.data_points[0].as_int == 8
        assert not metrics["fullhouse.budget.slots"].sum.is_monotonic
        assert metrics["fullhouse.request.statements"].sum.is_monotonic


def test_opentelemetrys_variables_are_heard(site: Site) -> None:
    with collecting() as collector:
        told = variables(collector, OTEL_SERVICE_NAME="tickets", OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test")
        with site.served("--observe=127.0.0.1:0", **told):
            wait_until(lambda: collector.received, "the collector had something")
            assert collector.resource().items() >= {"service.name": "tickets", "deployment.environment": "test"}.items()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "give milliseconds"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_page_served(site: Site, name: str, value: str, said: str) -> None:
    with collecting() as collector:
        told = variables(collector) | {name: value}
        with site.served("--observe=127.0.0.1:0", **told) as running:
            wait_until(lambda: said in running.output, "the observer told it")
            assert "live page" in running.output
        assert collector.received == []
