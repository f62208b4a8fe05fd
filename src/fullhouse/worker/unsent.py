"""What a client's socket did not take of a response at once: kept in memory, or in a file when it is long."""

import os
import socket
from collections.abc import Iterable, Sequence
from typing import Protocol

from fullhouse.worker.http.body import temporary_file

_MORE = getattr(socket, "MSG_MORE", 0)  # keeps Linux from sending the head as a packet of its own
_FILE_PIECE_BYTES = 256 * 1024
_ROUND_BYTES = 4 * 1024 * 1024  # of a file at once: a client that reads as fast as it is sent would keep the loop


class Sender(Protocol):
    """The sending half of a non-blocking socket; BlockingIOError means that it takes nothing now."""

    def fileno(self) -> int: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def sendmsg(self, pieces: Sequence[memoryview], ancillary: tuple[()], flags: int, /) -> int: ...


class FileRange:
    """A part of an open file that belongs to a response. Owns its descriptor."""

    def __init__(self, fd: int, offset: int, count: int, *, sendfile: bool) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count
        self._sendfile = sendfile

    def send_nowait(self, sock: Sender) -> int:
        """Send once; how many bytes went. Raises OSError if the file has become shorter."""
        if self._sendfile:
            sent = os.sendfile(sock.fileno(), self.fd, self.offset, min(self.count, _ROUND_BYTES))
        else:
            piece = os.pread(self.fd, min(self.count, _FILE_PIECE_BYTES), self.offset)
            sent = sock.send(piece) if piece else 0
        if sent == 0:
            raise OSError(f"the file ended {self.count} bytes before the response that is made of it")
        self.offset += sent
        self.count -= sent
        return sent

    def close(self) -> None:
        os.close(self.fd)


class Unsent:
    """The rest of a response: pieces of memory, then perhaps a part of a file. One thread at a time."""

    def __init__(self, pieces: Iterable[bytes | memoryview], file: FileRange | None = None) -> None:
        self._pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self._file = file
        self.sent = 0

    @property
    def kept_bytes(self) -> int:
        """How much of it is in memory."""
        return sum(map(len, self._pieces))

    def send_nowait(self, sock: Sender) -> bool:
        """Send what the socket takes without waiting, or a part of a long file; whether everything is sent.

        Raises OSError when cut.
        """
        try:
            more = _MORE if self._file is not None and self._file.count else 0
            while self._pieces:
                self._forget(sock.sendmsg(self._pieces, (), more))
            stop_at = self.sent + _ROUND_BYTES
            while self._file is not None and self._file.count:
                if self.sent >= stop_at:
                    return False
                self.sent += self._file.send_nowait(sock)
        except BlockingIOError:
            return False
        self.close()
        return True

    def _forget(self, taken: int) -> None:
        self.sent += taken
        while self._pieces and taken >= len(self._pieces[0]):
            taken -= len(self._pieces.pop(0))
        if taken:
            self._pieces[0] = self._pieces[0][taken:]

    def spool(self, memory_bytes: int, *, sendfile: bool) -> None:
        """Move what is in memory to a temporary file if it is more than `memory_bytes`."""
        size = sum(len(piece) for piece in self._pieces)
        if size <= memory_bytes or self._file is not None:
            return
        with temporary_file() as spooled:
            spooled.writelines(self._pieces)
            spooled.flush()
            self._file = FileRange(os.dup(spooled.fileno()), 0, size, sendfile=sendfile)
        self._pieces.clear()

    def close(self) -> None:
        """Free what is kept."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
