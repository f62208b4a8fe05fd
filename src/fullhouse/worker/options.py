"""What the worker was told: gunicorn's settings that it honours, and its own numbers, checked and frozen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.worker.admission import AdmissionRules
from fullhouse.worker.pace import Pace
from fullhouse.worker.refusal import OverloadAnswer, RefusedError
from fullhouse.worker.request import Request
from fullhouse.worker.time_limits import TimeLimits

Network = IPv4Network | IPv6Network

# gunicorn's own caps (gunicorn/http/message.py)
MAX_REQUEST_LINE = 8190
MAX_HEADER_FIELDS = 32768
DEFAULT_HEADER_FIELD_SIZE = 8190
# The most bytes that a request line and its fields have together, where each may not have more by itself. gunicorn's
# limits allow 800 KB; nginx passes 32 KB on (large_client_header_buffers).
MAX_HEAD = 64 * 1024

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
class PeerList:
    """The addresses that are trusted with something."""

    everybody: bool = False
    networks: tuple[Network, ...] = ()

    def trusts(self, peer: Any) -> bool:
        """Whether `peer`, a socket address, is in the list. Peers on a Unix socket always are."""
        return not isinstance(peer, tuple) or self.everybody or _is_in(peer[0], self.networks)


@lru_cache(maxsize=4096)
def _is_in(host: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What a request may look like. Sizes in bytes; 0 as `limit_request_line` means no limit."""

    scheme: str = "http"
    limit_request_line: int = 4094
    limit_request_fields: int = 100
    limit_request_field_size: int = DEFAULT_HEADER_FIELD_SIZE
    header_map: str = "drop"
    forwarder_headers: frozenset[str] = frozenset({"SCRIPT_NAME", "PATH_INFO"})
    secure_scheme_headers: Mapping[str, str] = field(default_factory=dict)
    forwarded_from: PeerList = PeerList()
    proxy_protocol: str = "off"
    proxy_from: PeerList = PeerList()
    body_memory_bytes: int = 1024 * 1024
    max_body_bytes: int | None = None

    def check_body(self, size: int) -> None:
        """Raise RefusedError, 413, for a body of so many bytes that is too long."""
        if self.max_body_bytes is not None and size > self.max_body_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {self.max_body_bytes} bytes"
            )

    @property
    def limit_head(self) -> int:
        """The most bytes that a request line and its fields may have together."""
        line, field = self.limit_request_line, self.limit_request_field_size + len("\r\n")
        whole = max(MAX_HEAD, line + len("\r\n") + field)
        return min(whole, line + 2 * len("\r\n") + self.limit_request_fields * field) if line else whole


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


def http_rules(cfg: Any, options: Options) -> HttpRules:
    """The rules that gunicorn's configuration asks for."""
    fields, field_size = cfg.limit_request_fields, cfg.limit_request_field_size
    return HttpRules(
        scheme="https" if cfg.is_ssl else "http",
        limit_request_line=_limit_request_line(cfg.limit_request_line),
        limit_request_fields=fields if 0 < fields <= MAX_HEADER_FIELDS else MAX_HEADER_FIELDS,
        limit_request_field_size=field_size if field_size > 0 else DEFAULT_HEADER_FIELD_SIZE,
        header_map=cfg.header_map,
        forwarder_headers=frozenset(cfg.forwarder_headers),
        secure_scheme_headers=dict(cfg.secure_scheme_headers),
        forwarded_from=PeerList("*" in cfg.forwarded_allow_ips, tuple(cfg.forwarded_allow_networks())),
        proxy_protocol=cfg.proxy_protocol,
        proxy_from=PeerList("*" in cfg.proxy_allow_ips, tuple(cfg.proxy_allow_networks())),
        body_memory_bytes=options.body_memory_bytes,
        max_body_bytes=options.max_body_bytes,
    )


def _limit_request_line(limit: int) -> int:
    return MAX_REQUEST_LINE if limit < 0 else min(limit, MAX_REQUEST_LINE)


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
