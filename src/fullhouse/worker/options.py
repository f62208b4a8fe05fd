"""The worker's options: gunicorn's settings that it honours, and its own, checked and frozen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.worker.admission.queue import AdmissionRules
from fullhouse.worker.http.refusal import OverloadAnswer
from fullhouse.worker.http.request import Request
from fullhouse.worker.pace import Pace
from fullhouse.worker.time_limits import TimeLimits

Network = IPv4Network | IPv6Network

# Settings of gunicorn that would make the parser lenient, or speak another protocol: what each must be here.
_UNSUPPORTED: dict[str, Any] = {
    "permit_obsolete_folding": False,
    "strip_header_spaces": False,
    "casefold_http_method": False,
    "permit_unconventional_http_method": False,
    "permit_unconventional_http_version": False,
    "protocol": "http",
    "http_protocols": ["h1"],
}


@dataclass(frozen=True, slots=True)
class Options:
    """The worker's own numbers: what gunicorn has no setting for."""

    header_timeout_s: float = 20.0  # from the first byte of a request to the end of its headers
    transfer_grace_s: float = 20.0  # a body, or a response being read, may stand still this long ...
    minimum_rate_bytes_s: int = 500  # ... and must otherwise be at least this fast on average
    linger_s: float = 2.0  # how long a closed connection is drained, so that its last answer is not cut
    stop_linger_s: float = 2.0  # how long a stopping worker answers on connections that it kept open
    body_memory_bytes: int = 1024 * 1024  # a longer request body goes to a temporary file
    max_body_bytes: int | None = 1 << 30  # a longer one is refused, before the client is asked to send it
    unsent_memory_bytes: int = 1024 * 1024  # the unsent rest of a response that is longer goes to one
    transfer_memory_bytes: int = 64 << 20  # for all requests and responses on their way; beyond it, they go to files
    freeze_gc: bool = True  # gc.freeze() and rarer collections once the application is loaded
    gc_threshold: tuple[int, int, int] = (10_000, 20, 20)
    switch_interval_s: float = 0.001  # how long the loop waits for a thread that computes (Python's is 0.005)
    live_path: str | None = "/-/live"  # answered by the loop: it turns
    ready_path: str | None = "/-/ready"  # answered by the loop: send requests, or not
    admission: AdmissionRules = AdmissionRules()  # noqa: RUF009 - frozen
    wait_timeout_s: float = 30.0  # for a thread
    critical_paths: tuple[str, ...] = ()
    sheddable_paths: tuple[str, ...] = ()
    priority_of: Callable[[Request], str | None] | None = None
    overload_answer: OverloadAnswer = OverloadAnswer()  # noqa: RUF009 - frozen
    time_limits: TimeLimits = TimeLimits()  # noqa: RUF009 - frozen
    max_memory_bytes: int | None = None
    server_timing: bool = False  # tell clients where the time of their request went
    slow_request_s: float | None = None  # log it of requests that took longer
    # from gunicorn's settings
    worker_connections: int = 1000
    keepalive_s: float = 2.0
    siblings: int = 0  # how many other workers accept from the same sockets
    sendfile: bool = True

    def pace(self, now: float, moved_bytes: int = 0) -> Pace:
        """The pace of a transfer that begins, or goes on after `moved_bytes`."""
        return Pace(now, self.transfer_grace_s, self.minimum_rate_bytes_s, moved_bytes)


def with_gunicorn_settings(options: Options, cfg: Any) -> Options:
    return replace(
        options,
        worker_connections=cfg.worker_connections,
        keepalive_s=cfg.keepalive,
        siblings=cfg.workers - 1,
        sendfile=cfg.sendfile is not False and not cfg.is_ssl,
    )


def refuse_unsupported(cfg: Any) -> None:
    """Raise ConfigurationError for a setting of gunicorn that this worker does not have."""
    for name, supported in _UNSUPPORTED.items():
        value = getattr(cfg, name)
        if value != supported:
            raise ConfigurationError(
                f"{name} = {value!r} is not supported by fullhouse.worker.Worker (only {supported!r} is): "
                'leave it out, or use worker_class = "gthread".'
            )
    if cfg.threads < 1 or cfg.worker_connections < cfg.threads:
        raise ConfigurationError(
            f"worker_connections = {cfg.worker_connections} is less than threads = {cfg.threads}: "
            "every thread needs a connection to serve; raise worker_connections."
        )
