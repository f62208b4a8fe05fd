"""The slots of one host as its keeper sees them: which its processes hold, and which they may take.

For a process that has no pool on the same slot file: the kernel does not show a process its own locks. What the host
does not own the keeper locks itself, where it can, so that the pools see it as taken and share the rest fairly.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from fullhouse.budget import grants, resting
from fullhouse.budget.grants import Grants, Terms
from fullhouse.budget.resting import Resting
from fullhouse.budget.slots import CLAIMS, CLAIMS_END, MAX_BUDGET, WAITING, WANTING
from fullhouse.fleet.core import HostView
from fullhouse.private_folder import open_private_file, open_private_folder
from fullhouse.record_locks import lock_of_another, lock_shared, locked_by_others, try_lock, unlock


class Host:
    """The keeper's hold on one slot file. Made once for each process: closing a descriptor would drop its locks."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        folder = open_private_folder(path.parent)
        self._slots = open_private_file(path, folder)
        self._resting = Resting(open_private_file(resting.file_of(path), folder))
        self._resting.clock = clock
        self.grants = Grants(open_private_file(grants.file_of(path), folder), clock)
        self._withheld: set[int] = set()
        self._announced = False

    @property
    def budget(self) -> int:
        """Slots of all hosts; 0 where none are planned."""
        return os.fstat(self._slots).st_size

    def plan(self, budget: int, most_hosts: int) -> None:
        self.grants.found(most_hosts)
        os.ftruncate(self._slots, budget)

    def is_used(self) -> bool:
        """Whether a process of this host has a pool on these slots."""
        held = lock_of_another(self._slots, 0, MAX_BUDGET)
        return (held or lock_of_another(self._slots, CLAIMS, CLAIMS_END)) is not None

    def view(self) -> HostView:
        used = frozenset(slot for run in locked_by_others(self._slots, 0, MAX_BUDGET) for slot in run)
        return HostView(
            used, self.grants.granted(self.budget), lock_of_another(self._slots, WANTING, WANTING + 1) is not None
        )

    def lend(self, slots: Collection[int]) -> None:
        """Let the processes of this host take them."""
        for slot in slots:
            self.grants.grant(slot)
            if slot in self._withheld:
                self._withheld.remove(slot)
                unlock(self._slots, slot, 1)

    def withdraw(self, slot: int) -> bool:
        """Let no process take it. Whether no session of this host stands on it any more, as the server sees it."""
        self.grants.revoke(slot)
        if slot not in self._withheld and try_lock(self._slots, slot):
            self._withheld.add(slot)
        return slot in self._withheld and self._resting.is_over(slot)

    def withhold(self, slots: Iterable[int]) -> None:
        """Let the pools see that these are taken."""
        for slot in slots:
            if slot not in self._withheld:
                self.withdraw(slot)

    def announce(self, *, waiting: bool) -> None:
        """Ask the pools above their share for what they do not need, as a pool that waits does."""
        if waiting and not self._announced:
            lock_shared(self._slots, WAITING, 1)
        if self._announced and not waiting:
            unlock(self._slots, WAITING, 1)
        self._announced = waiting

    def renew(self, until: float = 0.0, entitled: int = 0, *, wanted: bool = False) -> None:
        """Set the terms of what is lent."""
        self.grants.renew(Terms(self.grants.terms.most_hosts, until, entitled, wanted))

    def withdraw_all(self) -> None:
        """Lend nothing."""
        self.renew()
        self.withhold(range(self.budget))
