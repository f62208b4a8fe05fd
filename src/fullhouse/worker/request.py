"""One request, complete or on its way, in the words of gunicorn's hooks and log."""

import io
from typing import Any, BinaryIO


class Request:
    """What gunicorn's hooks, access log and WSGI environ need to know of a request.

    `headers` are (name in upper case, value) in the order they came. `version` is (1, 0) or (1, 1). `body` is
    the whole body, readable from its start. `received_s` is the loop's clock when the request was complete.
    """

    __slots__ = (
        "body",
        "chunked",
        "content_length",
        "expects_continue",
        "fragment",
        "headers",
        "method",
        "must_close",
        "path",
        "peer_addr",
        "proxy_protocol_info",
        "query",
        "received_s",
        "remote_addr",
        "req_number",
        "scheme",
        "trailers",
        "uri",
        "version",
    )

    def __init__(self, method: str, uri: str, version: tuple[int, int], peer_addr: Any) -> None:
        self.method = method
        self.uri = uri
        self.path = uri
        self.query = ""
        self.fragment = ""
        self.version = version
        self.headers: list[tuple[str, str]] = []
        self.trailers: list[tuple[str, str]] = []
        self.scheme = "http"
        self.content_length = 0
        self.chunked = False
        self.expects_continue = False
        self.must_close = False
        self.peer_addr = peer_addr
        self.remote_addr = peer_addr
        self.proxy_protocol_info: dict[str, Any] | None = None
        self.req_number = 1
        self.received_s = 0.0
        self.body: BinaryIO = io.BytesIO()

    def should_close(self) -> bool:
        """Whether the connection ends with the response to this request."""
        return self.must_close

    def force_close(self) -> None:
        self.must_close = True
