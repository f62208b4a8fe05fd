"""Which process holds how many slots, seen from outside: a look at a slot file by a process that has no part in it."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fullhouse.budget.slots import MAX_BUDGET
from fullhouse.record_locks import holders


@dataclass(frozen=True)
class Holders:
    """budget: slots that there are; 0 where none are planned. slots: how many, by pid."""

    budget: int
    slots: Mapping[int, int]


def holders_of(path: Path) -> Holders:
    """Raises OSError where there is no such file. Not for a process that has slots of it: the look would drop them."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found: Counter[int] = Counter()
        for slots, pid in holders(descriptor, 0, MAX_BUDGET):
            found[pid] += len(slots)
        return Holders(os.fstat(descriptor).st_size, found)
    finally:
        os.close(descriptor)
