"""The WSGI environ of a request, key by key as gunicorn makes it (gunicorn/http/wsgi.py)."""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn import SERVER_SOFTWARE
from gunicorn.http.wsgi import FileWrapper, WSGIErrorsWrapper

from fullhouse.worker.http.request import Request

Environ = dict[str, Any]


class EnvironFactory:
    """Makes environs from what all requests have in common, and what one brings."""

    def __init__(self, cfg: Any, *, multithread: bool) -> None:
        self._script_name = os.environ.get("SCRIPT_NAME", "")
        self._common: Environ = {
            "wsgi.errors": WSGIErrorsWrapper(cfg),
            "wsgi.version": (1, 0),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": cfg.workers > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
        }

    def make(self, request: Request, sock: Any, server: Any, early_hints: Callable[..., None]) -> Environ:
        """The environ of `request`, which came to the socket address `server`.

        Raises ValueError if its path does not begin with SCRIPT_NAME.
        """
        environ = self._common.copy()
        environ["wsgi.input"] = request.body
        environ["wsgi.early_hints"] = early_hints
        environ["wsgi.url_scheme"] = request.scheme
        environ["gunicorn.socket"] = sock
        environ["REQUEST_METHOD"] = request.method
        environ["QUERY_STRING"] = request.query
        environ["RAW_URI"] = request.uri
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if request.version == (1, 1) else "HTTP/1.0"
        _add_headers(environ, request.headers)
        if request.chunked:  # the whole body is here: its length is known, and no coding is left to undo
            environ["CONTENT_LENGTH"] = str(request.content_length)
            environ.pop("HTTP_TRANSFER_ENCODING", None)
        _add_addresses(environ, request, server)
        self._add_path(environ, request)
        return environ

    def _add_path(self, environ: Environ, request: Request) -> None:
        script_name, path = self._script_name, request.path
        if "HTTP_SCRIPT_NAME" in environ:  # of a trusted proxy only if it is not spelled with a hyphen
            script_name = dict(request.headers).get("SCRIPT_NAME", script_name)
        if script_name and not path.startswith(script_name):
            raise ValueError(f"Request path {path!r} does not start with SCRIPT_NAME {script_name!r}")
        path = path[len(script_name) :]
        environ["SCRIPT_NAME"] = script_name
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path


def _add_headers(environ: Environ, headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        key = _HEADER_KEYS.get(name) or _header_key(name)
        if key in environ and key not in _SINGLE_KEYS:
            environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + value  # RFC 6265 section 5.4
        else:
            environ[key] = value


_SINGLE_KEYS = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH"})
_HEADER_KEYS = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}
_MAX_KNOWN_KEYS = 1024


def _header_key(name: str) -> str:
    key = "HTTP_" + name.replace("-", "_")
    if len(_HEADER_KEYS) < _MAX_KNOWN_KEYS:  # names come from clients: remember many, not any number
        _HEADER_KEYS[name] = key
    return key


def _add_addresses(environ: Environ, request: Request, server: Any) -> None:
    peer = request.peer_addr
    if isinstance(peer, tuple):
        environ["REMOTE_ADDR"] = peer[0]
        environ["REMOTE_PORT"] = str(peer[1])
    else:
        environ["REMOTE_ADDR"] = peer.decode() if isinstance(peer, bytes) else peer
    if isinstance(server, tuple):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    else:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = _server_of_unix_socket(environ, server)
    info = request.proxy_protocol_info
    if info:
        environ["PROXY_PROTOCOL"] = info["proxy_protocol"]
    if info and info["client_addr"] is not None:  # else the proxy speaks for itself, as in its health checks
        environ["REMOTE_ADDR"] = info["client_addr"]
        environ["REMOTE_PORT"] = str(info["client_port"])
        environ["PROXY_ADDR"] = info["proxy_addr"]
        environ["PROXY_PORT"] = str(info["proxy_port"])


def _server_of_unix_socket(environ: Environ, path: str) -> tuple[str, str]:
    """A Unix socket has no host and port: the client's Host header says best which were meant."""
    host = environ.get("HTTP_HOST")
    if not host:
        return path, ""
    name, separator, port = host.partition(":")
    return name, port if separator else {"http": "80", "https": "443"}[environ["wsgi.url_scheme"]]
