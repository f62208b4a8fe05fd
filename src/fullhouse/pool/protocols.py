"""What the pool asks of others: a database driver, the host's slots, and threads to work in."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

C = TypeVar("C")
"""A driver's connection. The pool hands it around and never looks inside."""


class Driver(Protocol[C]):
    """One adapter per database driver. The pool calls it from its background threads, never under its lock.

    A call that hangs costs a background thread and its slot until it returns, so an adapter gives its
    connections socket timeouts. The pool's borrowers are not delayed by it beyond their deadlines.
    """

    def connect(self, slot: int) -> C:
        """Open a session on the slot, ready for use; raises the driver's own errors."""

    def lifetime_limit_s(self, connection: C) -> float | None:
        """Seconds after which the server may end a session by itself (MySQL's `wait_timeout`); None: never.

        Asked once, right after `connect`; must not raise.
        """

    def close(self, connections: Sequence[C]) -> Sequence[bool]:
        """Say goodbye on each wire, close, and wait for the server, in bounded time and for all at once.

        Returns for each whether the server has let its session go. Must not raise, whatever state they are in.
        """

    def abandon(self, connection: C) -> None:
        """Drop the object without a byte on the wire, now and when it is collected. Must not raise.

        After a fork the session belongs to the parent.
        """

    def check(self, connection: C) -> bool:
        """Whether the session is still alive, by one cheap round trip."""

    def reset(self, connection: C) -> bool:
        """Make a connection whose session state was changed like new; False: it cannot be, discard it."""

    def server_full(self, error: Exception) -> bool:
        """Whether `connect` failed because the server has no session left (1040, 53300), and is not down."""


class Slots(Protocol):
    """This pool's share of the host's budget. Every method returns at once; any thread may call it."""

    @property
    def held(self) -> int:
        """How many slots this pool holds."""

    @property
    def budget(self) -> int:
        """How many slots the host has."""

    def acquire_nowait(self) -> int | None:
        """Take a slot; None: none is free, or others are in need and this pool has its fair share.

        What it raises counts as a failed connect.
        """

    def release(self, slot: int, *, gone: bool) -> None:
        """Give a slot back. `gone`: no session stands on it any more, as the server has said."""

    def announce_waiting(self) -> None:
        """Tell the host's other pools that this one needs a slot."""

    def withdraw_waiting(self) -> None:
        """Take the announcement back."""

    def must_give_back(self) -> bool:
        """Whether this pool holds more than its fair share while another one waits."""

    def others_want_idle(self) -> bool:
        """Whether another host would use what is idle here."""


class Background(Protocol):
    """Where the pool's work happens. Tests pass one that they turn by hand."""

    def run_connect(self, job: Callable[[], None]) -> None:
        """Run `job`, which opens a connection and may hang, soon."""

    def run_upkeep(self, job: Callable[[], None]) -> None:
        """Run `job`, which checks or resets a connection, soon."""

    def run_close(self, job: Callable[[], None]) -> None:
        """Run `job`, which closes a connection and waits for the server, soon."""

    def wake_at(self, due: float, tick: Callable[[], None]) -> None:
        """Call `tick`, which never blocks, at the time `due` of the pool's clock; the earliest `due` wins."""

    def forget(self) -> None:
        """In the child of a fork: there are no threads any more."""
