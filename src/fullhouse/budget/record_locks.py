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
    _START, _LENGTH, _TYPE = 0, 1, 3

    def _write_lock(start: int, length: int) -> bytes:
        return _FLOCK.pack(start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)
else:
    _FLOCK = struct.Struct("@hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid, padding
    _START, _LENGTH, _TYPE = 2, 3, 0

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
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _write_lock(start, stop - start)))
    if answer[_TYPE] == fcntl.F_UNLCK:
        return None
    first, length = answer[_START], answer[_LENGTH]
    return range(first, first + length if length else stop)  # a length of 0 means "up to any size"


def locked_by_others(descriptor: int, start: int, stop: int) -> Iterator[range]:
    """The locks of other processes in [start, stop), in no order and without overlap.

    Costs two system calls for each lock and one more; neighbouring bytes of one process are one lock.
    """
    unknown = [(start, stop)]
    while unknown:
        low, high = unknown.pop()
        lock = lock_of_another(descriptor, low, high) if low < high else None
        if lock is not None:
            lock = range(max(low, lock.start), min(high, lock.stop))
            unknown += [(low, lock.start), (lock.stop, high)]
            yield lock


def _change(descriptor: int, operation: int, start: int, length: int) -> None:
    try:
        fcntl.lockf(descriptor, operation, length, start, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.ENOLCK:
            raise
        raise ConfigurationError(
            "The file system of the slot file has no record locks left (ENOLCK): use a local one."
        ) from error
