"""The body of a request: where it is kept, and where on the connection it ends."""

import io
import mmap
import re
import shutil
import tempfile
from collections import deque
from typing import Any, BinaryIO, Protocol, cast

import httptools

from fullhouse.worker.http.refusal import bad_request, fields_too_large
from fullhouse.worker.http.rules import HttpRules

HEAD_END = b"\r\n\r\n"
Data = bytes | memoryview
# Bodies of these lengths are received into a buffer. It costs memory only as far as it was ever written to.
BUFFERED_FROM_BYTES = 32 * 1024
BUFFER_BYTES = 1024 * 1024
# Used again and again, by any thread: the pages of fresh memory cost more than what is copied into them.
_spare_buffers: deque[memoryview] = deque(maxlen=8)


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
            self._move_to_file()
        self._kept.write(piece)

    def _move_to_file(self) -> None:
        memory, self._kept = self._kept, temporary_file()
        memory.seek(0)
        shutil.copyfileobj(memory, self._kept)
        self._in_memory = False

    @property
    def kept_bytes(self) -> int:
        """How much of it is in memory."""
        return self.size if self._in_memory else 0

    def spooled(self) -> "BodyStore":
        """The store to go on with, which keeps the body in a file."""
        if self._in_memory:
            self._move_to_file()
        return self

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

    @property
    def kept_bytes(self) -> int:
        """How much of it is in memory."""
        return self.size

    def spooled(self) -> BodyStore:
        """The store to go on with, which keeps the body in a file."""
        store = BodyStore(memory_bytes=0).spooled()
        store.write(self._buffer[: self.size])
        self.discard()
        return store

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
    """Where a body ends. `feed` keeps what belongs to it and returns how many bytes that was.

    missing: bytes of the body, or of its present chunk, that have not come. line_bytes: of chunked lines, in memory.
    """

    store: BodyStore | BufferStore
    complete: bool
    trailers: list[tuple[bytes, bytes]]
    missing: int

    @property
    def line_bytes(self) -> int: ...

    def feed(self, data: Data) -> int: ...


class LengthFraming:
    """A body of a known length (Content-Length), which is more than 0."""

    def __init__(self, length: int, memory_bytes: int) -> None:
        self.store = store_of(length, memory_bytes)
        self.complete = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self.missing = length
        self.line_bytes = 0

    def feed(self, data: Data) -> int:
        piece = data if len(data) <= self.missing else data[: self.missing]
        self.store.write(piece)
        self.missing -= len(piece)
        self.complete = self.missing == 0
        return len(piece)


# RFC 9112 section 7.1: the size, and extensions, which are checked and ignored.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*\""
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*\r\n"
)
_CRLF = b"\r\n"


class ChunkedFraming:
    """A chunked body (RFC 9112 section 7.1), which may be cut anywhere on its way.

    Decoded here and not by llhttp, which does not say at which byte a message has ended.
    """

    def __init__(self, rules: HttpRules) -> None:
        self.store: BodyStore | BufferStore = BodyStore(rules.body_memory_bytes)
        self.complete = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._rules = rules
        self.missing = 0
        self._after_data = False  # the line that ends a chunk's data comes next
        self._in_trailers = False
        self._line = b""  # the beginning of a line whose end has not come
        self._trailer_lines: list[bytes] = []
        self._trailer_bytes = 0

    @property
    def line_bytes(self) -> int:
        return len(self._line) + self._trailer_bytes

    def feed(self, data: Data) -> int:
        received = bytes(data)
        at, end = 0, len(received)
        while at < end and not self.complete:
            if self.missing:
                piece = received[at : at + self.missing]
                self.store.write(piece)
                at += len(piece)
                self.missing -= len(piece)
                self._after_data = not self.missing
                self._rules.check_body(self.store.size)
            else:
                at = self._feed_line(received, at)
        return at

    def _feed_line(self, received: bytes, at: int) -> int:
        """Take a line, or what is there of it; where the next byte is."""
        stop = received.find(b"\n", at) + 1 or len(received)
        line = self._line + received[at:stop]
        if len(line) > self._rules.limit_request_field_size + len(_CRLF):
            refuse = fields_too_large if self._in_trailers else bad_request
            raise refuse(f"a line of the chunked body is longer than {self._rules.limit_request_field_size} bytes")
        if line[-1:] == b"\n":
            self._line = b""
            self._take_line(line)
        else:
            self._line = line
        return stop

    def _take_line(self, line: bytes) -> None:
        if self._after_data:
            if line != _CRLF:
                raise bad_request("Invalid chunked body: a chunk is longer than its size")
            self._after_data = False
        elif self._in_trailers:
            self._take_trailer(line)
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise bad_request(f"Invalid chunked body: {line[:40]!r} is no size of a chunk")
            self.missing = int(match[1], 16)
            self._in_trailers = not self.missing
            self._rules.check_body(self.store.size + self.missing)

    def _take_trailer(self, line: bytes) -> None:
        if line == _CRLF:
            self.complete = True
            if self._trailer_lines:
                self.trailers = split_fields(b"".join(self._trailer_lines))
            return
        self._trailer_lines.append(line)
        self._trailer_bytes += len(line)
        rules = self._rules
        if len(self._trailer_lines) > rules.limit_request_fields:
            raise fields_too_large(f"more than {rules.limit_request_fields} fields after the body")
        if self._trailer_bytes > rules.limit_head:
            raise fields_too_large(f"the fields after the body are longer than {rules.limit_head} bytes")


def split_fields(lines: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of these lines, by llhttp's grammar. Raises RefusedError."""
    fields: list[tuple[bytes, bytes]] = []

    class Fields:
        def on_header(self, name: bytes, value: bytes) -> None:
            fields.append((name, value))

    try:
        httptools.HttpRequestParser(Fields()).feed_data(b"GET / HTTP/1.1\r\n" + lines + _CRLF)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise bad_request(f"Invalid chunked body: {error}") from None
    return fields
