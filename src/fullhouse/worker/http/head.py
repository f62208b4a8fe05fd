"""The head of a request: request line and header fields, and every rule they must keep.

llhttp checks the grammar of the fields. What it leaves open is checked here, with gunicorn's rules: the
request line, limits, repeated fields, names with underscores, framing, and who may say that a request came
by HTTPS.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httptools

from fullhouse.worker.http.refusal import RefusedError, bad_request, fields_too_large
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import HttpRules

Fields = list[tuple[bytes, bytes]]

# RFC 9112 section 3, of HTTP/1.0 and 1.1 only. One empty line before it is allowed (section 2.2).
_REQUEST_LINE = re.compile(rb"(?:\r\n)?([A-Z][A-Z_-]{2,19}) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
# RFC 9110 section 4.2.2 and RFC 3986 section 3.2: a name, an address, or nothing, and a port.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)
# RFC 9110 section 6.5.1: fields that must not come after the body
_FORBIDDEN_TRAILERS = frozenset({"HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING", "TRAILER", "AUTHORIZATION", "TE"})
_BLANKS_AFTER_VALUE = re.compile(rb"(?<=\S)[ \t]+\r\n")  # llhttp takes a tab for a part of `Transfer-Encoding: chunked`
_SINGLE_FIELDS = frozenset({"HOST", "CONTENT-TYPE"})  # RFC 9110 section 5.3, as gunicorn reads it
_LENGTH_DIGITS = 20  # of the longest length that llhttp accepts
_OUTER_CODINGS = frozenset({"compress", "deflate", "gzip", "identity"})


class HeadParser:
    """Splits heads into fields with llhttp. One serves all connections: it is only given whole heads."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._ended = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self._complete = True

    def split(self, head: bytes) -> tuple[Fields, bool]:
        """The fields of a head, and whether its client lets the connection be kept open."""
        self._fields: Fields = []
        self._ended = self._complete = self._keep_alive = False
        if b"\t\r\n" in head:
            head = _BLANKS_AFTER_VALUE.sub(b"\r\n", head)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:  # nobody upgrades here: the request is served as any other
            self._complete = False
        except httptools.HttpParserInvalidMethodError:
            self._renew()
            raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "Unknown method") from None
        except httptools.HttpParserError as error:
            self._renew()
            raise bad_request(f"Invalid request: {error}") from None
        if not self._ended:
            self._renew()
            raise bad_request("Invalid request: the headers do not end")
        if not (self._complete and self._keep_alive):  # it waits for a body, or the end of the connection
            self._renew()
        return self._fields, self._keep_alive


def parse_head(head: bytes, peer: Any, trusted: bool, parser: HeadParser, rules: HttpRules) -> Request:
    """The request that `head`, all bytes up to and with the empty line, begins. Raises RefusedError.

    `trusted`: `peer` is a proxy that may speak for its clients (`rules.forwarded_from`).
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _line_error(head)
    if 0 < rules.limit_request_line < line.end(3) - line.start(1):
        raise line_too_long(rules)
    method, target, minor = line.groups()
    version = (1, 1) if minor == b"1" else (1, 0)
    request = Request(_method(method), str(target, "ascii"), version, rules.scheme, peer)
    _split_target(request)
    fields, keep_alive = parser.split(head)
    if not keep_alive or request.method == "CONNECT":
        request.must_close = True
    _apply_rules(request, _decode(fields, rules), trusted, rules)
    return request


def line_too_long(rules: HttpRules) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is longer than {rules.limit_request_line} bytes"
    )


def head_too_long(rules: HttpRules) -> RefusedError:
    return fields_too_large(f"the request line and the headers are longer than {rules.limit_head} bytes")


def _line_error(head: bytes) -> RefusedError:
    line = head.removeprefix(b"\r\n").partition(b"\r\n")[0][:80]
    return bad_request(f"Invalid request line {line.decode('latin-1')!r}")


def _split_target(request: Request) -> None:
    """Set path, query and fragment; each form of RFC 9112 section 3.2 only with its methods."""
    uri = request.uri
    if uri[0] == "/":
        if "#" in uri:
            uri, _, request.fragment = uri.partition("#")
        request.path, _, request.query = uri.partition("?")
        return
    request.path = "/"  # as WSGI wants it
    if (uri == "*" and request.method == "OPTIONS") or (request.method == "CONNECT" and "://" not in uri):
        return
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise bad_request(f"Invalid request target {uri[:80]!r}") from None
    if not (parts.scheme and parts.netloc):
        raise bad_request(f"Invalid request target {uri[:80]!r} for {request.method}")
    request.authority = parts.netloc.rpartition("@")[2]
    request.path, request.query, request.fragment = parts.path or "/", parts.query, parts.fragment


@lru_cache(maxsize=1024)
def _upper(name: bytes) -> str:
    return name.decode("ascii").upper()


@lru_cache(maxsize=64)
def _method(name: bytes) -> str:
    return name.decode("ascii")


def _decode(fields: Fields, rules: HttpRules) -> list[tuple[str, str]]:
    """Names in upper case and values without the white space around them, within the limits."""
    if len(fields) > rules.limit_request_fields:
        raise fields_too_large(f"more than {rules.limit_request_fields} header fields")
    limit = rules.limit_request_field_size - len(": \r\n")
    decoded = []
    for name, value in fields:
        if len(name) + len(value) > limit:
            raise fields_too_large(f"a header field is longer than {rules.limit_request_field_size} bytes")
        decoded.append((_upper(name), str(value, "latin-1").rstrip(" \t")))
    return decoded


def _apply_rules(request: Request, fields: list[tuple[str, str]], trusted: bool, rules: HttpRules) -> None:
    seen: set[str] = set()
    codings: list[str] = []
    headers = request.headers
    for field in fields:
        name, value = field
        if name in _SINGLE_FIELDS:
            if name in seen:
                raise bad_request(f"Invalid header: {name} is repeated")
            seen.add(name)
        elif name == "CONTENT-LENGTH":
            request.content_length = _length(value)
        elif name == "TRANSFER-ENCODING":
            codings.append(value)
        elif name == "EXPECT":
            _apply_expectation(request, value)
        elif "_" in name and not _underscore_allowed(name, trusted, rules):
            continue
        headers.append(field)
    if codings:
        _apply_codings(request, ",".join(codings))
    _apply_host(request, has_host="HOST" in seen)
    if request.version == (1, 0):
        _apply_close(request)
    if trusted and rules.secure_scheme_headers:
        _apply_scheme(request, fields, rules)


def _apply_host(request: Request, *, has_host: bool) -> None:
    """Refuse an impossible Host, or none; a target in absolute form takes its place (RFC 9112 section 3.2)."""
    if not has_host and request.version == (1, 1):
        raise bad_request("Invalid request: HTTP/1.1 without a Host")
    for index, (name, value) in enumerate(request.headers):
        if name == "HOST":
            request.headers[index] = (name, _host(value if request.authority is None else request.authority))
            return


def _apply_close(request: Request) -> None:
    """In HTTP/1.0 a client may ask for both, and means the end (RFC 9112 section 9.3)."""
    if any(name == "CONNECTION" and "close" in _tokens(value) for name, value in request.headers):
        request.force_close()


@lru_cache(maxsize=1024)
def _host(value: str) -> str:
    """The value of a Host field. Raises RefusedError for what no host and port can be."""
    if not _HOST.fullmatch(value):
        raise bad_request(f"Invalid header: HOST {value[:80]!r}")
    return value


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")]


def _length(value: str) -> int:
    """A length as a number. llhttp has seen to it that it is digits, and comes once; zeros before it may be many."""
    if len(value) > _LENGTH_DIGITS:  # int() refuses what is much longer
        raise bad_request("Invalid header: CONTENT-LENGTH is too long")
    return int(value)


def _apply_scheme(request: Request, fields: list[tuple[str, str]], rules: HttpRules) -> None:
    """Believe a proxy that says whether its client used HTTPS; refuse one that contradicts itself."""
    secure_values = rules.secure_scheme_headers
    schemes = {"https" if value == secure_values[name] else "http" for name, value in fields if name in secure_values}
    if len(schemes) > 1:
        raise bad_request("Contradictory scheme headers")
    if schemes:
        request.scheme = schemes.pop()


def _apply_codings(request: Request, value: str) -> None:
    """value: of all Transfer-Encoding fields, which are one list."""
    codings = _tokens(value)
    unknown = [coding for coding in codings if coding != "chunked" and coding not in _OUTER_CODINGS]
    if unknown:
        raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported transfer coding {value[:80]!r}")
    if codings.count("chunked") != 1 or codings[-1] != "chunked" or request.version < (1, 1):
        raise bad_request(f"Invalid header: Transfer-Encoding {value[:80]!r}")
    request.chunked = True
    if not set(codings) <= {"chunked", "identity"}:
        request.force_close()


def _apply_expectation(request: Request, value: str) -> None:
    if value.lower() != "100-continue":
        raise RefusedError(HTTPStatus.EXPECTATION_FAILED, f"Unable to comply with expectation {value[:80]!r}")
    request.expects_continue = request.version >= (1, 1)


def _underscore_allowed(name: str, trusted: bool, rules: HttpRules) -> bool:
    """Whether a name that becomes the same environ key as another's may pass: gunicorn's header_map."""
    if rules.header_map == "dangerous":
        return True
    if trusted and (name in rules.forwarder_headers or "*" in rules.forwarder_headers):
        return True
    if rules.header_map == "drop":
        return False
    raise bad_request(f"Invalid header name {name[:80]!r}: it has an underscore")


def parse_trailers(fields: Fields, rules: HttpRules) -> list[tuple[str, str]]:
    """The fields after a chunked body, which never become part of the environ. Raises RefusedError."""
    trailers = _decode(fields, rules)
    for name, _ in trailers:
        if name in _FORBIDDEN_TRAILERS:
            raise bad_request(f"Invalid header: {name} after the body")
    return [field for field in trailers if "_" not in field[0] or _underscore_allowed(field[0], False, rules)]
