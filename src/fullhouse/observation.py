"""The observer, in a process of its own: `python -m fullhouse.observation ORDER`, run by the supervisor alone.

It only reads. Whatever becomes of it, no request notices: it has the lowest priority, and the supervisor, which answers
it once a second, starts it again when it has ended.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from fullhouse.errors import ConfigurationError
from fullhouse.observer.look import Looker
from fullhouse.observer.server import Server
from fullhouse.observer.watch import Exposition, Watch, site_name
from fullhouse.supervisor.instances import Instance

_NICENESS = 10
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


@dataclass(frozen=True)
class Order:
    """listener: a descriptor. lock_path, facts: of the instance that is looked at."""

    listener: int
    lock_path: str
    facts: Mapping[str, Any]


def main(order: Order) -> None:
    """Serve until this process is ended."""
    os.set_inheritable(order.listener, False)
    os.nice(_NICENESS)
    setproctitle(f"fullhouse: observer [{order.facts['project']}]")
    looker = Looker(Instance(Path(order.lock_path), order.facts))
    watch = Watch(looker, site_name(order.facts), _exposition())
    watch.start()
    _send_metrics(watch)
    with Server(socket.socket(fileno=order.listener), watch) as server:
        server.serve_forever()


def _send_metrics(watch: Watch) -> None:
    """By OTLP, where OpenTelemetry's variables say where to, and the exporter is installed."""
    told = any(os.environ.get(name) for name in _ENDPOINTS)
    if told and os.environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp" and _is_installed(_EXPORTER):
        from fullhouse.observer import otlp

        try:
            otlp.start(watch.latest, watch.name)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")


def _exposition() -> Exposition | None:
    if not _is_installed("prometheus_client"):
        return None
    from fullhouse.observer.prometheus import exposition

    return exposition


def _is_installed(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # a package around it
        return find_spec(module) is not None
    return False


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
