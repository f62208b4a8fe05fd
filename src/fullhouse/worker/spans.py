"""A span of OpenTelemetry for each request, with where its time went. The only module that knows OpenTelemetry.

It begins when the request arrived and is the current one while the application runs: what the application's own
instrumentation begins is its child. Only where the application has set up a tracer provider while it was loaded.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from fullhouse.telemetry.times import Times

NAME = "fullhouse"
# Headers that say which trace a request belongs to, as W3C's and B3's propagators read them.
_CARRIED = ("traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags")


class Spans:
    """Begins and ends them, in the thread that runs the request."""

    def __init__(self, trace: Any) -> None:
        from opentelemetry import context, propagate

        self._trace = trace
        self._context = context
        self._extract: Callable[[dict[str, str]], Any] = propagate.extract
        self._tracer = trace.get_tracer(NAME)

    def begin(self, method: str, headers: list[tuple[str, str]], waited_s: float) -> tuple[Any, Any]:
        """The span, and what `end` needs to leave it. headers: of the request, names in upper case."""
        carrier = {name.lower(): value for name, value in headers if name.lower() in _CARRIED}
        span = self._tracer.start_span(
            method,
            context=self._extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            start_time=time.time_ns() - int(waited_s * 1e9),
        )
        return span, self._context.attach(self._trace.set_span_in_context(span))

    def end(self, begun: tuple[Any, Any], path: str, times: Times) -> None:
        """Leave it, and say what became of the request."""
        span, token = begun
        self._context.detach(token)
        if span.is_recording():
            span.update_name(f"{times.method} {times.route}" if times.route else times.method)
            attributes = {f"fullhouse.{name}.duration": part_s for name, part_s in times.parts.items()}
            span.set_attributes(
                {
                    "http.request.method": times.method,
                    "url.path": path,
                    "http.response.status_code": times.status,
                    "fullhouse.statements.count": times.statements,
                    **({"http.route": times.route} if times.route else {}),
                    **attributes,
                }
            )
            if times.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()


def spans() -> Spans | None:
    """None where the application has not set up OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Spans(trace)
