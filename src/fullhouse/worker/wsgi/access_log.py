"""The access log: gunicorn's format and atoms, compiled once instead of looked up for every request.

gunicorn builds a dict of every header and environ key for each line. Here the format is split once into the
getters that it needs. A logger class of the user's own that has its say in the line, and handlers that are not
gunicorn's own, are called as gunicorn calls them; its plain handlers get the finished lines directly, many at once:
threads append them, the loop writes them.

Each answer has one line, with the status that was sent. Those to probes have none.
"""

import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger, SafeAtoms

from fullhouse.telemetry.times import PARTS
from fullhouse.worker.channel import Channel
from fullhouse.worker.http.request import Request
from fullhouse.worker.wsgi.environ import Environ, EnvironFactory
from fullhouse.worker.wsgi.response import Response

_ATOM = re.compile(r"%(?:%|\((\{[^}]*\}[ioe]|[^)]*)\)([-#0 +]*\d*(?:\.\d+)?)([sdi]))")
JSON = "json"
# What ends a line, or makes a terminal do something.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def escaped(text: str) -> str:
    """The text with its control characters spelled out, so that no client can forge a line."""
    return text if text.isprintable() else text.translate(_CONTROLS)


class EscapedAtoms(SafeAtoms):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, which escapes quotes only."""

    def __init__(self, atoms: dict[str, Any]) -> None:
        super().__init__({name: escaped(value) if isinstance(value, str) else value for name, value in atoms.items()})


@dataclass(frozen=True, slots=True)
class Served:
    """What a line is made of. `duration_us` in microseconds, from complete request to sent response."""

    request: Request
    response: Response
    environ: Environ
    duration_us: int


Getter = Callable[[Served], Any]


@lru_cache(maxsize=1)
def _local_time(second: int) -> str:
    return time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(second))


def _environ_atom(key: str, default: Any = "-") -> Getter:
    return lambda served: served.environ.get(key, default)


def _request_line(served: Served) -> str:
    environ = served.environ
    return f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"


def _plain_atoms(user_of: Callable[[Environ], str | None]) -> dict[str, Getter]:
    return {
        "h": _environ_atom("REMOTE_ADDR"),
        "l": lambda _: "-",
        "u": lambda served: user_of(served.environ) or "-" if "HTTP_AUTHORIZATION" in served.environ else "-",
        "t": lambda _: _local_time(int(time.time())),
        "r": _request_line,
        "s": lambda served: served.response.status.split(None, 1)[0],
        "m": _environ_atom("REQUEST_METHOD", None),
        "U": _environ_atom("PATH_INFO", None),
        "q": _environ_atom("QUERY_STRING", None),
        "H": _environ_atom("SERVER_PROTOCOL", None),
        "b": lambda served: str(served.response.sent),
        "B": lambda served: served.response.sent,
        "f": _environ_atom("HTTP_REFERER"),
        "a": _environ_atom("HTTP_USER_AGENT"),
        "T": lambda served: served.duration_us // 1_000_000,
        "D": lambda served: served.duration_us,
        "M": lambda served: served.duration_us // 1000,
        "L": lambda served: f"{served.duration_us // 1_000_000}.{served.duration_us % 1_000_000:06d}",
        "p": lambda _: f"<{os.getpid()}>",
    }


def _times_atoms() -> dict[str, Getter]:
    """Beyond gunicorn's: where the time of the request went, in milliseconds."""

    def part(name: str) -> Getter:
        def get(served: Served) -> Any:
            times = served.response.times
            part_s = None if times is None else getattr(times, name)
            return "-" if part_s is None else f"{1000 * part_s:.1f}"

        return get

    def other(name: str) -> Getter:
        return lambda served: "-" if served.response.times is None else getattr(served.response.times, name) or "-"

    parts = {f"{name}_ms": part(attribute) for name, attribute in PARTS.items()}
    return {**parts, "statement_count": other("statements"), "route": other("route")}


def _json_line(user_of: Callable[[Environ], str | None]) -> Callable[[Served], str]:
    """A function that makes a line of `access_log_format = "json"`: an object without line breaks.

    Names as OpenTelemetry's semantic conventions have them; times in seconds.
    """

    def line(served: Served) -> str:
        environ, response, times = served.environ, served.response, served.response.times
        told: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client.address": environ.get("REMOTE_ADDR"),
            "user.name": user_of(environ) if "HTTP_AUTHORIZATION" in environ else None,
            "http.request.method": environ["REQUEST_METHOD"],
            "url.path": served.request.path,
            "url.query": served.request.query or None,
            "http.route": (times and times.route) or None,
            "http.response.status_code": response.status_code,
            "http.response.body.size": response.sent,
            "user_agent.original": environ.get("HTTP_USER_AGENT"),
            "http.request.header.referer": environ.get("HTTP_REFERER"),
            "duration": served.duration_us / 1e6,
            "process.pid": os.getpid(),
        }
        if times is not None:
            told |= {f"duration.{name}": round(part_s, 6) for name, part_s in times.parts.items()}
            told["statements"] = times.statements
        return json.dumps({name: value for name, value in told.items() if value is not None})

    return line


def _last(pairs: list[tuple[str, str]], name: str) -> str:
    return next((value for key, value in reversed(pairs) if key.lower() == name), "-")


def _getter(atom: str, plain: dict[str, Getter]) -> Getter:
    """The getter of one atom; "-" for one that gunicorn does not know either."""
    if not atom.startswith("{"):
        return plain.get(atom, lambda _: "-")
    name, kind = atom[1:-2].lower(), atom[-1]
    if kind == "i":
        return lambda served: _last(served.request.headers, name)
    if kind == "o":
        return lambda served: _last(served.response.headers, name)
    return lambda served: _last(list(served.environ.items()), name)


def compile_format(format_: str, user_of: Callable[[Environ], str | None]) -> Callable[[Served], str]:
    """A function that makes the line of gunicorn's `access_log_format`."""
    if format_ == JSON:
        return _json_line(user_of)
    plain = _plain_atoms(user_of) | _times_atoms()
    getters = [_getter(m[1], plain) for m in _ATOM.finditer(format_) if m[1] is not None]
    template = _ATOM.sub(lambda m: "%%" if m[1] is None else f"%{m[2]}{m[3]}", format_)

    def line(served: Served) -> str:
        values = [getter(served) for getter in getters]
        return template % tuple(escaped(v).replace('"', '\\"') if isinstance(v, str) else v for v in values)

    return line


class AccessLog:
    """Writes one line for each answer if gunicorn's configuration asks for an access log.

    enabled: whether anything is done at all. A class of the site's own is called always, as gunicorn does: it may
    count requests without writing a line.
    """

    def __init__(self, log: Any, access_log_format: str, environs: EnvironFactory) -> None:
        self._log = log
        self._environs = environs
        self._lines: deque[str] = deque()
        if log.atoms_wrapper_class is SafeAtoms:
            log.atoms_wrapper_class = EscapedAtoms
        self._is_gunicorns_own = (
            type(log).access is Logger.access
            and type(log).atoms is Logger.atoms
            and log.atoms_wrapper_class is EscapedAtoms
        )
        self.enabled = bool(log.access_log_enabled) or type(log).access is not Logger.access
        self._line = compile_format(access_log_format, log._get_user)

    def write(self, request: Request, response: Response, environ: Environ, duration_s: float) -> None:
        """Log a response of the application. environ: empty for a path outside SCRIPT_NAME, which has none."""
        environ = environ or {"REQUEST_METHOD": request.method, "RAW_URI": request.uri, "SERVER_PROTOCOL": "HTTP/1.1"}
        try:
            if self._is_gunicorns_own and self._takes_lines():
                self._lines.append(self._line(Served(request, response, environ, int(duration_s * 1_000_000))))
            else:
                self._log.access(response, request, environ, timedelta(seconds=duration_s))
        except Exception:  # a format that does not fit its atoms must not end the request
            self._log.exception("Cannot write the access log")

    def write_answer(self, channel: Channel, request: Request | None, status: HTTPStatus, body_bytes: int) -> None:
        """Log an answer of the server itself. request: None where its head could not be read."""
        if not self.enabled:
            return
        request = request or Request("-", "-", (1, 1), "http", channel.peer)
        response = Response(request, channel, lambda: False)
        response.status, response.status_code = f"{status.value} {status.phrase}", status.value
        response.sent = body_bytes
        environ: Environ = {}
        with suppress(ValueError):
            environ = self._environs.make(request, channel.sock, channel.server, response.send_early_hints)
        duration_s = time.monotonic() - request.received_s if request.received_s else 0.0
        self.write(request, response, environ, duration_s)

    def _takes_lines(self) -> bool:
        """Whether finished lines may be given to the handlers, many at once."""
        logger = self._log.access_log
        return not (logger.propagate or logger.filters) and all(map(_is_plain, logger.handlers))

    def flush(self) -> None:
        """Write the lines of the requests that were finished since the last call. By the thread that runs the loop."""
        if not self._lines:
            return
        lines = "\n".join(self._lines.popleft() for _ in range(len(self._lines)))
        record = logging.makeLogRecord({"msg": lines, "levelno": logging.INFO})
        for handler in self._log.access_log.handlers:
            handler.handle(record)  # opens its file, where that was closed to be rotated


def _is_plain(handler: logging.Handler) -> bool:
    """Whether gunicorn made this handler of a stream: many lines in one record are then what they would be in many."""
    return isinstance(handler, logging.StreamHandler) and getattr(handler, "_gunicorn", False) and not handler.filters
