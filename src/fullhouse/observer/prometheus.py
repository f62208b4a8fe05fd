"""`/metrics`: the metrics in Prometheus's formats. The only module that knows prometheus-client.

Names are spelled as Prometheus does: dots become underscores, and the unit stands at the end.
"""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client import core as families
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fullhouse.observer.look import Look
from fullhouse.observer.metrics import Metric, metrics

_ENDINGS = {"s": "_seconds", "By": "_bytes"}


def exposition(look: Look, accept: str) -> tuple[bytes, str]:
    """The body and its content type, in the format that the Accept header asks for."""
    registry = CollectorRegistry()
    registry.register(_Site(look))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Site(Collector):
    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[families.Metric]:
        return map(_family, metrics(self._look))


def _family(metric: Metric) -> families.Metric:
    name = _spelled(metric.name) + _ENDINGS.get(metric.unit, "")
    labels = [_spelled(label) for label in metric.labels]
    if metric.kind == "histogram":
        histogram = families.HistogramMetricFamily(name, metric.text, labels=labels)
        for values, found in metric.histograms:
            bounds = [*map(str, found.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(found.counts), strict=True))
            histogram.add_metric([*map(str, values)], buckets, found.sum_s)
        return histogram
    make = families.CounterMetricFamily if metric.kind == "counter" else families.GaugeMetricFamily
    family = make(name, metric.text, labels=labels)
    for values, value in metric.values:
        family.add_metric([*map(str, values)], value)
    return family


def _spelled(name: str) -> str:
    return name.replace(".", "_")
