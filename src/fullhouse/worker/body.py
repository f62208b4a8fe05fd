"""The body of a request: where it is kept, and where on the connection it ends."""

import io
import mmap
import shutil
import tempfile
from collections import deque
from typing import Any, BinaryIO, Protocol, cast

import httptools

from fullhouse.worker.options import HttpRules
from fullhouse.worker.refusal import bad_request, fields_too_large

HEAD_END = b"\r\n\r\n"
Data = bytes | memoryview
# Bodies of these lengths are received into a buffer. It costs memory only as far as it was ever written to.
BUFFERED_FROM_BYTES = 32 * 1024
BUFFER_BYTES = 1024 * 1024
# Used again and again, by any thread: the pages of fresh memory cost more than what is copied into them.
_spare_buffers: deque[memoryview] = deque(maxlen=8)
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def temporary_file() -> BinaryIO:
    """A file without a name, for what is too long to be kept in memory. The caller closes it."""
    return cast(BinaryIO, tempfile.TemporaryFile(prefix="fullhouse-"))


class BodyStore:
    """Keeps a body in memory up to `memory_bytes`, and in an unlinked temporary file beyond."""

    def __init__(self, memory_bytes: int) -> None:
        self.size = 0
        self.room: memoryview | None = None
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


def _take_buffer() -> memoryview:
    try:
        return _spare_buffers.pop()
    except IndexError:
        return memoryview(mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class _LentBuffer(io.RawIOBase):
    """Reads the first `size` bytes of a buffer, which others get once this is closed."""

    def __init__(self, buffer: memoryview, size: int) -> None:
        self._buffer = buffer
        self._unread = buffer[:size]

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        count = min(len(target), len(self._unread))
        target[:count] = self._unread[:count]
        self._unread = self._unread[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            _spare_buffers.append(self._buffer)
        super().close()


class BufferStore:
    """Keeps a body of a known length, BUFFER_BYTES at most, where it was received: `room`."""

    def __init__(self, length: int) -> None:
        self.size = 0
        self._buffer = _take_buffer()
        self.room = self._buffer[:length]

    def write(self, piece: Data) -> None:
        count = len(piece)
        if not (isinstance(piece, memoryview) and piece.obj is self._buffer.obj):  # else it is there already
            self.room[:count] = piece
        self.room = self.room[count:]
        self.size += count

    def finish(self) -> BinaryIO:
        """The whole body as a file, positioned at its start. The caller closes it."""
        return cast(BinaryIO, io.BufferedReader(_LentBuffer(self._buffer, self.size)))

    def discard(self) -> None:
        """Drop what was kept, for a request that will never be complete."""
        _spare_buffers.append(self._buffer)


def store_of(length: int, memory_bytes: int) -> "BodyStore | BufferStore":
    """What keeps a body of this length best."""
    if BUFFERED_FROM_BYTES <= length <= min(memory_bytes, BUFFER_BYTES):
        return BufferStore(length)
    return BodyStore(memory_bytes)


class Framing(Protocol):
    """Where a body ends. `feed` keeps what belongs to it and returns how many bytes that was."""

    store: BodyStore | BufferStore
    complete: bool
    trailers: list[tuple[bytes, bytes]]

    def feed(self, data: Data) -> int: ...


class LengthFraming:
    """A body of a known length (Content-Length), which is more than 0."""

    def __init__(self, length: int, memory_bytes: int) -> None:
        self.store = store_of(length, memory_bytes)
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

    def __init__(self, rules: HttpRules) -> None:
        self.store: BodyStore | BufferStore = BodyStore(rules.body_memory_bytes)
        self.complete = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._trailer_bytes = 0
        self._rules = rules
        self._line_bytes = 0  # fed since the last piece of the body: size lines, extensions, trailers
        self._edge = b""  # the last bytes fed, in case an empty line is split
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)
        self.trailers, self._trailer_bytes = [], 0  # without the field in that head

    def on_header(self, name: bytes, value: bytes) -> None:
        self.trailers.append((name, value))
        self._trailer_bytes += len(name) + len(value) + len(": \r\n")
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
            if isinstance(error.__context__, OSError):  # of the store, which the parser calls
                raise error.__context__ from None
            raise bad_request(f"Invalid chunked body: {error}") from None
        self._check_limits()

    def _check_limits(self) -> None:
        """Refuse at once what never ends. The fields that came are looked at when all of them are there."""
        rules = self._rules
        if self._line_bytes > rules.limit_request_field_size and not self.complete:
            raise bad_request(f"Invalid chunked body: a line is longer than {rules.limit_request_field_size} bytes")
        if len(self.trailers) > rules.limit_request_fields:
            raise fields_too_large(f"more than {rules.limit_request_fields} fields after the body")
        if self._trailer_bytes > rules.limit_head:
            raise fields_too_large(f"the fields after the body are longer than {rules.limit_head} bytes")
