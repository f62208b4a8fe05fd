"""One request, complete or on its way, in the words of gunicorn's hooks and log."""

import io
from typing import Any, BinaryIO


class Request:
    """What gunicorn's hooks, access log and WSGI environ need to know of a request.

    `headers` are (name in upper case, value) in the order they came. `version` is (1, 0) or (1, 1). `body` is
    the whole body, readable from its start. `received_s` is the loop's clock when the request was complete.
    """

    # what most requests have, on the class: setting fewer attributes makes a request measurably cheaper
    query = ""
    fragment = ""
    content_length = 0
    chunked = False
    expects_continue = False
    must_close = False
    kept_bytes = 0  # of its body, in memory
    req_number = 1
    received_s = 0.0
    authority: str | None = None  # of a target in absolute form, which takes the place of the Host
    proxy_protocol_info: dict[str, Any] | None = None

    def __init__(self, method: str, uri: str, version: tuple[int, int], scheme: str, peer_addr: Any) -> None:
        self.method = method
        self.uri = uri
        self.path = uri
        self.version = version
        self.scheme = scheme
        self.peer_addr = peer_addr
        self.headers: list[tuple[str, str]] = []
        self.trailers: list[tuple[str, str]] = []
        self.body: BinaryIO = io.BytesIO()

    @property
    def remote_addr(self) -> Any:
        return self.peer_addr

    def should_close(self) -> bool:
        """Whether the connection ends with the response to this request."""
        return self.must_close

    def force_close(self) -> None:
        self.must_close = True
