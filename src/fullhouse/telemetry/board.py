"""The stats board: one file, with a row for each worker, written by it alone, read by any process.

A row opens with a sequence number: odd while it is being written. A reader takes a row whose number was even and the
same before and after; it never makes the writer wait. A writer that died while writing leaves an odd number: its row
then reads as what is there, which is at most one update old in part.

A row is taken by a record lock on its first byte, held by the writing process: the kernel gives it back when that
process ends. So a process opens the board once, after its fork, and keeps it open. Who takes a row goes on counting
from what it finds there: no counter falls, whatever workers do, and the number of the row names a worker for good.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fullhouse.errors import ConfigurationError
from fullhouse.record_locks import holder, try_lock
from fullhouse.telemetry import rows
from fullhouse.telemetry.rows import END_REASONS, DatabaseGauges, Gauges, Row

VERSION = 5
ROWS = 256
_MAGIC = b"fullhouse board\0"
_HEADER = struct.Struct("=16sIIII")
# From here on 64-bit words, since those are written at once: a killed writer leaves the old one or the new one, and a
# reader sees no half of one. (struct.pack_into writes zeros first.) The supervisor alone writes these four, by index:
_STOPPING = _HEADER.size // 8  # not 0 from the beginning of the site's end
_OPENED = _STOPPING + 1  # the newest generation that serves
_DUMPS, _DUMPS_IN_LOG = _OPENED + 1, _OPENED + 2  # how many were asked for, as files and for the log
_PAGE = 4096
_TABLE = _PAGE
_WORD = 8
_END_AT = _WORD  # a byte: why the worker ends, as an index into END_REASONS plus one
_ROW_AT = 2 * _WORD
_ROW_SIZE = -(-(_ROW_AT + rows.SIZE) // _PAGE) * _PAGE
_READ_TRIES = 100


def dump_path(board: Path, number: int, pid: int) -> Path:
    """Where a worker writes the dump of this number."""
    return board.with_suffix(f".dump-{number}-{pid}")


def create(path: Path) -> None:
    """Make an empty board, in place of any that is there. Raises ConfigurationError where there is no room for it."""
    header = _HEADER.pack(_MAGIC, VERSION, ROWS, _ROW_SIZE, rows.SIZE)
    path.unlink(missing_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(header.ljust(_TABLE, b"\0"))
            file.truncate(_TABLE + ROWS * _ROW_SIZE)  # a row has room from its first worker on
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _no_room(path, error) from error


def _no_room(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"The stats board {path} cannot be written: {error.strerror}. Make room.")


def _open(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        found = os.pread(descriptor, _HEADER.size, 0)
        if found != _HEADER.pack(_MAGIC, VERSION, ROWS, _ROW_SIZE, rows.SIZE):
            raise ConfigurationError(f"{path} is not a stats board of this version: restart the server.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Writer:
    """A worker's own row. One thread of it calls `write`; any may ask what the supervisor has published.

    before: the totals of the workers that had it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open(path, os.O_RDWR)
        self._start = self._claim()
        self._memory = mmap.mmap(self._descriptor, 0)
        self._words = memoryview(self._memory).cast("Q")
        self._is_new = True
        self.before = self._take_over()

    @property
    def dumps_wanted(self) -> tuple[int, int]:
        """How many dumps were asked for since the site's start: as files, and for the log."""
        return self._words[_DUMPS], self._words[_DUMPS_IN_LOG]

    @property
    def site_is_stopping(self) -> bool:
        """Whether the supervisor has begun to stop the whole site."""
        return self._words[_STOPPING] != 0

    @property
    def opened_generation(self) -> int:
        """The newest generation that serves; 0 before the first does."""
        return self._words[_OPENED]

    def write(self, row: Row) -> None:
        """Replace the row. Databases beyond the number that a row holds are left out."""
        data = rows.pack(row)
        sequence = self._words[self._start // _WORD] | 1  # a writer before us may have died while writing
        self._words[self._start // _WORD] = sequence
        begin = self._start + _ROW_AT
        self._memory[begin : begin + len(data)] = data
        if self._is_new:
            self._memory[self._start + _END_AT] = 0
            self._is_new = False
        self._words[self._start // _WORD] = sequence + 1

    def tell_end(self, reason: str) -> None:
        """This worker ends, for one of END_REASONS. The first one counts. Safe in a signal handler."""
        if not self._memory[self._start + _END_AT]:
            self._memory[self._start + _END_AT] = END_REASONS.index(reason) + 1

    def _claim(self) -> int:
        for row in range(ROWS):
            start = _TABLE + row * _ROW_SIZE
            if try_lock(self._descriptor, start):
                self._make_room(start)
                return start
        raise ConfigurationError(f"The stats board has {ROWS} rows, and each is taken: run fewer workers.")

    def _make_room(self, start: int) -> None:
        """A worker that wrote to memory for which the disk has no room would die of SIGBUS."""
        if not any(os.pread(self._descriptor, _WORD, start)):
            try:
                os.pwrite(self._descriptor, bytes(_ROW_SIZE), start)
            except OSError as error:
                raise _no_room(self.path, error) from error

    def _take_over(self) -> Row:
        data = self._memory[self._start : self._start + _ROW_SIZE]
        before = _with_end(rows.unpack(data[_ROW_AT:]), data[_END_AT])
        databases = tuple(replace(one, gauges=DatabaseGauges()) for one in before.databases)
        before = replace(before, gauges=Gauges(pid=os.getpid()), databases=databases)
        self.write(before)
        return before


def _with_end(row: Row, end: int) -> Row:
    """The row of a worker that has ended, its end counted."""
    if not row.gauges.pid:
        return row
    reason = END_REASONS[end - 1] if end else "crashed"
    ends = [count + (name == reason) for name, count in zip(END_REASONS, row.totals.ends, strict=True)]
    return replace(row, totals=replace(row.totals, ends=tuple(ends)))


class Board:
    """A reader of every row. It maps nothing: to look at a row that no worker has had yet takes no memory."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _open(path, os.O_RDWR)  # to see the locks of others

    def rows(self) -> Iterator[Row]:
        """Every row that was ever written, the last words of workers that have ended among them."""
        for number in range(ROWS):
            start = _TABLE + number * _ROW_SIZE
            if not any(os.pread(self._descriptor, _WORD, start)):
                continue
            data = self._read(start)
            row = rows.unpack(data[_ROW_AT:], number)
            if row.gauges.pid in (holder(self._descriptor, start), os.getpid()):
                yield row
            else:  # another worker may have the row already, and not have written yet
                yield replace(_with_end(row, data[_END_AT]), lives=False)

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, start: int) -> bytes:
        for _ in range(_READ_TRIES):
            data = os.pread(self._descriptor, _ROW_SIZE, start)
            after = os.pread(self._descriptor, _WORD, start)
            if data[:_WORD] == after and not after[0] & 1:
                break
        return data


class Notice(Board):
    """The supervisor's end: it reads every row, and publishes which generation serves, and that the site stops."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._memory = mmap.mmap(self._descriptor, _TABLE)
        self._words = memoryview(self._memory).cast("Q")

    def tell_stopping(self) -> None:
        self._words[_STOPPING] = 1

    def tell_opened(self, generation: int) -> None:
        self._words[_OPENED] = generation

    def ask_dump(self, *, in_log: bool = False) -> int:
        """Have every worker write what its threads are at, into a file (`dump_path`) or its log; the dump's number."""
        self._words[_DUMPS_IN_LOG if in_log else _DUMPS] += 1
        return self._words[_DUMPS]

    def close(self) -> None:
        self._words.release()
        self._memory.close()
        super().close()
