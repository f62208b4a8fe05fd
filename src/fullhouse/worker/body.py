"""The body of a request: where it is kept, and where on the connection it ends."""

import io
import shutil
import tempfile
from typing import BinaryIO, Protocol, cast

import httptools

from fullhouse.worker.refusal import bad_request

HEAD_END = b"\r\n\r\n"
Data = bytes | memoryview
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def temporary_file() -> BinaryIO:
    """A file without a name, for what is too long to be kept in memory. The caller closes it."""
    return cast(BinaryIO, tempfile.TemporaryFile(prefix="fullhouse-"))


class BodyStore:
    """Keeps a body in memory up to `memory_bytes`, and in an unlinked temporary file beyond."""

    def __init__(self, memory_bytes: int) -> None:
        self.size = 0
        self._memory_bytes = memory_bytes
        self._in_memory = True
        self._kept: BinaryIO = io.BytesIO()

    def write(self, piece: Data) -> None:
        self.size += len(piece)
        if self._in_memory and self.size > self._memory_bytes:
            memory, self._kept = self._kept, temporary_file()
            memory.seek(0)
            shutil.copyfileobj(memory, self._kept)
            self._in_memory = False
        self._kept.write(piece)

    def finish(self) -> BinaryIO:
        """The whole body as a file, positioned at its start. The caller closes it."""
        self._kept.seek(0)
        return self._kept

    def discard(self) -> None:
        """Drop what was kept, for a request that will never be complete."""
        self._kept.close()


class Framing(Protocol):
    """Where a body ends. `feed` keeps what belongs to it and returns how many bytes that was."""

    store: BodyStore
    complete: bool
    trailers: list[tuple[bytes, bytes]]

    def feed(self, data: Data) -> int: ...


class LengthFraming:
    """A body of a known length (Content-Length), which is more than 0."""

    def __init__(self, length: int, store: BodyStore) -> None:
        self.store = store
        self.complete = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._missing = length

    def feed(self, data: Data) -> int:
        piece = data if len(data) <= self._missing else data[: self._missing]
        self.store.write(piece)
        self._missing -= len(piece)
        self.complete = self._missing == 0
        return len(piece)


class ChunkedFraming:
    """A chunked body, decoded by llhttp.

    httptools does not say at which byte a message ended. But a chunked body always ends with an empty
    line, so the parser is fed up to each one in turn, and never sees a byte of the next request.
    """

    def __init__(self, store: BodyStore, limit_line: int) -> None:
        self.store = store
        self.complete = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._limit_line = limit_line
        self._line_bytes = 0  # fed since the last piece of the body: size lines, extensions, trailers
        self._edge = b""  # the last bytes fed, in case an empty line is split
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)
        self.trailers.clear()  # of the field in that head

    def on_header(self, name: bytes, value: bytes) -> None:
        self.trailers.append((name, value))
        self._line_bytes = 0

    def on_body(self, piece: bytes) -> None:
        self.store.write(piece)
        self._line_bytes = 0

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: Data) -> int:
        window, offset = b"".join((self._edge, data)), len(self._edge)
        view = memoryview(data)
        used, search = 0, 0
        while used < len(data) and not self.complete:
            end = window.find(HEAD_END, search)
            stop = len(data) if end < 0 else end + len(HEAD_END) - offset
            self._feed_parser(view[used:stop])
            used, search = stop, end + 1
        self._edge = window[-3:]
        return used

    def _feed_parser(self, piece: memoryview) -> None:
        self._line_bytes += len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError as error:
            raise bad_request(f"Invalid chunked body: {error}") from None
        if self._line_bytes > self._limit_line and not self.complete:
            raise bad_request(f"Invalid chunked body: a line is longer than {self._limit_line} bytes")
