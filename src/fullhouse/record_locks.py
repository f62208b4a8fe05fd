"""POSIX record locks on byte ranges of a file: the one module that knows their `fcntl` structures.

A record lock belongs to a process and a file, not to a descriptor: a forked child does not inherit it, the
kernel drops it when the process ends, and closing *any* descriptor of the file drops all of the process's
locks on it. A process never sees its own locks as obstacles, so everything here that looks at locks is
about other processes only. No function waits.
"""

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator

from fullhouse.errors import ConfigurationError

# struct flock of the 64-bit systems, in the order of <fcntl.h>.
if sys.platform == "darwin":
    _FLOCK = struct.Struct("@qqihh")  # l_start, l_len, l_pid, l_type, l_whence
    _START, _LENGTH, _PID, _TYPE = 0, 1, 2, 3

    def _write_lock(start: int, length: int) -> bytes:
        return _FLOCK.pack(start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)
else:
    _FLOCK = struct.Struct("@hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid, padding
    _START, _LENGTH, _PID, _TYPE = 2, 3, 4, 0

    def _write_lock(start: int, length: int) -> bytes:
        return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)


def try_lock(descriptor: int, byte: int) -> bool:
    """Lock one byte for this process alone; False if another process has it."""
    try:
        _change(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, byte, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def lock_shared(descriptor: int, start: int, length: int) -> None:
    """Lock `length` > 0 bytes together with any other process that locks them so."""
    _change(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, start, length)


def unlock(descriptor: int, start: int, length: int) -> None:
    """Drop this process's locks on `length` > 0 bytes, whether it has any or not."""
    _change(descriptor, fcntl.LOCK_UN, start, length)


def lock_of_another(descriptor: int, start: int, stop: int) -> range | None:
    """The bytes of any one lock that another process has in [start, stop); they may reach beyond."""
    found = _held_by_another(descriptor, start, stop)
    return found and found[0]


def holder(descriptor: int, byte: int) -> int | None:
    """The pid of another process that has this byte; None where none has, and 0 where it cannot be seen from here."""
    found = _held_by_another(descriptor, byte, byte + 1)
    return found and found[1]


def locked_by_others(descriptor: int, start: int, stop: int) -> Iterator[range]:
    """The locks of other processes in [start, stop), in no order and without overlap.

    Costs two system calls for each lock and one more; neighbouring bytes of one process are one lock.
    """
    return (lock for lock, _ in holders(descriptor, start, stop))


def holders(descriptor: int, start: int, stop: int) -> Iterator[tuple[range, int]]:
    """The same, each with the pid of its process."""
    unknown = [(start, stop)]
    while unknown:
        low, high = unknown.pop()
        found = _held_by_another(descriptor, low, high) if low < high else None
        if found is not None:
            lock = range(max(low, found[0].start), min(high, found[0].stop))
            unknown += [(low, lock.start), (lock.stop, high)]
            yield lock, found[1]


def _held_by_another(descriptor: int, start: int, stop: int) -> tuple[range, int] | None:
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _write_lock(start, stop - start)))
    if answer[_TYPE] == fcntl.F_UNLCK:
        return None
    first, length = answer[_START], answer[_LENGTH]
    return range(first, first + length if length else stop), answer[_PID]  # a length of 0 means "up to any size"


def _change(descriptor: int, operation: int, start: int, length: int) -> None:
    try:
        fcntl.lockf(descriptor, operation, length, start, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.ENOLCK:
            raise
        raise ConfigurationError(
            "The file system of the locked file has no record locks left (ENOLCK): use a local one."
        ) from error
