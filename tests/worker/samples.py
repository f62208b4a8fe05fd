"""Byte sequences that a connection may receive, and what becomes of each."""

from dataclasses import dataclass, field
from http import HTTPStatus

HEAD = b"Host: shop.example\r\n"
BAD = HTTPStatus.BAD_REQUEST


@dataclass(frozen=True)
class Valid:
    """Bytes that are `requests`: (method, target, body) each. `closing`: no more are taken after the last."""

    data: bytes
    requests: list[tuple[str, str, bytes]]
    closing: bool = False
    trailers: list[tuple[str, str]] = field(default_factory=list)


def _get(target: bytes = b"/", extra: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + HEAD + extra + b"\r\n"


def _post(extra: bytes, body: bytes) -> bytes:
    return b"POST /buy HTTP/1.1\r\n" + HEAD + extra + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"

VALID = {
    "plain": Valid(_get(), [("GET", "/", b"")]),
    "one empty line before": Valid(b"\r\n" + _get(), [("GET", "/", b"")]),
    "query": Valid(_get(b"/a%20b?c=d&e"), [("GET", "/a%20b?c=d&e", b"")]),
    "absolute form": Valid(_get(b"http://shop.example/a?b"), [("GET", "http://shop.example/a?b", b"")]),
    "two slashes": Valid(_get(b"//a//b"), [("GET", "//a//b", b"")]),
    "asterisk": Valid(b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", [("OPTIONS", "*", b"")]),
    "connect": Valid(b"CONNECT a:1 HTTP/1.1\r\n" + HEAD + b"\r\ntunnel", [("CONNECT", "a:1", b"")], closing=True),
    "no headers": Valid(b"GET / HTTP/1.0\r\n\r\n", [("GET", "/", b"")], closing=True),
    "HTTP/1.0 kept and closed": Valid(
        _get(extra=b"Connection: keep-alive, close\r\n", version=b"1.0"), [("GET", "/", b"")], closing=True
    ),
    "chunked and a tab": Valid(
        _post(b"Transfer-Encoding: chunked\t\r\n", b"1\r\na\r\n0\r\n\r\n") + _get(b"/2"),
        [("POST", "/buy", b"a"), ("GET", "/2", b"")],
    ),
    "codings in two fields": Valid(
        _post(b"Transfer-Encoding: gzip\r\n" + CHUNKED, b"1\r\na\r\n0\r\n\r\n"), [("POST", "/buy", b"a")], closing=True
    ),
    "HTTP/1.0": Valid(_get(version=b"1.0"), [("GET", "/", b"")], closing=True),
    "HTTP/1.0 kept": Valid(_get(extra=b"Connection: keep-alive\r\n", version=b"1.0"), [("GET", "/", b"")]),
    "close": Valid(_get(extra=b"Connection: close\r\n") + _get(b"/never"), [("GET", "/", b"")], closing=True),
    "pipelined": Valid(
        _get(b"/1") + _post(b"Content-Length: 3\r\n", b"abc") + _get(b"/3"),
        [("GET", "/1", b""), ("POST", "/buy", b"abc"), ("GET", "/3", b"")],
    ),
    "length": Valid(_post(b"Content-Length: 5\r\n", b"a\r\n\r\n"), [("POST", "/buy", b"a\r\n\r\n")]),
    "length 0": Valid(_post(b"Content-Length: 0\r\n", b""), [("POST", "/buy", b"")]),
    "expect": Valid(_post(b"Content-Length: 3\r\nExpect: 100-continue\r\n", b"abc"), [("POST", "/buy", b"abc")]),
    "chunked": Valid(
        _post(CHUNKED, b"3\r\na\r\n\r\n5;x=y\r\n\r\n\r\nb\r\n0\r\n\r\n") + _get(b"/2"),
        [("POST", "/buy", b"a\r\n\r\n\r\nb"), ("GET", "/2", b"")],
    ),
    "blanks around an extension": Valid(
        _post(CHUNKED, b'3 ;\t a = "b;\\"c" ;d\r\nabc\r\n0;e\r\n\r\n') + _get(b"/2"),
        [("POST", "/buy", b"abc"), ("GET", "/2", b"")],
    ),
    "trailers": Valid(
        _post(CHUNKED, b"1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n") + _get(b"/2"),
        [("POST", "/buy", b"a"), ("GET", "/2", b"")],
        trailers=[("X-SUM", "9")],
    ),
    "gzip, chunked": Valid(
        _post(b"Transfer-Encoding: gzip, chunked\r\n", b"1\r\na\r\n0\r\n\r\n"),
        [("POST", "/buy", b"a")],
        closing=True,
    ),
    "upgrade is ignored": Valid(
        _get(b"/1", b"Connection: upgrade\r\nUpgrade: websocket\r\n") + _get(b"/2"),
        [("GET", "/1", b""), ("GET", "/2", b"")],
    ),
    "upgrade with a body": Valid(
        _post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", b"ab") + _get(b"/2"),
        [("POST", "/buy", b"ab"), ("GET", "/2", b"")],
    ),
    "upgrade with chunks": Valid(
        _post(b"Connection: upgrade\r\nUpgrade: h2c\r\n" + CHUNKED, b"1\r\na\r\n0\r\n\r\n") + _get(b"/2"),
        [("POST", "/buy", b"a"), ("GET", "/2", b"")],
    ),
}

# Every one of these has let a request be smuggled past some server, or could.
REFUSED = {
    "length and chunked": (_post(b"Content-Length: 3\r\n" + CHUNKED, b"0\r\n\r\n"), BAD),
    "chunked and length": (_post(CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n"), BAD),
    "two lengths": (_post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), BAD),
    "the same length twice": (_post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), BAD),
    "list of lengths": (_post(b"Content-Length: 3, 3\r\n", b"abc"), BAD),
    "length with a sign": (_post(b"Content-Length: +3\r\n", b"abc"), BAD),
    "negative length": (_post(b"Content-Length: -3\r\n", b"abc"), BAD),
    "hexadecimal length": (_post(b"Content-Length: 0x3\r\n", b"abc"), BAD),
    "length with an underscore": (_post(b"Content-Length: 1_0\r\n", b"abc"), BAD),
    "empty length": (_post(b"Content-Length:\r\n", b""), BAD),
    "endless length": (_post(b"Content-Length: 99999999999999999999\r\n", b""), BAD),
    "length after zeros without end": (_post(b"Content-Length: %b3\r\n" % (b"0" * 4300), b"abc"), BAD),
    "length in other digits": (_post(b"Content-Length: \xc2\xb2\r\n", b"abc"), BAD),
    "unknown coding": (_post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), BAD),
    "unknown outer coding": (
        _post(b"Transfer-Encoding: br, chunked\r\n", b"0\r\n\r\n"),
        HTTPStatus.NOT_IMPLEMENTED,
    ),
    "chunked twice": (_post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), BAD),
    "chunked in two fields": (_post(CHUNKED + CHUNKED, b"0\r\n\r\n"), BAD),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", BAD),
    "host with a blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD),
    "host with a comma and a blank": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD),
    "host with a port that is none": (b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", BAD),
    "host in other characters": (b"GET / HTTP/1.0\r\nHost: \xe4\r\n\r\n", BAD),
    "absolute form without a host": (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "relative target": (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "chunked is not last": (_post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), BAD),
    "chunked then identity": (_post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), BAD),
    "identity": (_post(b"Transfer-Encoding: identity\r\n", b"abc"), BAD),
    "coding after a vertical tab": (_post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), BAD),
    "chunked with HTTP/1.0": (_get(extra=CHUNKED, version=b"1.0") + b"0\r\n\r\n", BAD),
    "space before the colon": (_post(b"Content-Length : 3\r\n", b"abc"), BAD),
    "folded header": (_get(extra=b"X: a\r\n b\r\n"), BAD),
    "folded first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
    "header without a name": (_get(extra=b": a\r\n"), BAD),
    "header without a colon": (_get(extra=b"abc\r\n"), BAD),
    "header name that is no token": (_get(extra=b"X(: a\r\n"), BAD),
    "bare LF after the request line": (b"GET / HTTP/1.1\n" + HEAD + b"\r\n", BAD),
    "bare LF in a header": (_get(extra=b"X: a\nContent-Length: 3\r\n"), BAD),
    "bare LF ends the headers": (b"GET / HTTP/1.1\r\n" + HEAD + b"\n", BAD),
    "bare CR in a header": (_get(extra=b"X: a\rContent-Length: 3\r\n"), BAD),
    "bare CR in the request line": (b"GET /\r HTTP/1.1\r\n" + HEAD + b"\r\n", BAD),
    "NUL in a header": (_get(extra=b"X: a\0b\r\n"), BAD),
    "two hosts": (_get(extra=b"Host: other.example\r\n"), BAD),
    "two content types": (_get(extra=b"Content-Type: a/b\r\nContent-Type: c/d\r\n"), BAD),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HEAD + b"\r\n", BAD),
    "tab": (b"GET\t/ HTTP/1.1\r\n" + HEAD + b"\r\n", BAD),
    "space in the target": (_get(b"/a b"), BAD),
    "not ASCII in the target": (_get(b"/\xc3\xa9"), BAD),
    "HTTP/0.9": (b"GET /\r\n\r\n", BAD),
    "HTTP/2.0": (_get(version=b"2.0"), BAD),
    "HTTP/1.2": (_get(version=b"1.2"), BAD),
    "HTTP/1.10": (_get(version=b"1.10"), BAD),
    "RTSP": (b"GET / RTSP/1.0\r\n" + HEAD + b"\r\n", BAD),
    "unknown method": (b"BREW / HTTP/1.1\r\n" + HEAD + b"\r\n", HTTPStatus.NOT_IMPLEMENTED),
    "lower case method": (b"get / HTTP/1.1\r\n" + HEAD + b"\r\n", BAD),
    "authority form": (_get(b"shop.example:80"), BAD),
    "asterisk with GET": (_get(b"*"), BAD),
    "two empty lines before": (b"\r\n\r\n" + _get(), BAD),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", BAD),
    "other expectation": (_get(extra=b"Expect: bread\r\n"), HTTPStatus.EXPECTATION_FAILED),
    "chunk size with a prefix": (_post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk size with a sign": (_post(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk size with a space": (_post(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk extension without its value": (_post(CHUNKED, b"3;a=\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk extension without a name": (_post(CHUNKED, b"3;\r\nabc\r\n0\r\n\r\n"), BAD),
    "endless chunk size": (_post(CHUNKED, b"fffffffffffffffff\r\nabc"), BAD),
    "chunk longer than its size": (_post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"), BAD),
    "bare LF after the chunk size": (_post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"), BAD),
    "bare LF after the chunk": (_post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"), BAD),
    "bare LF in a chunk extension": (_post(CHUNKED, b"3;a\nb\r\nabc\r\n0\r\n\r\n"), BAD),
    "bare LF ends the trailers": (_post(CHUNKED, b"0\r\n\n" + _get(b"/smuggled")), BAD),
    "host in the trailers": (_post(CHUNKED, b"0\r\nHost: other.example\r\n\r\n"), BAD),
    "length in the trailers": (_post(CHUNKED, b"0\r\nContent-Length: 5\r\n\r\n"), BAD),
}
