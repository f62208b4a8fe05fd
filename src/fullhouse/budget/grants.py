"""Which slots of a fleet this host may use, and until when: lent by its keeper, in a file beside the slot file.

    header              how many hosts the plan has room for; until when the grants hold, in seconds of the host's
                        monotonic clock; how many slots the host is entitled to; whether others want what is idle here
    HEADER + slot       1: granted
    KEEPER              locked by the keeper, as long as it lives
    ELECTION            locked by a process that is to become the keeper

An empty file: there is no fleet, and every slot is the host's. A process asks *after* it has locked a slot; the keeper
takes a grant back *before* it looks at that lock: so one of the two sees the other. And a process looks whether the
keeper lives *before* it reads the header, which a new keeper clears before it says that it lives: so what a dead one
has granted is never taken for the grant of its successor.
"""

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fullhouse.record_locks import lock_of_another, try_lock, unlock

KEEPER = 2**40
ELECTION = 2**40 + 1
_MOST_HOSTS = struct.Struct("=q")
_HEADER = struct.Struct("=qdii")
_GRANTED = b"\x01"


class Terms(NamedTuple):
    """most_hosts: keepers that the plan has room for. until: in monotonic seconds. entitled: slots that the host may
    count on. wanted: others want what is idle."""

    most_hosts: int
    until: float = 0.0
    entitled: int = 0
    wanted: bool = False


def file_of(slot_file: Path) -> Path:
    """Where the grants of a slot file are."""
    return slot_file.with_name(f"{slot_file.name}.fleet")


class Grants:
    """The grants of one slot file, as any process of the host sees them."""

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor = descriptor
        self._clock = clock

    @property
    def is_fleet(self) -> bool:
        return os.fstat(self._descriptor).st_size > 0

    def found(self, most_hosts: int) -> None:
        """Have the slots belong to a fleet of at most so many hosts; none is granted yet."""
        if not self.is_fleet:
            self.renew(Terms(most_hosts))
        else:  # apart from what the keeper writes meanwhile
            os.pwrite(self._descriptor, _MOST_HOSTS.pack(most_hosts), 0)

    def dissolve(self) -> None:
        """Every slot is the host's."""
        os.ftruncate(self._descriptor, 0)

    def allows(self, slot: int) -> bool:
        """Whether a session may be opened on the slot, which this process has locked."""
        if not self.is_fleet:
            return True
        return self.has_keeper and self._clock() < self.terms.until and self._byte(slot) == _GRANTED

    @property
    def has_keeper(self) -> bool:
        """Whether a keeper lives. Not for the keeper itself."""
        return lock_of_another(self._descriptor, KEEPER, KEEPER + 1) is not None

    @property
    def terms(self) -> Terms:
        header = os.pread(self._descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return Terms(0)
        most_hosts, until, entitled, wanted = _HEADER.unpack(header)
        return Terms(most_hosts, until, entitled, bool(wanted))

    def revoke(self, slot: int) -> None:
        """No further session may be opened on the slot. Also by a process that found another session on it."""
        os.pwrite(self._descriptor, b"\x00", _HEADER.size + slot)

    def _byte(self, slot: int) -> bytes:
        return os.pread(self._descriptor, 1, _HEADER.size + slot)

    # -- For the keeper ----------------------------------------------------------------------------------------------

    def try_to_keep(self) -> bool:
        """Become the keeper of this host, with nothing granted; False: there is one."""
        if not try_lock(self._descriptor, ELECTION):
            return False
        try:
            if self.has_keeper:
                return False
            self.renew(Terms(self.terms.most_hosts))
            os.ftruncate(self._descriptor, _HEADER.size)  # never 0, which says that there is no fleet
            return try_lock(self._descriptor, KEEPER)
        finally:
            unlock(self._descriptor, ELECTION, 1)

    def renew(self, terms: Terms) -> None:
        os.pwrite(self._descriptor, _HEADER.pack(*terms), 0)

    def grant(self, slot: int) -> None:
        os.pwrite(self._descriptor, _GRANTED, _HEADER.size + slot)

    def granted(self, budget: int) -> frozenset[int]:
        flags = os.pread(self._descriptor, budget, _HEADER.size)
        return frozenset(slot for slot, flag in enumerate(flags) if flag)
