"""The stats board: one file, mapped by all; one row for each worker, written by it alone, read by any process.

A row opens with a sequence number: odd while it is being written. A reader takes a row whose number was even and the
same before and after; it never makes the writer wait. A writer that died while writing leaves an odd number: its row
then reads as what is there, which is at most one update old in part.

A row is taken by a record lock on its first byte, held by the writing process: the kernel gives it back when that
process ends. So a process opens the board once, after its fork, and keeps it open.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from fullhouse.errors import ConfigurationError
from fullhouse.telemetry.tally import BUCKETS

VERSION = 4
ROWS = 256
DATABASES = 8
_MAGIC = b"fullhouse board\0"
_HEADER = struct.Struct("=16sIIII")
_STOPPING = _HEADER.size  # one byte, written by the supervisor alone
_OPENED = struct.Struct("=I")  # the newest generation that serves, written by the supervisor alone ...
_OPENED_AT = _HEADER.size + 4  # ... here
_DUMPS = struct.Struct("=II")  # how many dumps were asked for, as files and for the log, by the supervisor alone ...
_DUMPS_AT = _HEADER.size + 8  # ... here
_TABLE = _HEADER.size + 16
_SEQUENCE = struct.Struct("=Q")
_ROW_SIZE = 1024
_READ_TRIES = 100


@dataclass(frozen=True)
class Counters:
    """What a worker publishes about itself.

    pid, generation: who writes. threads: it has; busy: of them now; queued: requests that wait for one, the oldest
    for oldest_wait_ms. requests, errors (answers of 500 and above), shed (refused early): since its start.
    requests_per_s: of late.
    """

    pid: int = 0
    generation: int = 0
    threads: int = 0
    busy: int = 0
    queued: int = 0
    oldest_wait_ms: int = 0
    requests: int = 0
    errors: int = 0
    shed: int = 0
    requests_per_s: float = 0.0


@dataclass(frozen=True)
class Database:
    """The pool of one alias in one worker. waiting: for a connection. budget: slots of the host, `slots` held here."""

    alias: str
    connections: int
    in_use: int
    idle: int
    waiting: int
    slots: int
    budget: int


_COUNTERS = struct.Struct(f"={len(fields(Counters)) - 1}Qd")
_LATENCY = struct.Struct(f"={BUCKETS}Q")
_DATABASE = struct.Struct("=32s6Q")


@dataclass(frozen=True)
class Row:
    """One worker as it was at one moment. latency: requests by bucket, as in `tally`."""

    counters: Counters
    latency: tuple[int, ...]
    databases: tuple[Database, ...]


def dump_path(board: Path, number: int, pid: int) -> Path:
    """Where a worker writes the dump of this number."""
    return board.with_suffix(f".dump-{number}-{pid}")


def create(path: Path) -> None:
    """Make an empty board, in place of any that is there. Raises ConfigurationError where there is no room for it."""
    header = _HEADER.pack(_MAGIC, VERSION, ROWS, _ROW_SIZE, BUCKETS)
    path.unlink(missing_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            # Not ftruncate: a worker that wrote to a page for which there is no room then would die of SIGBUS.
            file.write(header.ljust(_TABLE + ROWS * _ROW_SIZE, b"\0"))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigurationError(f"The stats board {path} cannot be written: {error.strerror}. Make room.") from error


def _open(path: Path, flags: int) -> tuple[int, mmap.mmap]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE if flags & os.O_RDWR else mmap.ACCESS_READ)
        found = _HEADER.unpack_from(memory)
        if found != (_MAGIC, VERSION, ROWS, _ROW_SIZE, BUCKETS):
            raise ConfigurationError(f"{path} is not a stats board of this version: restart the server.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, memory


class Writer:
    """A worker's own row. One thread of it calls `write`; any may ask what the supervisor has published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor, self._memory = _open(path, os.O_RDWR)
        self._start = self._claim()

    @property
    def dumps_wanted(self) -> tuple[int, int]:
        """How many dumps were asked for since the site's start: as files, and for the log."""
        files, in_log = _DUMPS.unpack_from(self._memory, _DUMPS_AT)
        return int(files), int(in_log)

    @property
    def site_is_stopping(self) -> bool:
        """Whether the supervisor has begun to stop the whole site."""
        return self._memory[_STOPPING] != 0

    @property
    def opened_generation(self) -> int:
        """The newest generation that serves; 0 before the first does."""
        return int(_OPENED.unpack_from(self._memory, _OPENED_AT)[0])

    def write(self, row: Row) -> None:
        """Replace the row. Databases beyond the number that a row holds are left out."""
        data = _COUNTERS.pack(*astuple(row.counters)) + _LATENCY.pack(*row.latency) + _packed(row.databases)
        (sequence,) = _SEQUENCE.unpack_from(self._memory, self._start)
        sequence |= 1  # a writer before us may have died while writing
        _SEQUENCE.pack_into(self._memory, self._start, sequence)
        begin = self._start + _SEQUENCE.size
        self._memory[begin : begin + len(data)] = data
        _SEQUENCE.pack_into(self._memory, self._start, sequence + 1)

    def _claim(self) -> int:
        for row in range(ROWS):
            start = _TABLE + row * _ROW_SIZE
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
            except OSError:
                continue
            return start
        raise ConfigurationError(f"The stats board has {ROWS} rows, and each is taken: run fewer workers.")


def _packed(databases: Sequence[Database]) -> bytes:
    rows = [_DATABASE.pack(one.alias.encode()[:32], *astuple(one)[1:]) for one in databases[:DATABASES]]
    return b"".join(rows).ljust(DATABASES * _DATABASE.size, b"\0")


class Board:
    """The supervisor's end: reads every row, and publishes which generation serves, and that the site stops."""

    def __init__(self, path: Path) -> None:
        self._descriptor, self._memory = _open(path, os.O_RDWR)

    def tell_stopping(self) -> None:
        self._memory[_STOPPING] = 1

    def tell_opened(self, generation: int) -> None:
        _OPENED.pack_into(self._memory, _OPENED_AT, generation)

    def ask_dump(self, *, in_log: bool = False) -> int:
        """Have every worker write what its threads are at, into a file (`dump_path`) or its log; the dump's number."""
        files, logged = _DUMPS.unpack_from(self._memory, _DUMPS_AT)
        files, logged = (files, logged + 1) if in_log else (files + 1, logged)
        _DUMPS.pack_into(self._memory, _DUMPS_AT, files, logged)
        return int(files)

    def rows(self) -> Iterator[Row]:
        """Every row that was ever written; whether its process lives is for the caller to know."""
        for row in range(ROWS):
            found = self._read(_TABLE + row * _ROW_SIZE)
            if found.counters.pid:
                yield found

    def close(self) -> None:
        self._memory.close()
        os.close(self._descriptor)

    def _read(self, start: int) -> Row:
        size = _COUNTERS.size + _LATENCY.size + DATABASES * _DATABASE.size
        for _ in range(_READ_TRIES):
            (before,) = _SEQUENCE.unpack_from(self._memory, start)
            data = self._memory[start + _SEQUENCE.size : start + _SEQUENCE.size + size]
            (after,) = _SEQUENCE.unpack_from(self._memory, start)
            if before == after and not before & 1:
                break
        return _unpacked(data)


def _unpacked(data: bytes) -> Row:
    databases = _DATABASE.iter_unpack(data[_COUNTERS.size + _LATENCY.size :])
    return Row(
        Counters(*_COUNTERS.unpack_from(data)),
        _LATENCY.unpack_from(data, _COUNTERS.size),
        tuple(
            Database(alias.rstrip(b"\0").decode(errors="replace"), *numbers)
            for alias, *numbers in databases
            if alias[0]
        ),
    )
