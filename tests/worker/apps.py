"""WSGI applications that the servers under test run."""

import asyncio
import bz2
import gzip
import json
import lzma
import os
import tempfile
import threading
import time
from pathlib import Path
from wsgiref.validate import validator

import simple_websocket

from fullhouse.telemetry.times import own
from fullhouse.worker import Worker
from fullhouse.worker.admission.queue import AdmissionRules
from fullhouse.worker.options import Options
from fullhouse.worker.time_limits import TimeLimits

PLAIN = [("Content-Type", "text/plain")]


def describe(environ) -> dict:
    """Everything in the environ that can be written down, and what its objects are able to do."""
    plain = {key: value for key, value in environ.items() if isinstance(value, str | int | tuple)}
    stream = environ["wsgi.input"]
    return plain | {"body": stream.read().decode("latin-1"), "keys": sorted(environ)}


def echo(environ, start_response):
    body = json.dumps(describe(environ)).encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def _counting(environ, start_response):
    """Keeps everything that PEP 3333 asks of an application, so that its checker looks at the server."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [*PLAIN, ("Content-Length", "3")])
    return [b"ok\n"]


checked = validator(_counting)


class Closing:
    """An iterable that tells when it was closed."""

    closed = 0

    def __init__(self, pieces):
        self._pieces = pieces

    def __iter__(self):
        return iter(self._pieces)

    def close(self):
        Closing.closed += 1


class WholeResponse(Closing):
    """Says, as Django's responses do, that its body is complete."""

    streaming = False


class ClosedFile(Closing):
    """A file that was closed too early."""

    def read(self, *_size):
        raise ValueError("I/O operation on closed file.")

    fileno = tell = read


def _file(environ, start_response, size: int, length: bool = True):
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(os.urandom(1) * size)
    opened = Path(file.name).open("rb")  # noqa: SIM115 - closed by the server
    os.unlink(file.name)
    start_response("200 OK", [*PLAIN, *([("Content-Length", str(size))] if length else [])])
    return environ["wsgi.file_wrapper"](opened)


def _failing_after(start_response):
    start_response("200 OK", PLAIN)
    yield b"part"
    raise RuntimeError("the application fails half-way")


def _late_error(start_response):
    start_response("200 OK", PLAIN)
    try:
        raise RuntimeError("noticed in time")
    except RuntimeError:
        import sys

        start_response("503 Service Unavailable", [*PLAIN, ("Content-Length", "4")], sys.exc_info())
    return [b"late"]


def _hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [*PLAIN, ("Content-Length", "1")])
    return [b"x"]


def _written(start_response):
    write = start_response("200 OK", PLAIN)
    write(b"written ")
    return [b"returned"]


def _fixed(start_response, status="200 OK", headers=(), body=(b"ok",)):
    start_response(status, [*PLAIN, *headers])
    return list(body)


def _respond(path, environ, start_response):  # noqa: C901 - a table of cases
    match path:
        case "/list":
            return _fixed(start_response, body=[b"two ", b"pieces"])
        case "/empty":
            return _fixed(start_response, body=[])
        case "/length":
            return _fixed(start_response, headers=[("Content-Length", "2")])
        case "/too-long":
            return _fixed(start_response, headers=[("Content-Length", "2")], body=[b"okay"])
        case "/too-short":
            return _fixed(start_response, headers=[("Content-Length", "9")])
        case "/204":
            return _fixed(start_response, "204 No Content", [("Content-Length", "0")], body=[])
        case "/304":
            return _fixed(start_response, "304 Not Modified", [("ETag", '"a"')], body=[])
        case "/generator":
            start_response("200 OK", PLAIN)
            return (piece for piece in [b"one ", b"", b"two"])
        case "/generator-length":
            start_response("200 OK", [*PLAIN, ("Content-Length", "7")])
            return (piece for piece in [b"one ", b"two"])
        case "/moved":
            return _fixed(start_response, "302 Found", [("Location", "/list")])
        case "/upload-moved":
            return _fixed(start_response, "307 Temporary Redirect", [("Location", "/put")])
        case "/hop":
            hop = [("Connection", "close"), ("Keep-Alive", "x"), ("Server", "mine"), ("X-Own", " a ")]
            return _fixed(start_response, headers=hop)
        case "/latin":
            return _fixed(start_response, headers=[("X-Name", "caf\xe9"), ("Content-Length", "2")])
        case "/file":
            return _file(environ, start_response, 100_000)
        case "/file-chunked":
            return _file(environ, start_response, 1000, length=False)
        case "/large":
            return _fixed(start_response, headers=[("Content-Length", str(8 << 20))], body=[b"x" * (8 << 20)])
        case "/raise":
            raise RuntimeError("the application fails")
        case "/exit":
            raise SystemExit(3)
        case "/cancelled":
            raise asyncio.CancelledError  # which is no Exception
        case "/fail-after":
            return _failing_after(start_response)
        case "/late-error":
            return _late_error(start_response)
        case "/bad-header":
            return _fixed(start_response, headers=[("X", "a\r\nSet-Cookie: b")])
        case "/bad-name":
            return _fixed(start_response, headers=[("X Y", "a")])
        case "/bad-status":
            return _fixed(start_response, "OK")
        case "/no-start":
            return [b"never started"]
        case "/not-bytes":
            start_response("200 OK", PLAIN)
            return ["text"]
        case "/hints":
            return _hints(environ, start_response)
        case "/write":
            return _written(start_response)
        case "/closing":
            start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
            return Closing([b"ok"])
        case "/whole":
            start_response("200 OK", PLAIN)
            return WholeResponse([b"who", b"le"])
        case "/whole-fails":
            return WholeResponse(_failing_after(start_response))
        case "/closed-file":
            start_response("200 OK", PLAIN)
            return environ["wsgi.file_wrapper"](ClosedFile([]))
        case "/closed":
            return _fixed(start_response, body=[str(Closing.closed).encode()])
    return echo(environ, start_response)


def many(environ, start_response):
    """One application for every case that is compared between workers; the path chooses."""
    return _respond(environ["PATH_INFO"], environ, start_response)


GATE = threading.Event()
WAITING = threading.Semaphore(0)


def gated(environ, start_response):
    """`/wait` ends when `/open` is asked for, `/arrived` tells when as many as its query says are waiting."""
    path = environ["PATH_INFO"]
    if path == "/wait":
        WAITING.release()
        GATE.wait(20)
    elif path == "/open":
        GATE.set()
    elif path == "/arrived":
        for _ in range(int(environ["QUERY_STRING"])):
            WAITING.acquire(timeout=20)
    elif path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    body = f"{os.getpid()} {threading.active_count()}".encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


KEPT = []


def keeping(environ, start_response):
    """Does with its input what makes closing it fail: keeps a view of its memory, or detaches its file."""
    body = environ["wsgi.input"]
    KEPT.append(body.detach() if environ["PATH_INFO"] == "/detach" else body.getbuffer())
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]


class Impatient(Worker):
    """Timeouts that a test can wait for."""

    options = Options(header_timeout_s=1.0, transfer_grace_s=1.0, linger_s=0.5, unsent_memory_bytes=100_000)


class Spooling(Worker):
    """Everything that can go to a file does."""

    options = Options(body_memory_bytes=100, unsent_memory_bytes=100)


class Tight(Worker):
    """Little memory for requests and responses on their way."""

    options = Options(transfer_memory_bytes=8 << 20)


def endless(environ, start_response):
    """Streams for ever, unless the server stops it; `/closed` tells how many streams it has closed."""
    if environ["PATH_INFO"] == "/closed":
        return _fixed(start_response, headers=[("Content-Length", "1")], body=[str(Closing.closed).encode()])
    start_response("200 OK", PLAIN)
    return Closing(iter(lambda: b"x" * 100_000, b""))


class Decoding:
    """A file that makes other bytes of those that it wraps, as encrypting storages do."""

    def __init__(self, file):
        self.file = file

    def read(self, size=-1):
        return self.file.read(size).replace(b"encoded", b"decoded")

    def __getattr__(self, name):
        return getattr(self.file, name)


def decoded(environ, start_response):
    """`decoded ` a thousand times, from a file of the kind that the path names."""
    from django.core.files import File

    text, kind = b"decoded " * 1000, environ["PATH_INFO"][1:]
    opened = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by the server
    kinds = {
        "gzip": (gzip.compress, gzip.open),
        "bz2": (bz2.compress, bz2.open),
        "lzma": (lzma.compress, lzma.open),
        "decoding": (lambda text: text.replace(b"decoded", b"encoded"), Decoding),
        "wrapped": (bytes, File),
        "temporary": (bytes, lambda file: file),
    }
    encode, opener = kinds[kind]
    opened.write(encode(text))
    opened.seek(0)
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](opener(opened))


class Wrapped:
    """What error trackers make of a response."""

    def __init__(self, response):
        self._response = response

    def __iter__(self):
        return iter(self._response)

    def close(self):
        pass


def wrapped(environ, start_response):
    body = b"x" * 1_000_000 if environ["PATH_INFO"] == "/large" else b"small"
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
    return Wrapped([body])


def lengths(environ, start_response):
    start_response("200 OK", [("Content-Length", length) for length in environ["QUERY_STRING"].split(",")])
    return [b"ok"]


class Strict(Worker):
    options = Options(max_body_bytes=1000)


class Bounded(Worker):
    """With bounds that a test reaches at once."""

    options = Options(
        header_timeout_s=0.5,
        max_body_bytes=1000,
        time_limits=TimeLimits(0.5),
        admission=AdmissionRules(limit=1),
    )


def websocket(environ, start_response):
    """`/echo` speaks WebSocket and ends as its path says; `/peer` only looks at its socket."""
    if environ["PATH_INFO"] == "/peer":
        body = str(environ["gunicorn.socket"].getpeername()[0]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    server = simple_websocket.Server(environ)
    try:
        while True:
            server.send(server.receive())
    except simple_websocket.ConnectionClosed:
        if environ["QUERY_STRING"] == "raises":
            raise StopIteration from None
        return []


class Timed(Worker):
    """Tells where the time of requests went."""

    options = Options(server_timing=True, slow_request_s=0.25)


def timed(environ, start_response):
    """Computes, sleeps, streams, or spends time as a database engine would tell it, as its path says."""
    environ["fullhouse.route"] = "<what>/"
    path = environ["PATH_INFO"]
    if path == "/compute":
        until = time.thread_time() + 2
        while time.thread_time() < until:
            pass
    elif path == "/sleep":
        time.sleep(2)
    elif path == "/database":
        own.times.connection_s += 0.125
        own.times.statements += 2
        own.times.statements_s += 0.0625
        time.sleep(2)
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]
