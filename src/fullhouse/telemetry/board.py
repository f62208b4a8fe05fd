"""The stats board: one file, mapped by all; one row for each worker, written by it alone, read by anybody.

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
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from fullhouse.errors import ConfigurationError

VERSION = 1
ROWS = 256
# Bucket k counts the requests of less than 2**k milliseconds, and not less than half of it; the last, all others.
BUCKETS = 16
_MAGIC = b"fullhouse board\0"
_HEADER = struct.Struct("=16sIIII")
_SEQUENCE = struct.Struct("=Q")
_ROW_SIZE = 512
_READ_TRIES = 100


@dataclass
class Counters:
    """What a worker tells. Numbers only go up, except those that say how many there are now.

    pid, generation: who writes. threads, busy, queued: of the worker now. errors: answers of 500 and above. shed:
    requests refused early. connections, idle, waiting, slots: of its pools, now.
    """

    pid: int = 0
    generation: int = 0
    threads: int = 0
    busy: int = 0
    queued: int = 0
    requests: int = 0
    errors: int = 0
    shed: int = 0
    connections: int = 0
    idle: int = 0
    waiting: int = 0
    slots: int = 0


_NAMES = [field.name for field in fields(Counters)]
_ROW = struct.Struct(f"={len(_NAMES)}Q{BUCKETS}Q")


@dataclass(frozen=True)
class Row:
    """One worker as it was at one moment. latency: requests by bucket."""

    counters: Counters
    latency: tuple[int, ...]


def create(path: Path) -> None:
    """Make an empty board, in place of any that is there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, _HEADER.size + ROWS * _ROW_SIZE)
        os.write(descriptor, _HEADER.pack(_MAGIC, VERSION, ROWS, _ROW_SIZE, BUCKETS))
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> tuple[int, mmap.mmap]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE if flags & os.O_RDWR else mmap.ACCESS_READ)
        found = _HEADER.unpack_from(memory)
        if found != (_MAGIC, VERSION, ROWS, _ROW_SIZE, BUCKETS):
            raise ConfigurationError(f"{path} is no stats board of this version: restart the server.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, memory


class Writer:
    """A worker's own row. Threads of the worker may call it at once: `_lock` guards the counters and the row."""

    def __init__(self, path: Path, pid: int, generation: int, threads: int) -> None:
        self._descriptor, self._memory = _open(path, os.O_RDWR)
        self._start = self._claim()
        self._lock = threading.Lock()
        self._counters = Counters(pid=pid, generation=generation, threads=threads)
        self._latency = [0] * BUCKETS
        self._write_locked()

    def began(self) -> None:
        """A thread has begun a request."""
        with self._lock:
            self._counters.busy += 1
            self._write_locked()

    def finished(self, duration_s: float, *, failed: bool) -> None:
        """The thread has finished it; `failed` says whether the server is to blame."""
        with self._lock:
            self._counters.busy -= 1
            self._counters.requests += 1
            self._counters.errors += failed
            self._latency[min(int(duration_s * 1000).bit_length(), BUCKETS - 1)] += 1
            self._write_locked()

    def set(self, **values: int) -> None:
        """Overwrite counters by name, such as those of the pools."""
        with self._lock:
            for name, value in values.items():
                setattr(self._counters, name, value)
            self._write_locked()

    def close(self) -> None:
        """Clear the row and leave it to another worker."""
        with self._lock:
            self._counters, self._latency = Counters(), [0] * BUCKETS
            self._write_locked()
            self._memory.close()
            os.close(self._descriptor)

    def _claim(self) -> int:
        for row in range(ROWS):
            start = _HEADER.size + row * _ROW_SIZE
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
            except OSError:
                continue
            return start
        raise ConfigurationError(f"The stats board has {ROWS} rows, and each is taken: run fewer workers.")

    def _write_locked(self) -> None:
        (sequence,) = _SEQUENCE.unpack_from(self._memory, self._start)
        sequence |= 1  # a writer before us may have died while writing
        _SEQUENCE.pack_into(self._memory, self._start, sequence)
        values = [getattr(self._counters, name) for name in _NAMES]
        _ROW.pack_into(self._memory, self._start + _SEQUENCE.size, *values, *self._latency)
        _SEQUENCE.pack_into(self._memory, self._start, sequence + 1)


class Reader:
    """Reads the board; takes part in nothing."""

    def __init__(self, path: Path) -> None:
        self._descriptor, self._memory = _open(path, os.O_RDONLY)

    def rows(self) -> Iterator[Row]:
        """Every row that was ever written and not cleared; whether its process lives is for the caller to know."""
        for row in range(ROWS):
            found = self._read(_HEADER.size + row * _ROW_SIZE)
            if found.counters.pid:
                yield found

    def close(self) -> None:
        self._memory.close()
        os.close(self._descriptor)

    def _read(self, start: int) -> Row:
        for _ in range(_READ_TRIES):
            (before,) = _SEQUENCE.unpack_from(self._memory, start)
            values = _ROW.unpack_from(self._memory, start + _SEQUENCE.size)
            (after,) = _SEQUENCE.unpack_from(self._memory, start)
            if before == after and not before & 1:
                break
        return Row(Counters(*values[: len(_NAMES)]), values[len(_NAMES) :])
