"""What the state want done outside the pool's lock. Each but `WakeAt` is reported back to the state."""

import dataclasses
from typing import Generic

from fullhouse.pool.protocols import C
from fullhouse.pool.sessions import Session


class Attempt:
    """The intention to open one session. thread: the one that connects, once it does."""

    thread: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """Acquire a slot and connect, and report to `opened`, `open_failed` or `slot_missing`."""

    attempt: Attempt


@dataclasses.dataclass(frozen=True, slots=True)
class Check(Generic[C]):
    """See whether the session is alive, and report to `vetted`."""

    session: Session[C]


@dataclasses.dataclass(frozen=True, slots=True)
class Reset(Generic[C]):
    """Make the session like new, and report to `vetted`."""

    session: Session[C]


@dataclasses.dataclass(frozen=True, slots=True)
class Close(Generic[C]):
    """Close the session and release its slot, and report to `closed`."""

    session: Session[C]


@dataclasses.dataclass(frozen=True, slots=True)
class WakeAt:
    """Call `tick` at that time."""

    due: float


Action = Open | Check[C] | Reset[C] | Close[C] | WakeAt
