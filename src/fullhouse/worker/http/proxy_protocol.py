"""The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the first request.

Written from the specification (haproxy.org, proxy-protocol.txt, sections 2.1 and 2.2).
"""

import socket
import struct
from typing import Any

from fullhouse.worker.http.refusal import RefusedError, bad_request

SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_PREFIX_V1 = b"PROXY "
_MAX_LINE_V1 = 107
_HEADER_V2 = struct.Struct("!12sBBH")
_FAMILIES_V2 = {
    1: ("TCP4", socket.AF_INET, struct.Struct("!4s4sHH")),
    2: ("TCP6", socket.AF_INET6, struct.Struct("!16s16sHH")),
}

Parsed = tuple[dict[str, Any] | None, int]


def parse_proxy_header(data: bytes, mode: str) -> Parsed | None:
    """(what it says in gunicorn's words or None, bytes used), or None as long as bytes are missing.

    `mode` is "v1", "v2" or "auto". A connection that begins otherwise is a plain one: (None, 0).
    Raises RefusedError for a header that is broken.
    """
    if mode in ("v2", "auto") and _may_begin(data, SIGNATURE_V2):
        return _parse_v2(data) if len(data) >= _HEADER_V2.size else None
    if mode in ("v1", "auto") and _may_begin(data, _PREFIX_V1):
        return _parse_v1(data)
    return None, 0


def _may_begin(data: bytes, prefix: bytes) -> bool:
    return data.startswith(prefix) or prefix.startswith(data)


def _info(protocol: str, source: tuple[Any, Any], destination: tuple[Any, Any]) -> dict[str, Any]:
    return {
        "proxy_protocol": protocol,
        "client_addr": source[0],
        "client_port": source[1],
        "proxy_addr": destination[0],
        "proxy_port": destination[1],
    }


def _parse_v1(data: bytes) -> Parsed | None:
    end = data.find(b"\r\n", 0, _MAX_LINE_V1)
    if end < 0:
        if len(data) >= _MAX_LINE_V1:
            raise _invalid(f"a line is longer than {_MAX_LINE_V1} bytes")
        return None
    line = data[:end].decode("latin-1")
    words = line.split(" ")
    if words[1:2] == ["UNKNOWN"]:  # whatever follows says nothing of the client
        return _info("UNKNOWN", (None, None), (None, None)), end + 2
    families = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}
    if len(words) != 6 or words[1] not in families:
        raise _invalid(repr(line))
    try:
        for address in words[2:4]:
            socket.inet_pton(families[words[1]], address)
    except (OSError, ValueError):  # ValueError: it has a NUL
        raise _invalid(repr(line)) from None
    if not all(port.isascii() and port.isdigit() and int(port) <= 65535 for port in words[4:]):
        raise _invalid(repr(line))
    return _info(words[1], (words[2], int(words[4])), (words[3], int(words[5]))), end + 2


def _parse_v2(data: bytes) -> Parsed | None:
    _, version_command, family_protocol, length = _HEADER_V2.unpack_from(data)
    version, command = version_command >> 4, version_command & 15
    if version != 2 or command > 1:
        raise _invalid(f"version {version}, command {command}")
    used = _HEADER_V2.size + length
    if len(data) < used:
        return None
    if command == 0:
        return _info("LOCAL", (None, None), (None, None)), used
    family, protocol = family_protocol >> 4, family_protocol & 15
    if family == 0:
        return _info("UNSPEC", (None, None), (None, None)), used
    if family not in _FAMILIES_V2 or protocol != 1:
        raise _invalid(f"address family {family}, protocol {protocol}")
    name, address_family, layout = _FAMILIES_V2[family]
    if length < layout.size:
        raise _invalid(f"{length} bytes of addresses, {layout.size} are needed")
    source, destination, source_port, destination_port = layout.unpack_from(data, _HEADER_V2.size)
    return _info(
        name,
        (socket.inet_ntop(address_family, source), source_port),
        (socket.inet_ntop(address_family, destination), destination_port),
    ), used


def _invalid(detail: str) -> RefusedError:
    return bad_request(f"Invalid PROXY header: {detail}")
