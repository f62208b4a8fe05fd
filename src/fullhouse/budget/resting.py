"""When a slot that came free may be used: at once where its session is known to be gone, else after a rest.

The kernel drops the record locks of a process that was killed some milliseconds before it closes its sockets, and the
server notices later still. So the lock of a slot alone does not say that the session on it has ended. One record for
each slot, in a file beside the slot file, says the rest of it:

    0.0         its session has ended
    infinity    a session stands on it, or did when its holder died
    t           it is usable from t on, in seconds of the host's monotonic clock

Only the process with the lock of a slot touches its record.
"""

import math
import os
import struct
import time
from pathlib import Path

REST_S = 0.2
"""Longer than the kernel needs to close the sockets of a killed process, and the server to end its sessions."""

_RECORD = struct.Struct("=d")
_NONE = _RECORD.pack(0.0)
_HELD = _RECORD.pack(math.inf)


def file_of(slot_file: Path) -> Path:
    """Where the records of a slot file are."""
    return slot_file.with_name(f"{slot_file.name}.rest")


class Resting:
    """The records of one slot file; `descriptor` is that of their own file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.clock = time.monotonic  # the same for all processes of the host

    def is_over(self, slot: int) -> bool:
        """Whether a session may be opened on the slot. A slot that was left held begins to rest."""
        record = os.pread(self._descriptor, _RECORD.size, slot * _RECORD.size)
        if len(record) < _RECORD.size or record == _NONE:
            return True
        usable_at, now = _RECORD.unpack(record)[0], self.clock()
        if usable_at > now + REST_S:  # held; or of an earlier boot
            self.begin(slot)
            return False
        return bool(usable_at <= now)

    def begin(self, slot: int) -> None:
        """The slot comes free, and no process has seen its session end."""
        self._write(slot, _RECORD.pack(self.clock() + REST_S))

    def hold(self, slot: int) -> None:
        """A session is about to be opened on the slot."""
        self._write(slot, _HELD)

    def clear(self, slot: int) -> None:
        """The session on the slot has ended, and the server knows it."""
        self._write(slot, _NONE)

    def _write(self, slot: int, record: bytes) -> None:
        os.pwrite(self._descriptor, record, slot * _RECORD.size)
