"""The HTTP state of a connection: bytes in, requests or a refusal out, however the bytes are cut."""

import random
from collections.abc import Iterator
from http import HTTPStatus
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CHUNKED, HEAD, REFUSED, VALID

from fullhouse.worker.http.body import BUFFER_BYTES, BUFFERED_FROM_BYTES
from fullhouse.worker.http.connection import CONTINUE, HttpConnection
from fullhouse.worker.http.head import HeadParser
from fullhouse.worker.http.refusal import RefusedError, refusal_bytes
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import MAX_HEAD, HttpRules, PeerList

PARSER = HeadParser()  # shared, as by all connections of a worker
PROXY = ("127.0.0.1", 40000)
CLIENT = ("192.0.2.7", 40000)
FROM_PROXY = PeerList(networks=(ip_network("127.0.0.1/32"),))
EVERYBODY = PeerList(everybody=True)


def connection(rules=None, peer=CLIENT) -> HttpConnection:
    return HttpConnection(rules or HttpRules(), PARSER, peer)


def take_all(http: HttpConnection, piece: bytes) -> Iterator[Request]:
    """Feed a piece, and take every request that is then complete, as the loop does."""
    request = http.feed(piece)
    while request is not None:
        yield request
        request = http.feed(b"")


def read_all(http: HttpConnection, *pieces: bytes) -> list[Request]:
    return [request for piece in pieces for request in take_all(http, piece)]


def outcome(data: bytes, *cuts: int):
    """What becomes of `data` when it is cut at `cuts`."""
    edges = [0, *sorted(cuts), len(data)]
    http = connection()
    seen = []
    try:
        for start, end in pairwise(edges):
            for request in take_all(http, data[start:end]):
                seen.append((request.method, request.uri, request.body.read(), request.trailers))
    except RefusedError as error:
        return seen, error.status
    return seen, http.closing


@pytest.mark.parametrize("name", VALID)
def test_valid_bytes_become_requests_at_every_split(name):
    sample = VALID[name]
    whole, closing = outcome(sample.data)
    assert [(method, uri, body) for method, uri, body, _ in whole] == sample.requests
    assert whole[0][3] == sample.trailers
    assert closing is sample.closing
    for cut in range(1, len(sample.data)):
        assert outcome(sample.data, cut) == (whole, closing)
    assert outcome(sample.data, *range(1, len(sample.data))) == (whole, closing)


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_smuggle_a_request_is_refused_at_every_split(name):
    data, status = REFUSED[name]
    for cut in range(1, len(data)):
        assert outcome(data, cut) == ([], status)
    assert outcome(data, *range(1, len(data))) == ([], status)


def test_nothing_is_taken_after_a_refusal():
    http = connection()
    with pytest.raises(RefusedError):
        http.feed(b"GET / HTTP/9.9\r\n\r\n")
    assert http.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None
    assert not http.in_request


def test_requests_are_taken_one_at_a_time():
    http = connection()
    first = http.feed(VALID["pipelined"].data)
    assert first is not None
    assert (first.uri, http.requests, http.has_unparsed) == ("/1", 1, True)


def test_an_interim_response_is_due_once_and_only_while_the_body_is_missing():
    http = connection()
    assert http.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n") is None
    assert http.take_continue() == CONTINUE
    assert http.take_continue() == b""
    assert http.feed(b"ab") is not None
    assert http.take_continue() == b""


def test_http_1_0_is_never_asked_to_continue():
    http = connection()
    assert http.feed(b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") is None
    assert http.take_continue() == b""


def test_a_long_body_goes_to_a_file():
    http = connection(HttpRules(body_memory_bytes=1000))
    body = bytes(range(256)) * 40
    (request,) = read_all(http, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    assert request.body.fileno() >= 0
    assert request.body.read() == body
    request.body.close()


def receive(http: HttpConnection, data: bytes, most: int) -> Request | None:
    """Feed `data` as the loop does: received where the connection has room for it, at most so many bytes at once."""
    request = None
    while data:
        room = http.room
        count = min(most, len(data), len(data) if room is None else len(room))
        piece, data = data[:count], data[count:]
        if room is None:
            request = http.feed(piece)
        else:
            room[:count] = piece
            request = http.feed(room[:count])
    return request


@pytest.mark.parametrize("length", [BUFFERED_FROM_BYTES - 1, BUFFERED_FROM_BYTES, BUFFER_BYTES, BUFFER_BYTES + 1])
@pytest.mark.parametrize("most", [5000, 300_000])
def test_a_body_is_received_where_it_stays(length, most):
    http = connection(HttpRules(body_memory_bytes=BUFFER_BYTES))
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length
    for turn in range(2):  # the second one gets the memory of the first
        body = (bytes(range(turn, 256)) * (length // 255 + 1))[:length]
        assert http.feed(head + body[:10]) is None
        request = receive(http, body[10:], most)
        assert (request.body.read(7), request.body.readline(), request.body.read()) == _in_pieces(body)
        request.body.close()


def _in_pieces(body: bytes) -> tuple[bytes, bytes, bytes]:
    line_end = body.index(b"\n", 7) + 1
    return body[:7], body[7:line_end], body[line_end:]


def test_two_bodies_at_once_do_not_share_memory():
    first, second = connection(), connection()
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BUFFERED_FROM_BYTES
    for http in (first, second):
        http.feed(head)
    requests = [receive(http, byte * BUFFERED_FROM_BYTES, 9000) for http, byte in ((first, b"1"), (second, b"2"))]
    assert [set(request.body.read()) for request in requests] == [{ord("1")}, {ord("2")}]


def test_memory_of_a_forgotten_body_is_lent_once():
    http = connection()
    http.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx" % BUFFERED_FROM_BYTES)
    http.discard()
    http.discard()
    test_two_bodies_at_once_do_not_share_memory()


@pytest.mark.parametrize("length", [1000, BUFFERED_FROM_BYTES, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_goes_on_in_a_file_from_anywhere(length, chunked):
    body = bytes(range(250)) * (length // 250)
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    field = CHUNKED if chunked else b"Content-Length: %d\r\n" % len(body)
    for cut in (0, 1, 7, 500, len(data) - 1):
        http = connection()
        assert http.feed(b"PUT / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n") is None
        assert receive(http, data[:cut], 1 << 16) is None
        assert http.kept_bytes >= (http.body_bytes or 0)
        http.spool()
        http.spool()
        assert http.kept_bytes <= len(b"ffffff")  # of a size that is not complete
        request = receive(http, data[cut:], 1 << 16)
        assert request is not None
        assert request.body.fileno() >= 0
        with request.body as file:
            assert file.read() == body


def test_what_is_kept_is_known():
    http = connection()
    http.feed(b"PUT / HT")
    assert http.kept_bytes == http.unparsed_bytes == 8
    http.feed(b"TP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX: y\r\nZ:")
    assert http.kept_bytes == len(b"abc" + b"X: y\r\n" + b"Z:")
    request = http.feed(b"\r\n\r\nGET")
    assert request is not None
    assert http.kept_bytes + request.kept_bytes == len(b"abc" + b"GET")
    assert http.kept_bytes == len(b"GET")


def test_forgetting_a_request_closes_its_file():
    http = connection(HttpRules(body_memory_bytes=10))
    http.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n" + b"x" * 50)
    assert http.body_bytes == 50
    http.discard()
    assert http.body_bytes is None


LIMITS = HttpRules(limit_request_line=40, limit_request_fields=3, limit_request_field_size=50)
TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 26), None),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 27), HTTPStatus.REQUEST_URI_TOO_LONG),
        (b"GET /%b" % (b"a" * 60), HTTPStatus.REQUEST_URI_TOO_LONG),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 2 + b"\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 3 + b"\r\n", TOO_LARGE),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * 45), None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * 46), TOO_LARGE),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b" % (b"y" * 300), TOO_LARGE),
        (b"PUT / HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n1;%b" % (b"x" * 60), HTTPStatus.BAD_REQUEST),
        (b"PUT / HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * 4 + b"\r\n", TOO_LARGE),
        (b"PUT / HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * 5, TOO_LARGE),
    ],
)
def test_limits(data, status):
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        http = connection(LIMITS)
        if status is None:
            assert len(read_all(http, *pieces)) == 1
        else:
            with pytest.raises(RefusedError) as refused:
                read_all(http, *pieces)
            assert refused.value.status == status


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("most", [1 << 20, 16_000])
def test_a_head_has_a_limit_of_its_own(over, most):
    """However TCP cuts it: of a hundred fields each may be as long as gunicorn allows, and not all of them."""
    begin = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: %b\r\n" % (n, b"y" * 8000) for n in range(8))
    rest = MAX_HEAD + over - len(begin) - len(b"Z: \r\n\r\n")
    data = begin + b"Z: %b\r\n\r\n" % (b"z" * rest)
    pieces = [data[at : at + most] for at in range(0, len(data), most)]
    if over:
        with pytest.raises(RefusedError) as refused:
            read_all(connection(), *pieces)
        assert refused.value.status == TOO_LARGE
    else:
        assert len(read_all(connection(), *pieces)) == 1


def test_a_field_that_the_settings_allow_fits_the_head():
    rules = HttpRules(limit_request_field_size=200_000)
    (request,) = read_all(connection(rules), b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * 199_000))
    assert len(request.headers[1][1]) == 199_000


def test_fields_after_a_body_may_be_no_longer_than_a_head():
    http = connection(LIMITS)
    http.feed(b"PUT / HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\nA: b\r\n")
    with pytest.raises(RefusedError) as refused:
        http.feed(b"X: %b\r\nY: " % (b"y" * LIMITS.limit_head))
    assert refused.value.status == TOO_LARGE


def headers_of(rules: HttpRules, peer, *lines: bytes) -> Request:
    (request,) = read_all(connection(rules, peer), b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(lines) + b"\r\n")
    return request


@pytest.mark.parametrize(
    ("header_map", "peer", "kept"),
    [("drop", CLIENT, []), ("drop", PROXY, ["SCRIPT_NAME"]), ("dangerous", CLIENT, ["SCRIPT_NAME", "X_A"])],
)
def test_header_map(header_map, peer, kept):
    rules = HttpRules(header_map=header_map, forwarded_from=FROM_PROXY)
    request = headers_of(rules, peer, b"Script_Name: /a\r\n", b"X_A: b\r\n")
    assert [name for name, _ in request.headers] == ["HOST", *kept]


def test_header_map_refuse():
    with pytest.raises(RefusedError, match="underscore"):
        headers_of(HttpRules(header_map="refuse"), CLIENT, b"X_A: b\r\n")


SCHEMES = HttpRules(
    secure_scheme_headers={"X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"}, forwarded_from=FROM_PROXY
)


@pytest.mark.parametrize(
    ("peer", "lines", "scheme"),
    [
        (PROXY, [b"X-Forwarded-Proto: https\r\n"], "https"),
        (PROXY, [b"X-Forwarded-Proto: http\r\n"], "http"),
        (PROXY, [b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Ssl: on\r\n"], "https"),
        (CLIENT, [b"X-Forwarded-Proto: https\r\n"], "http"),
    ],
)
def test_only_a_trusted_proxy_says_which_scheme_was_used(peer, lines, scheme):
    assert headers_of(SCHEMES, peer, *lines).scheme == scheme


def test_contradictory_schemes_are_refused():
    with pytest.raises(RefusedError, match="Contradictory"):
        headers_of(SCHEMES, PROXY, b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Ssl: off\r\n")


def test_a_refusal_is_a_short_complete_response():
    head, _, body = refusal_bytes(HTTPStatus.BAD_REQUEST, "odd \u20ac").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nDate: ")
    assert b"\r\nConnection: close\r\n" in head
    assert refusal_bytes(HTTPStatus.BAD_REQUEST, "odd", is_head=True).endswith(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head


V1 = b"PROXY TCP4 192.0.2.1 192.0.2.9 1234 80\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 9]) + b"\x04\xd2\x00\x50"
V2_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
V2_IPV6 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + b"\0" * 15 + b"\1" + b"\0" * 15 + b"\2" + b"\0\1\0\2"


@pytest.mark.parametrize(
    ("header", "mode", "protocol", "address"),
    [
        (V1, "v1", "TCP4", "192.0.2.1"),
        (V1, "auto", "TCP4", "192.0.2.1"),
        (b"PROXY TCP6 ::1 ::2 1 2\r\n", "v1", "TCP6", "::1"),
        (V2, "v2", "TCP4", "192.0.2.1"),
        (V2, "auto", "TCP4", "192.0.2.1"),
        (V2_IPV6, "v2", "TCP6", "::1"),
        (V2_LOCAL, "v2", "LOCAL", None),
        (b"PROXY UNKNOWN\r\n", "v1", "UNKNOWN", None),
        (b"PROXY UNKNOWN ffff::1 whatever 1\r\n", "auto", "UNKNOWN", None),
    ],
)
def test_proxy_protocol_at_every_split(header, mode, protocol, address):
    data = header + VALID["pipelined"].data
    for cut in range(1, len(header) + 5):
        http = connection(HttpRules(proxy_protocol=mode, proxy_from=EVERYBODY))
        requests = read_all(http, data[:cut], data[cut:])
        assert len(requests) == 3
        infos = [request.proxy_protocol_info for request in requests]
        assert {(info["proxy_protocol"], info["client_addr"]) for info in infos} == {(protocol, address)}


def test_without_a_proxy_header_the_connection_is_a_plain_one():
    http = connection(HttpRules(proxy_protocol="auto", proxy_from=EVERYBODY))
    (request,) = read_all(http, VALID["plain"].data)
    assert request.proxy_protocol_info is None


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", 400),
        (b"PROXY TCP4 192.0.2.1 nowhere 1 2\r\n", 400),
        (b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n", 400),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n", 400),
        (b"PROXY TCP4 " + b"1" * 200, 400),
        (V2.replace(b"\x21\x11", b"\x31\x11"), 400),
        (V2.replace(b"\x21\x11", b"\x21\x12"), 400),
        (V2.replace(b"\x00\x0c", b"\x00\x04"), 400),
    ],
)
def test_broken_proxy_headers_are_refused(header, status):
    http = connection(HttpRules(proxy_protocol="auto", proxy_from=EVERYBODY))
    with pytest.raises(RefusedError) as refused:
        http.feed(header + VALID["plain"].data)
    assert refused.value.status == status


def test_only_some_may_send_proxy_headers():
    http = connection(HttpRules(proxy_protocol="v1", proxy_from=FROM_PROXY), CLIENT)
    with pytest.raises(RefusedError) as refused:
        http.feed(V1 + VALID["plain"].data)
    assert refused.value.status == 403


token = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^`|~", min_size=1, max_size=12)
value = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
target = st.text("abc/%2F?=&;:@!$'()*+,-._~", max_size=20).map(lambda rest: "/" + rest)
taken = {"connection", "content-length", "content-type", "expect", "host", "transfer-encoding", "upgrade"}
fields = st.lists(st.tuples(token.filter(lambda name: name.lower() not in taken), value), max_size=6)


@st.composite
def message(draw) -> tuple[bytes, tuple[str, str, list[tuple[str, str]], bytes]]:
    """One valid request as bytes, and what must be understood."""
    uri, headers, body = draw(target), draw(fields), draw(st.binary(max_size=60))
    lines = [f"POST {uri} HTTP/1.1\r\nHost: a\r\n", *(f"{name}: {value}\r\n" for name, value in headers)]
    understood = [("HOST", "a"), *((name.upper(), value) for name, value in headers)]
    if draw(st.booleans()):
        framing, framed = ("TRANSFER-ENCODING", "chunked"), b""
        rest = body
        while rest:
            size = draw(st.integers(1, len(rest)))
            framed += b"%x\r\n%b\r\n" % (size, rest[:size])
            rest = rest[size:]
        framed += b"0\r\n\r\n"
    else:
        framing, framed = ("CONTENT-LENGTH", str(len(body))), body
    head = "".join(lines).encode("latin-1") + f"{framing[0]}: {framing[1]}\r\n\r\n".encode()
    return head + framed, ("POST", uri, [*understood, framing], body)


@given(st.lists(message(), min_size=1, max_size=4), st.data())
def test_any_split_of_valid_requests_gives_the_same(messages, data):
    stream = b"".join(raw for raw, _ in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    requests = read_all(connection(), *pieces)
    assert [(r.method, r.uri, r.headers, r.body.read()) for r in requests] == [m for _, m in messages]


@settings(max_examples=2000)
@given(st.data())
def test_mutated_bytes_never_raise_anything_but_a_refusal(data):
    """A bounded fuzz run: samples with bytes changed, dropped, doubled and cut, in any number of pieces."""
    source = random.Random(data.draw(st.integers(0, 2**32)))  # noqa: S311 - not for secrets
    sample = source.choice([*(sample.data for sample in VALID.values()), *(raw for raw, _ in REFUSED.values())])
    mutated = bytearray(sample * source.randint(1, 2))
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(mutated) or 1)
        match source.randrange(4):
            case 0:
                mutated[at : at + 1] = bytes([source.choice(b"\r\n\t :;,0123456789abcxHT\x00\xff")])
            case 1:
                del mutated[at : at + source.randint(1, 8)]
            case 2:
                mutated[at:at] = mutated[at : at + source.randint(1, 30)]
            case 3:
                mutated[at:at] = source.choice([b"\r\n", HEAD, CHUNKED, b"Content-Length: 7\r\n", b"0\r\n\r\n"])
    raw = bytes(mutated)
    cuts = sorted(source.randint(0, len(raw)) for _ in range(source.randint(0, 8)))
    whole, pieces = outcome(raw), outcome(raw, *cuts)
    assert whole[0] == pieces[0], (raw, cuts)  # the same requests, whatever the packets
    assert isinstance(whole[1], HTTPStatus) == isinstance(pieces[1], HTTPStatus)


@pytest.mark.parametrize(
    ("line", "host", "path", "environ_host"),
    [
        (b"GET http://Other.example:8080/a?b HTTP/1.1", b"shop.example", "/a", "Other.example:8080"),
        (b"GET http://user@other.example HTTP/1.1", b"shop.example", "/", "other.example"),
        (b"GET http://[::1]:80/ HTTP/1.1", b"", "/", "[::1]:80"),
        (b"OPTIONS * HTTP/1.1", b"shop.example", "/", "shop.example"),
        (b"CONNECT a:1 HTTP/1.1", b"a:1", "/", "a:1"),
        (b"GET / HTTP/1.1", b"my_app-1.example:8000", "/", "my_app-1.example:8000"),
        (b"GET / HTTP/1.1", b"", "/", ""),
        (b"GET / HTTP/1.1", b"[2001:db8::1]:80", "/", "[2001:db8::1]:80"),
    ],
)
def test_target_and_host(line, host, path, environ_host):
    (request,) = read_all(connection(), line + b"\r\nHost: " + host + b"\r\n\r\n")
    assert (request.path, dict(request.headers)["HOST"]) == (path, environ_host)
