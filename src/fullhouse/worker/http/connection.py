"""The HTTP/1.1 state of one connection: bytes in, complete requests out. No sockets, no clock, no threads.

Only one request is taken from the bytes at a time. What came after it stays unparsed until the loop asks for
the next one, so nothing is ever read ahead of a response that may end the connection.
"""

from http import HTTPStatus
from typing import Any

from fullhouse.worker.http.body import HEAD_END, ChunkedFraming, Data, Framing, LengthFraming
from fullhouse.worker.http.head import HeadParser, head_too_long, line_too_long, parse_head, parse_trailers
from fullhouse.worker.http.proxy_protocol import parse_proxy_header
from fullhouse.worker.http.refusal import RefusedError, bad_request
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import HttpRules

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection:
    """One connection's requests. After a RefusedError, or a request that closes, it takes no more bytes."""

    __slots__ = (
        "_framing",
        "_parser",
        "_pending",
        "_proxy_info",
        "_proxy_mode",
        "_request",
        "_rules",
        "_searched",
        "closing",
        "peer",
        "requests",
        "trusted",
    )

    def __init__(self, rules: HttpRules, parser: HeadParser, peer: Any) -> None:
        self._rules = rules
        self._parser = parser
        self.peer = peer
        self.trusted = rules.forwarded_from.trusts(peer)  # to speak for its clients
        self.requests = 0
        self.closing = False
        self._pending = bytearray()  # bytes of a head that is not complete, or of the requests after this one
        self._searched = 0  # how much of them holds no empty line
        self._request: Request | None = None  # the one whose body is on its way ...
        self._framing: Framing | None = None  # ... and how far it has come
        self._proxy_mode = rules.proxy_protocol
        self._proxy_info: dict[str, Any] | None = None

    @property
    def has_unparsed(self) -> bool:
        """Whether bytes of a next request are here already."""
        return bool(self._pending) and not self.closing

    @property
    def in_request(self) -> bool:
        """Whether a request has begun and is not complete."""
        return self._framing is not None or self.has_unparsed

    @property
    def request(self) -> Request | None:
        """The request whose body is on its way."""
        return self._request

    @property
    def body_bytes(self) -> int | None:
        """How much of a body has come, or None if none is being read."""
        return None if self._framing is None else self._framing.store.size

    @property
    def unparsed_bytes(self) -> int:
        """How much has come of a head that is not complete, or of requests after one that is not answered."""
        return len(self._pending)

    def drop_unparsed(self) -> None:
        """Forget what came after a request that closes the connection."""
        self._pending.clear()

    @property
    def kept_bytes(self) -> int:
        """How much of requests that are not complete is in memory."""
        framing = self._framing
        return len(self._pending) + (0 if framing is None else framing.store.kept_bytes + framing.line_bytes)

    def spool(self) -> None:
        """Keep the body that is on its way in a temporary file. Raises OSError."""
        if self._framing is not None:
            self._framing.store = self._framing.store.spooled()

    @property
    def missing_bytes(self) -> int:
        """How many bytes are sure to be of the body that is on its way."""
        return 0 if self._framing is None else self._framing.missing

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes are best received, before they are fed; None: anywhere."""
        return None if self._framing is None else self._framing.store.room

    def feed(self, data: Data) -> Request | None:
        """Take bytes, none if only those kept from before shall be looked at; the next request once complete.

        Raises RefusedError if the bytes are not a request that may be served.
        """
        if self.closing:
            return None
        try:
            return self._feed_body(data) if self._framing is not None else self._feed_head(bytes(data))
        except RefusedError as refused:
            refused.request = self._request
            self.discard()
            raise

    def discard(self) -> None:
        """Forget everything: no more requests are taken from this connection."""
        self.closing = True
        self._pending.clear()
        if self._framing is not None:
            self._framing.store.discard()
            self._framing = self._request = None

    def take_continue(self) -> bytes:
        """The interim response that the request on its way waits for, once; empty if it waits for none."""
        request = self._request
        if request is None or not request.expects_continue:
            return b""
        request.expects_continue = False
        return CONTINUE

    def _feed_head(self, data: bytes) -> Request | None:
        whole = not self._pending and data.find(HEAD_END) == len(data) - len(HEAD_END) > 0
        if whole and self._proxy_mode == "off":
            return self._begin(data)
        self._pending += data
        if self._proxy_mode != "off" and not self._take_proxy_header():
            return None
        head = self._take_head()
        if head is None:
            return None
        request = self._begin(head)
        if self._framing is None or not self._pending:
            return request
        body = bytes(self._pending)
        self._pending.clear()
        return self._feed_body(body)

    def _take_head(self) -> bytes | None:
        """The bytes up to and with the first empty line, taken off; None if it has not come yet."""
        end = self._pending.find(HEAD_END, self._searched)
        if end < 0:
            self._check_incomplete_head()
            self._searched = max(0, len(self._pending) - len(HEAD_END) + 1)
            return None
        if end == 0:  # RFC 9112 section 2.2 allows one empty line before a request, not two
            raise bad_request("Invalid request line ''")
        end += len(HEAD_END)
        self._searched = 0
        head = bytes(self._pending[:end])
        del self._pending[:end]
        return head

    def _check_incomplete_head(self) -> None:
        """Refuse at once what can never become a head, and what is longer than a head may be."""
        pending, rules = self._pending, self._rules
        start = self._searched
        if start == 0 and pending and not (65 <= pending[0] <= 90 or pending[0] == 13):
            raise bad_request("Invalid request line")  # as of a client that speaks TLS to a plain port
        if pending.count(b"\n", start) != pending.count(b"\r\n", max(0, start - 1)):
            raise bad_request("Invalid request: bare LF as line terminator")
        if start <= rules.limit_request_line and 0 < rules.limit_request_line + 2 < len(pending):
            line_end = pending.find(b"\r\n", 2, rules.limit_request_line + 4)
            if line_end < 0:
                raise line_too_long(rules)
        if len(pending) > rules.limit_head:
            raise head_too_long(rules)

    def _begin(self, head: bytes) -> Request | None:
        """Parse a head; the request if it has no body, else None with `_framing` set."""
        if len(head) > self._rules.limit_head:
            raise head_too_long(self._rules)
        request = parse_head(head, self.peer, self.trusted, self._parser, self._rules)
        self.requests += 1
        request.req_number = self.requests
        request.proxy_protocol_info = self._proxy_info
        if not (request.chunked or request.content_length):
            self.closing = request.must_close
            return request
        self._rules.check_body(request.content_length)
        self._request = request
        if request.chunked:
            self._framing = ChunkedFraming(self._rules)
        else:
            self._framing = LengthFraming(request.content_length, self._rules.body_memory_bytes)
        return None

    def _feed_body(self, data: Data) -> Request | None:
        framing, request = self._framing, self._request
        assert framing is not None and request is not None  # noqa: S101, PT018 - feed() has looked
        used = framing.feed(data)
        if not framing.complete:
            return None
        self._pending += memoryview(data)[used:]
        if framing.trailers:
            request.trailers = parse_trailers(framing.trailers, self._rules)
        request.body = framing.store.finish()
        request.content_length = framing.store.size
        request.kept_bytes = framing.store.kept_bytes
        self._framing = self._request = None
        self.closing = request.must_close
        return request

    def _take_proxy_header(self) -> bool:
        """Take a PROXY header off the first bytes; False as long as bytes of it may be missing."""
        parsed = parse_proxy_header(bytes(self._pending), self._proxy_mode)
        if parsed is None:
            return False
        self._proxy_info, used = parsed
        if used and not self._rules.proxy_from.trusts(self.peer):
            raise RefusedError(HTTPStatus.FORBIDDEN, "PROXY header from an address that is not trusted")
        del self._pending[:used]
        self._proxy_mode = "off"
        return True
