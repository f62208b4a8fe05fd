"""An application that has set up OpenTelemetry, as a site does: its spans are lines of JSON in the file `spans`."""

import time

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from fullhouse.telemetry.times import own

provider = TracerProvider()
exporter = ConsoleSpanExporter(
    out=open("spans", "a", buffering=1),  # noqa: SIM115 - for the process's life
    formatter=lambda span: span.to_json(indent=None) + "\n",
)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)


def application(environ, start_response):
    environ["fullhouse.route"] = "/seats/<int:seat>/"
    with trace.get_tracer("site").start_as_current_span("view"):
        own.times.statements += 2
        own.times.statements_s += 0.25
        time.sleep(0.3)
    if environ["PATH_INFO"] == "/fails":
        raise RuntimeError("on purpose")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
