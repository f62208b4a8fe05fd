"""The same requests to gunicorn's gthread and to ours: the same environ, the same bytes back.

The differences that are meant, and described in docs/concepts/worker.md, are named here and nowhere else.
"""

import json
import re
from contextlib import suppress

import pytest
from samples import REFUSED, VALID
from serving import gunicorn

CLOSE = b"Connection: close\r\n"


def request(line: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
    return line + b"\r\nHost: shop.example\r\n" + headers + CLOSE + b"\r\n" + body


RESPONSES = {
    name: request(f"GET /{name} HTTP/1.1".encode())
    for name in (
        *("length", "too-long", "204", "304", "generator", "generator-length", "latin", "file", "large"),
        *("fail-after", "hints", "write", "closing"),
    )
}
RESPONSES |= {
    "generator to HTTP/1.0": b"GET /generator HTTP/1.0\r\n\r\n",
    "hints to HTTP/1.0": b"GET /hints HTTP/1.0\r\n\r\n",
    "HEAD": request(b"HEAD /length HTTP/1.1"),
    "HEAD of a file": request(b"HEAD /file HTTP/1.1"),
    "HEAD of a generator": request(b"HEAD /generator HTTP/1.1"),
}

# name: what ours sends instead
ADDS_LENGTH = ("list", "empty", "hop", "whole", "file-chunked")  # a known length is sent: no chunks
ENVIRONS = {
    "get": request(b"GET /a%20b/%C3%A9?c=%20d HTTP/1.1", b"X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nCookie: a=b\r\n"),
    "post": request(b"POST / HTTP/1.1", b"Content-Type: text/x\r\nContent-Length: 3\r\n", b"abc"),
    "chunked": request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"),
    "two cookies": request(b"GET / HTTP/1.1", b"Cookie: a=b\r\nCookie: c=d\r\n"),
    "absolute": request(b"GET http://other.example:8080/a;b?c#d HTTP/1.1"),
    "fragment": request(b"GET /a?b#c HTTP/1.1"),
    "double slash": request(b"GET //a//b?c HTTP/1.1"),
    "asterisk": request(b"OPTIONS * HTTP/1.1"),
    "HTTP/1.0": b"GET /old HTTP/1.0\r\n\r\n",
    "no host": b"GET / HTTP/1.0\r\n" + CLOSE + b"\r\n",
    "latin": request(b"GET / HTTP/1.1", b"X-A: caf\xe9\r\n"),
    "white space": request(b"GET / HTTP/1.1", b"X-A: \t a b \t\r\nX-Empty:\r\n"),
    "underscore": request(b"GET / HTTP/1.1", b"X_A: dropped\r\n"),
    "https by proxy": request(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https\r\n"),
    "script name": request(b"GET /app/page HTTP/1.1", b"SCRIPT_NAME: /app\r\n"),
    "script name by hyphen": request(b"GET /app/page HTTP/1.1", b"Script-Name: /app\r\n"),
    "plus and percent": request(b"GET /a+b%2Fc%zz?d+e HTTP/1.1"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with (
        gunicorn(tmp_path_factory.mktemp("ours"), "apps:many") as ours,
        gunicorn(tmp_path_factory.mktemp("gthread"), "apps:many", worker_class="gthread") as gthread,
    ):
        yield ours, gthread


def comparable(response: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*\r\n", b"", response)


@pytest.mark.parametrize("name", RESPONSES)
def test_same_response(servers, name):
    ours, gthread = (comparable(server.exchange(RESPONSES[name])) for server in servers)
    if name == "file":  # each server makes a file of its own
        ours, gthread = ours[:-100_000], gthread[:-100_000]
    assert ours[:5000] == gthread[:5000]
    assert ours == gthread


@pytest.mark.parametrize("name", ADDS_LENGTH)
def test_a_complete_body_is_sent_with_its_length(servers, name):
    ours, gthread = (comparable(server.exchange(request(f"GET /{name} HTTP/1.1".encode()))) for server in servers)
    head, _, body = ours.partition(b"\r\n\r\n")
    theirs, _, _ = gthread.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in theirs
    assert set(theirs.split(b"\r\n")) - set(head.split(b"\r\n")) == {b"Transfer-Encoding: chunked"}
    assert set(head.split(b"\r\n")) - set(theirs.split(b"\r\n")) == {b"Content-Length: %d" % len(body)}


@pytest.mark.parametrize("name", ENVIRONS)
def test_same_environ(servers, name):
    environs = []
    for server in servers:
        environ = json.loads(server.exchange(ENVIRONS[name]).partition(b"\r\n\r\n")[2])
        assert environ.pop("SERVER_PORT") == str(server.address[1])
        environ.pop("REMOTE_PORT")
        environs.append(environ)
    if name == "chunked":  # the whole body is there: its length is said, and no coding is left
        for environ in environs:
            assert environ["body"] == "abc"
            for key in ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
                with suppress(ValueError):
                    environ["keys"].remove(key)
        assert (environs[0].pop("CONTENT_LENGTH"), environs[1].pop("HTTP_TRANSFER_ENCODING")) == ("3", "chunked")
    if name == "two cookies":
        assert (environs[0].pop("HTTP_COOKIE"), environs[1].pop("HTTP_COOKIE")) == ("a=b; c=d", "a=b,c=d")
    if name == "absolute":  # the target's host takes the place of the field's (RFC 9112 section 3.2.2)
        assert (environs[0].pop("HTTP_HOST"), environs[1].pop("HTTP_HOST")) == ("other.example:8080", "shop.example")
    if name == "asterisk":  # WSGI wants a path
        assert (environs[0].pop("PATH_INFO"), environs[1].pop("PATH_INFO")) == ("/", "*")
    assert environs[0] == environs[1]


SENT_HALF = ("no-start", "not-bytes", "exit")  # gthread sends a head first, or goes down


@pytest.mark.parametrize("name", ["raise", "exit", "bad-header", "bad-name", "bad-status", "no-start", "not-bytes"])
def test_a_failing_application_is_answered_500(servers, name):
    data = request(f"GET /{name} HTTP/1.1".encode())
    assert servers[0].exchange(data).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    if name not in SENT_HALF:
        assert servers[1].exchange(data).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


HOSTS = [name for name in REFUSED if "host" in name and name not in ("two hosts", "host in the trailers")]
# Samples that gthread serves, or answers otherwise, and that ours refuses as docs/concepts/worker.md says.
STRICTER = ("HTTP/1.2", "unknown method", "unknown coding", "TLS on a plain port", "endless length", *HOSTS)


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_the_same(servers, name):
    data, status = REFUSED[name]
    in_body = b"transfer-encoding: chunked\r\n\r\n" in data.lower()
    ours = servers[0].exchange(data).split(b" ", 2)[1]
    assert ours == str(status.value).encode()
    if name not in STRICTER and not in_body:  # gthread finds a broken body only when the application reads it
        assert servers[1].exchange(data).split(b" ", 2)[1] == ours


@pytest.mark.parametrize("name", [name for name, sample in VALID.items() if sample.closing])
def test_connections_that_end(servers, name):
    ours, gthread = (server.exchange(VALID[name].data).split(b"\r\n")[0] for server in servers)
    assert ours == gthread


def test_the_response_is_closed_whatever_its_kind(servers):
    before = servers[0].exchange(request(b"GET /closed HTTP/1.1"))
    paths = (b"/closing", b"/whole", b"/whole-fails", b"/closed-file")
    for path in paths:
        servers[0].exchange(request(b"GET " + path + b" HTTP/1.1"))
    after = servers[0].exchange(request(b"GET /closed HTTP/1.1"))
    assert int(after.rpartition(b"\r\n")[2]) == int(before.rpartition(b"\r\n")[2]) + len(paths)


def test_headers_are_replaced_by_a_second_start_response(servers):
    """PEP 3333; gthread sends those of both."""
    ours = servers[0].exchange(request(b"GET /late-error HTTP/1.1"))
    assert ours.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert ours.count(b"Content-Type") == 1
    assert ours.endswith(b"\r\n\r\nlate")


def test_wsgiref_validate_finds_nothing(tmp_path):
    with gunicorn(tmp_path, "apps:checked") as server:
        for data in (
            b"GET /a?b HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 0\r\n",
            b"HEAD / HTTP/1.0\r\n",
        ):
            response = server.exchange(data + b"Host: a\r\nContent-Type: text/plain\r\n" + CLOSE + b"\r\n")
            assert b" 200 OK\r\n" in response, server.logged()
