"""The observer's HTTP: a page, its figures, and `/metrics`, on the socket that the supervisor has opened.

It serves people and programs of this machine, without a password: so it answers no page of another site that a browser
here was made to ask (the Host must be this machine's own; over a Unix socket, whoever may open that may ask). To those
who come from elsewhere it serves `/metrics` and nothing else.
At most CLIENTS are served at once, and each has PATIENCE_S.
"""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any

from fullhouse.observer.watch import Watch

CLIENTS = 16
PATIENCE_S = 5.0
_NO_METRICS = b"Install what makes them: pip install 'fullhouse[metrics]', and restart the site.\n"
_FOR_THIS_MACHINE = b"The page is for this machine: ask by its loopback address. From elsewhere there is /metrics.\n"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class Server(ThreadingHTTPServer):
    """Serves until the process ends."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, watch: Watch) -> None:
        self.watch = watch
        self.page = files("fullhouse.observer").joinpath("page/index.html").read_bytes()
        self.is_local = listener.family == socket.AF_UNIX
        self._places = threading.Semaphore(CLIENTS)
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # as many threads as the system allows
                self._places.release()
                self.shutdown_request(request)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE_S
    server_version, sys_version = "fullhouse-observer", ""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not (self.server.is_local or self._may_see(path)):
            self._answer(HTTPStatus.FORBIDDEN, _FOR_THIS_MACHINE, "text/plain")
            return
        watch = self.server.watch
        pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html; charset=utf-8", lambda: self.server.page),
            "/state.json": ("application/json", watch.state),
            "/history.json": ("application/json", lambda: watch.history(query)),
        }
        if path in pages:
            content_type, body = pages[path]
            self._answer(HTTPStatus.OK, body(), content_type)
        elif path == "/metrics":
            metrics = watch.metrics(self.headers.get("Accept", ""))
            if metrics is None:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, _NO_METRICS, "text/plain")
            else:
                self._answer(HTTPStatus.OK, *metrics)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There are /, /state.json, /history.json and /metrics.\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815

    def _may_see(self, path: str) -> bool:
        if _is_loopback(self.connection.getsockname()[0]):
            return _is_of_this_machine(self.headers.get("Host", ""))
        return path == "/metrics"

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """It has no log."""

    def address_string(self) -> str:
        return ""


def _is_of_this_machine(host: str) -> bool:
    """Whether a Host header names this machine by itself: else a page elsewhere may have pointed its name here."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        return name == "localhost" or _is_loopback(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False


def _is_loopback(text: str) -> bool:
    """Raises ValueError for what is no address."""
    address = ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
