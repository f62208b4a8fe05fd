"""Runs the application for one request, in a thread, and sees to its response whatever happens.

The thread owns the channel until `handle` gives it back to the loop, which sends the response unless it was
streamed.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol

from gunicorn.http.wsgi import FileWrapper

from fullhouse.telemetry.times import ROUTE, Times
from fullhouse.worker.channel import Channel, ClientGoneError
from fullhouse.worker.http.refusal import body_bytes, refusal_bytes
from fullhouse.worker.http.request import Request
from fullhouse.worker.options import Options
from fullhouse.worker.spans import Spans
from fullhouse.worker.timer import Timer
from fullhouse.worker.unsent import FileRange
from fullhouse.worker.wsgi.access_log import AccessLog
from fullhouse.worker.wsgi.application_socket import ApplicationSocket
from fullhouse.worker.wsgi.environ import Environ, EnvironFactory
from fullhouse.worker.wsgi.response import Response

# Parts of a slow request that are shorter are not told.
_TOLD_S = 0.005
# How long the pieces of a short body may take to come before those that are there are sent.
_READ_AHEAD_S = 0.05
# Of these, the bytes of the descriptor are the bytes that they read.
_PLAIN_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)

PreRequest = Callable[[Request], None]
PostRequest = Callable[[Request, Environ, Response], None]


class GiveBack(Protocol):
    def __call__(self, channel: Channel, *, answered: bool) -> None: ...


class Gateway:
    """The WSGI application, and what belongs around it. Shared by all threads; keeps nothing of a request."""

    def __init__(
        self,
        application: Any,
        environs: EnvironFactory,
        access_log: AccessLog,
        options: Options,
        log: Any,
        *,
        is_stopping: Callable[[], bool],
        give_back: GiveBack,
        pre_request: PreRequest | None = None,
        post_request: PostRequest | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._application = application
        self._environs = environs
        self._access_log = access_log
        self._options = options
        self._log = log
        self._is_stopping = is_stopping
        self._give_back = give_back
        self._pre_request = pre_request
        self._post_request = post_request
        self._spans = spans

    def handle(self, channel: Channel, request: Request) -> None:
        """Answer `request` on `channel`, and give the channel back. Never raises."""
        response = Response(request, channel, self._is_stopping)
        environ: Environ = {}
        timer = response.times = Timer(request.method, channel)
        if self._options.server_timing:
            response.server_timing = True
        span = None if self._spans is None else self._begin_span(self._spans, request, timer)
        try:
            if self._pre_request is not None:
                self._pre_request(request)
            sock = ApplicationSocket(channel.sock, response.take_socket)
            environ = self._environs.make(request, sock, channel.server, response.send_early_hints)
            self._run(environ, response)
        except ClientGoneError as error:
            self._log.debug("The client has gone: %s", error)
            response.force_close()
        except BaseException as error:  # a SystemExit, say, or a CancelledError must not end a thread others wait for
            if not (response.socket_taken and isinstance(error, StopIteration)):  # by which such an application ends
                self._log_error("Error handling request %s %s", request.method, request.uri)
            self._answer_error(channel, response)
        if response.socket_taken:
            with suppress(OSError):  # the application has closed it
                channel.sock.setblocking(False)
        channel.must_close = response.must_close
        channel.failed = response.status.startswith("5")
        timer.stop(environ.get(ROUTE, ""), response.status_code)
        if span is not None and self._spans is not None:
            self._end_span(self._spans, span, request, timer)
        self._give_back(channel, answered=response.has_turn)
        self._finish(request, environ, response)

    def _run(self, environ: Environ, response: Response) -> None:
        result = self._application(environ, response.start_response)
        try:
            # headers_sent: the application has used write()
            whole = None if response.headers_sent else self._whole(result)
            if whole is None:
                whole = self._stream(iter(result), response)
        finally:
            self._close(result, response)
        if response.socket_taken and not response.status:
            return
        if isinstance(whole, FileRange):
            response.send_file(whole)
        elif whole is not None:
            response.send_whole(whole)

    def _stream(self, pieces: Iterator[Any], response: Response) -> bytes | None:
        """Send the body piece by piece; or return it where it came soon, and all of it, and may be sent at once."""
        ahead: list[Any] = []
        if self._may_read_ahead(response):
            until = time.monotonic() + _READ_AHEAD_S
            for piece in pieces:
                ahead.append(piece)
                if time.monotonic() > until:
                    break
            else:
                return b"".join(ahead)
        for piece in chain(ahead, pieces):
            response.write(piece)
            if response.omits_body:  # the rest, which may be endless, is nobody's
                break
        response.finish_stream()
        return None

    def _may_read_ahead(self, response: Response) -> bool:
        """Where a length is announced: a complete body that an error tracker has wrapped, say, looks like a stream."""
        length = response.response_length
        if not response.status or response.headers_sent or response.omits_body or length is None:
            return False
        return length <= self._options.unsent_memory_bytes

    def _whole(self, result: Any) -> FileRange | bytes | None:
        """The body if all of it is there already; None if it must be asked for piece by piece."""
        if isinstance(result, FileWrapper) and (file := self._file_range(result)) is not None:
            return file
        if isinstance(result, list | tuple):
            return result[0] if len(result) == 1 and type(result[0]) is bytes else b"".join(result)
        if getattr(result, "streaming", None) is False:  # a response of Django's
            return b"".join(result)
        return None

    def _file_range(self, result: FileWrapper) -> FileRange | None:
        """The file behind a wsgi.file_wrapper as the kernel knows it, or None if it is not a real file."""
        try:
            file = _plain_file(result.filelike)
            if file is None:
                return None
            fd, offset = file.fileno(), file.tell()
            count = max(0, os.fstat(fd).st_size - offset)
            return FileRange(os.dup(fd), offset, count, sendfile=self._options.sendfile)
        except (AttributeError, OSError, io.UnsupportedOperation):
            return None

    def _close(self, result: Any, response: Response) -> None:
        """PEP 3333: close what the application returned, once, whatever became of it."""
        close = getattr(result, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException:
            self._log_error("Error closing the response to %s", response.request.uri)
            response.force_close()

    def _answer_error(self, channel: Channel, response: Response) -> None:
        """500 if nothing was sent yet; otherwise the client sees the connection end before the response."""
        response.force_close()
        if response.headers_sent or response.socket_taken:
            return
        try:
            response.take_turn()
        except ClientGoneError:
            return
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        response.status, response.status_code = f"{status.value} {status.phrase}", status.value
        channel.small_response = refusal_bytes(
            status, "the application failed", is_head=response.request.method == "HEAD"
        )
        response.sent = body_bytes(channel.small_response)

    def _begin_span(self, spans: Spans, request: Request, timer: Timer) -> tuple[Any, Any] | None:
        try:
            return spans.begin(request.method, request.headers, timer.waited_s)
        except Exception:  # a propagator or a sampler of the site's own
            self._log_error("Cannot begin a span for %s %s", request.method, request.uri)
            return None

    def _end_span(self, spans: Spans, span: tuple[Any, Any], request: Request, timer: Timer) -> None:
        try:
            spans.end(span, request.path, timer)
        except Exception:  # an exporter of the site's own
            self._log_error("Cannot end the span of %s %s", request.method, request.uri)

    def _finish(self, request: Request, environ: Environ, response: Response) -> None:
        try:
            if self._access_log.enabled and response.has_turn and response.status:  # else it was no answer of ours
                self._access_log.write(request, response, environ, time.monotonic() - request.received_s)
            slow_s = self._options.slow_request_s
            if slow_s is not None and response.times is not None and response.times.total_s > slow_s:
                self._log.warning("%s", slow_request(request, response.times))
            if self._post_request is not None:
                self._post_request(request, environ, response)
        except BaseException:
            self._log_error("Error after the response to %s %s", request.method, request.uri)
        try:
            request.body.close()
        except Exception as error:  # the application has detached it, or keeps a view of its memory
            self._log.debug("The body of %s %s stays open: %s", request.method, request.uri, error)

    def _log_error(self, text: str, *arguments: str) -> None:
        """Log the exception that is being handled. A logger of the site's own may fail: it is not called again."""
        with suppress(Exception):
            self._log.exception(text, *arguments)


def _plain_file(file: Any) -> Any:
    """The file whose bytes are what `file` reads; None: it makes others of them, as gzip does, or that is not known.

    Django's File and tempfile's wrappers read from the file that they wrap.
    """
    while type(file) not in _PLAIN_FILES:
        inner = getattr(file, "file", None)
        if inner is None or not (isinstance(file, tempfile._TemporaryFileWrapper) or file.read == inner.read):
            return None
        file = inner
    return file


def slow_request(request: Request, times: Times) -> str:
    """A line for the log."""
    parts = ", ".join(f"{name} {part_s:.2f}" for name, part_s in times.parts.items() if part_s >= _TOLD_S)
    statements = f"; {times.statements} statements" if times.statements else ""
    route = f" ({times.route})" if times.route else ""
    name = f"{request.method} {request.path}{route} {times.status}"
    return f"A slow request: {name}, {times.total_s:.2f} s: {parts}{statements}"
