"""Slots: the budget of a host for one database user, kept as record locks on one file.

The file is as long as the budget, one byte for each slot; the process with the lock on byte *k* owns slot *k*.
No process has to be running for it, nothing has to be cleaned up, and a killed process gives its slots back;
they rest before they are used again (`resting`). A file without a length has no budget yet: it has one slot, enough
to open the session that asks the server for its limit.

    0 … budget                  slots, locked exclusively
    WAITING                     locked together by all processes with a pool that waits for its share
    WANTING                     in a fleet, locked together by those with a pool that waits for a slot at all
    CLAIMS + pid * CLAIM_SPAN   as many bytes as the pools of process *pid* claim as fair shares

**Fairness.** A pool may take any free slot. A pool that waits with less than its share makes that known; from
then on the pools at or above theirs take nothing, and those above give back what is not in use until a slot
is free. So every pool gets its share in the end, at the pace at which borrowed connections come back. Three
rules keep slots from going to and fro: no pool is asked to go below its share, waiting with the share or more
asks for nothing, and as long as one slot is free no pool gives back another.

**More claims than budget.** During a reload two generations claim, and commands do besides. Shares are then
scaled down in proportion, so that their sum never exceeds the budget: a full file and somebody below the
share always mean that somebody else is above. The new generation gets its part at once, the old one is gone
without a word, and shares are whole again. With more pools than slots some shares are 0: such a pool may
wait for its first slot, and gives it back on demand when idle: the slots are passed round.

**Who owns what.** One `SlotFile` for each file and process, with one descriptor that is never closed, since
closing it would drop the locks. A `Share` for each pool. The kernel does not distinguish the threads of a process,
so each `Share` records what it owns. `SlotFile.mutex` guards all of that, the shares' fields included;
no call waits while holding it. Not to be called from signal handlers or finalisers.
A forked child starts with empty shares and its own locks on the inherited descriptor; its parent keeps
its own. A share claims from its first `acquire_nowait`, so a child without a pool in use claims nothing.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from fullhouse.budget import grants, resting
from fullhouse.budget.grants import Grants
from fullhouse.budget.resting import Resting
from fullhouse.errors import ConfigurationError
from fullhouse.private_folder import open_private_file, open_private_folder
from fullhouse.record_locks import lock_of_another, lock_shared, locked_by_others, try_lock, unlock

MAX_BUDGET = 2**18
"""The largest budget and fair share, in slots: PostgreSQL's `max_connections` ends at 262,143."""

WAITING = 2**40
WANTING = 2**40 + 1
CLAIMS = 2**41
CLAIM_SPAN = 2**20  # claims are shared locks: equal pids in two containers count once, and nothing fails
CLAIMS_END = CLAIMS + 2**22 * CLAIM_SPAN  # Linux gives no process id above 2**22 (PID_MAX_LIMIT)


UNPLANNED = 1
"""Slots of a file whose budget is not set yet."""

_SLUG_LENGTH = 60


def slot_path(folder: Path, server: str, user: str) -> Path:
    """The slot file of one database user on one server: a readable name, made unique by a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{user}-at-{server}".lower()).strip("-")[:_SLUG_LENGTH]
    digest = hashlib.sha256(f"{server}\0{user}".encode()).hexdigest()[:12]
    return folder / f"{slug}-{digest}.slots"


@dataclass(frozen=True)
class SlotStatistics:
    """Slots at one moment. `used` counts every process; it exceeds `budget` after the budget was lowered."""

    budget: int | None
    held: int
    used: int


class SlotFile:
    """The slots of one database user on this host, as this process sees them. Made by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        folder = open_private_folder(path.parent)  # stays open: that protects the file from cleaners
        opened = [folder]
        try:
            for name in (path, resting.file_of(path), grants.file_of(path)):
                opened.append(open_private_file(name, folder))
        except ConfigurationError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        self.descriptor = opened[1]
        self.resting = Resting(opened[2])
        self.grants = Grants(opened[3])
        self.mutex = Lock()
        self.shares: set[Share] = set()  # those that claim, and so all that hold a slot or wait
        self._announced = (False, False)
        self._next = 0

    @classmethod
    def open(cls, path: Path, budget: int | None = None, most_hosts: int | None = None) -> "SlotFile":
        """The slots kept in `path`, created if missing, with `budget` slots for everybody from now on.

        Without `budget`, the budget is what it is. A smaller one takes nothing away from those who hold a
        slot beyond it. With `most_hosts`, the budget is that of a fleet of hosts, and a keeper says which are this
        one's. Raises ConfigurationError if the file or its folder, which must exist, is not private.
        """
        if budget is not None:
            _require_slots("budget", budget)
        key = Path(os.path.realpath(path.parent), path.name)
        with _files_mutex:
            file = _files.get(key) or cls(path)
            _files[key] = file
        if budget is not None:
            if most_hosts is not None:
                file.grants.found(most_hosts)
            if budget != file.budget:
                os.ftruncate(file.descriptor, budget)
            if most_hosts is None:
                file.grants.dissolve()
        return file

    @property
    def budget(self) -> int | None:
        """The number of slots that all processes share; None if it is not set yet."""
        return self.length() or None

    def is_used_by_others(self) -> bool:
        """Whether a pool of another process claims slots here, or holds one."""
        with self.mutex:
            held = lock_of_another(self.descriptor, 0, MAX_BUDGET)
            return (held or lock_of_another(self.descriptor, CLAIMS, CLAIMS_END)) is not None

    def share(self, name: str, fair_share: int) -> "Share":
        """The part of one pool, called `name` in errors: it can always get `fair_share` slots in the end."""
        return Share(self, name, fair_share)

    def statistics(self) -> SlotStatistics:
        """Count the slots; costs about two system calls for each run of slots that one process holds."""
        with self.mutex:
            held = sum(share.held for share in self.shares)
            used = held + sum(map(len, locked_by_others(self.descriptor, 0, MAX_BUDGET)))
        return SlotStatistics(self.budget, held, used)

    # From here on for `Share`, which holds the mutex.

    def length(self) -> int:
        return os.fstat(self.descriptor).st_size

    def slots(self) -> int:
        return self.length() or UNPLANNED

    def entitled(self) -> int:
        """Slots that the pools of this host can count on together: in a fleet, its part of them."""
        return self.grants.terms.entitled if self.grants.is_fleet else self.slots()

    def take_locked(self) -> int | None:
        """Lock a free slot, searching from where one was last seen. An interrupted caller leaks none: a slot
        that no share has recorded is taken again by the next search.
        """
        status = os.fstat(self.descriptor)
        if status.st_nlink == 0:
            raise ConfigurationError(
                f"{self.path} was deleted while in use, so new processes would not see the slots taken: "
                "restart all processes of the site."
            )
        slots = status.st_size or UNPLANNED
        self._next = min(self._next, slots)
        slot = self._search_locked(self._next, slots)
        return self._search_locked(0, self._next) if slot is None else slot

    def give_back_locked(self, slot: int, *, gone: bool) -> None:
        self._free_locked(slot, gone=gone)
        self._next = slot

    def has_free_slot_locked(self) -> bool:
        budget = self.slots()
        ours = sum(slot < budget for share in self.shares for slot in share.slots)
        return ours + sum(map(len, locked_by_others(self.descriptor, 0, budget))) < budget

    def claimed_locked(self) -> int:
        """The sum of the fair shares of all pools on the host."""
        return self._own_claims_locked() + sum(map(len, locked_by_others(self.descriptor, CLAIMS, CLAIMS_END)))

    def claim_locked(self) -> None:
        """Let the other processes see the sum of this process's fair shares."""
        claims = self._own_claims_locked()
        start = CLAIMS + os.getpid() * CLAIM_SPAN
        if claims:
            lock_shared(self.descriptor, start, claims)
        unlock(self.descriptor, start + claims, CLAIM_SPAN - claims)

    def other_waits_locked(self, share: "Share") -> bool:
        """Whether a pool other than `share`, here or in another process, waits with less than its share."""
        for other in self.shares:
            if other is not share and other.waits_locked():
                return True
        return lock_of_another(self.descriptor, WAITING, WAITING + 1) is not None

    def announce_locked(self) -> None:
        """Let the other processes see whether a pool of this one waits: with less than its share, and at all."""
        waits = any(share.waits_locked() for share in self.shares)
        wants = self.grants.is_fleet and any(share.wants_slot for share in self.shares)  # the keeper asks
        for byte, before, now in zip((WAITING, WANTING), self._announced, (waits, wants), strict=True):
            if now and not before:
                lock_shared(self.descriptor, byte, 1)
            if before and not now:
                unlock(self.descriptor, byte, 1)
        self._announced = waits, wants

    def forget_parent(self) -> None:
        """Start with nothing, as a new process does; the kernel has given a forked child no lock either."""
        self.mutex = Lock()
        for share in self.shares:
            share.forget_parent()
        self.shares.clear()
        self._announced = (False, False)

    def _search_locked(self, start: int, stop: int) -> int | None:
        slot = start
        while slot < stop:
            if any(slot in share.slots for share in self.shares):
                slot += 1
            elif taken := lock_of_another(self.descriptor, slot, slot + 1):
                slot = taken.stop
            elif self._is_usable_locked(slot):
                self.resting.hold(slot)
                self._next = slot + 1
                return slot
            else:  # it rests, or another process was faster
                slot += 1
        return None

    def _is_usable_locked(self, slot: int) -> bool:
        """Lock the slot; False, and it is not locked, if another process has it, or if it rests."""
        if not try_lock(self.descriptor, slot):
            return False
        if self.resting.is_over(slot) and self.grants.allows(slot):
            return True
        unlock(self.descriptor, slot, 1)
        return False

    def _free_locked(self, slot: int, *, gone: bool) -> None:
        if gone:
            self.resting.clear(slot)
        else:
            self.resting.begin(slot)
            if self.grants.is_fleet:  # its keeper sees in the ledger when the session has gone, and lends it again
                self.grants.revoke(slot)
        unlock(self.descriptor, slot, 1)

    def _own_claims_locked(self) -> int:
        return sum(share.fair_share for share in self.shares)


class Share:
    """One pool's hold on the slots of a file. Made by `SlotFile.share`; safe to call from any thread."""

    def __init__(self, file: SlotFile, name: str, fair_share: int) -> None:
        _require_slots(f"fair share of {name}", fair_share)
        self.name = name
        self.fair_share = fair_share
        self.slots: set[int] = set()
        self._file = file
        self.wants_slot = False

    @property
    def held(self) -> int:
        """How many slots this pool has."""
        return len(self.slots)

    @property
    def budget(self) -> int:
        """How many slots all processes of this host share."""
        return self._file.entitled()

    def acquire_nowait(self) -> int | None:
        """A slot to stand a new connection on, or None: all are taken, or the last ones are for a pool that
        waits with less than its share. Ask again after a moment, and keep `announce_waiting` on meanwhile.
        """
        with self._file.mutex:
            self._join_locked()
            slot = None if self._lets_others_go_first_locked() else self._file.take_locked()
            if slot is not None:
                self.slots.add(slot)
            self._file.announce_locked()
            return slot

    def release(self, slot: int, *, gone: bool = True) -> None:
        """Give `slot` back. Unless the server has let its session go (`gone`), it rests before anyone uses it.

        Raises ValueError if this pool does not hold it.
        """
        with self._file.mutex:
            if slot not in self.slots:
                raise ValueError(f"Pool {self.name} does not hold slot {slot}, but {sorted(self.slots)}.")
            self.slots.remove(slot)
            self._file.give_back_locked(slot, gone=gone)
            self._file.announce_locked()

    def announce_waiting(self) -> None:
        """Say that this pool needs a slot. Others notice only while it has less than its share."""
        with self._file.mutex:
            self._join_locked()
            self.wants_slot = True
            self._file.announce_locked()

    def withdraw_waiting(self) -> None:
        """Say that this pool needs no further slot: it has one, or the demand is gone."""
        with self._file.mutex:
            self.wants_slot = False
            self._file.announce_locked()

    def must_give_back(self) -> bool:
        """Whether to close a connection that is idle or comes back, and release its slot, instead of keeping
        it or passing it on to a request that waits here.

        True if this pool is above its share while another waits with less than its own and no slot is free.
        Costs one system call while no pool waits.
        """
        with self._file.mutex:
            if not self.slots or not self._file.other_waits_locked(self):
                return False
            return self.held > self._entitled_locked() and not self._file.has_free_slot_locked()

    def others_want_idle(self) -> bool:
        """Whether another host of the fleet would use what is idle here."""
        return self._file.grants.terms.wanted

    def leave(self) -> None:
        """Claim nothing any more, after the last slot was released. The next `acquire_nowait` joins again."""
        with self._file.mutex:
            if self.slots:
                raise ValueError(f"Pool {self.name} leaves but holds the slots {sorted(self.slots)}: release them.")
            self.wants_slot = False
            self._file.shares.discard(self)
            self._file.claim_locked()
            self._file.announce_locked()

    # From here on for `SlotFile`.

    def forget_parent(self) -> None:
        self.slots.clear()
        self.wants_slot = False

    def waits_locked(self) -> bool:
        return self.wants_slot and (not self.slots or self.held < self._entitled_locked())

    def _join_locked(self) -> None:
        if self not in self._file.shares:
            self._file.shares.add(self)
            self._file.claim_locked()

    def _lets_others_go_first_locked(self) -> bool:
        return bool(self.slots) and self._file.other_waits_locked(self) and self.held >= self._entitled_locked()

    def _entitled_locked(self) -> int:
        """The share that this pool can have now, in slots: scaled down while the shares exceed the budget."""
        budget, claimed = self._file.entitled(), self._file.claimed_locked()
        return self.fair_share if claimed <= budget else self.fair_share * budget // claimed


_files: dict[Path, SlotFile] = {}
_files_mutex = Lock()


def _forget_parent() -> None:
    global _files_mutex
    _files_mutex = Lock()
    for file in _files.values():
        file.forget_parent()


os.register_at_fork(after_in_child=_forget_parent)


def _require_slots(name: str, slots: int) -> None:
    if not 0 < slots <= MAX_BUDGET:
        raise ConfigurationError(f"The {name} is {slots} slots: give it 1 to {MAX_BUDGET:,}.")
