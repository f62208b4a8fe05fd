"""What a request may look like: gunicorn's limits and its rules about proxies, checked and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from fullhouse.worker.http.refusal import RefusedError

Network = IPv4Network | IPv6Network

# gunicorn's own caps (gunicorn/http/message.py)
MAX_REQUEST_LINE = 8190
MAX_HEADER_FIELDS = 32768
DEFAULT_HEADER_FIELD_SIZE = 8190
# The most bytes that a request line and its fields have together, where each may not have more by itself. gunicorn's
# limits allow 800 KB; nginx passes 32 KB on (large_client_header_buffers).
MAX_HEAD = 64 * 1024


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
    limit_head: int = field(init=False)  # of a request line and its fields together

    def __post_init__(self) -> None:
        line, one_field = self.limit_request_line, self.limit_request_field_size + len("\r\n")
        whole = max(MAX_HEAD, line + len("\r\n") + one_field)
        if line:
            whole = min(whole, line + 2 * len("\r\n") + self.limit_request_fields * one_field)
        object.__setattr__(self, "limit_head", whole)

    def check_body(self, size: int) -> None:
        """Raise RefusedError, 413, for a body of so many bytes that is too long."""
        if self.max_body_bytes is not None and size > self.max_body_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {self.max_body_bytes} bytes"
            )


def http_rules(cfg: Any, body_memory_bytes: int, max_body_bytes: int | None) -> HttpRules:
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
        body_memory_bytes=body_memory_bytes,
        max_body_bytes=max_body_bytes,
    )


def _limit_request_line(limit: int) -> int:
    return MAX_REQUEST_LINE if limit < 0 else min(limit, MAX_REQUEST_LINE)
