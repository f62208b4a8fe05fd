"""The ledger of a fleet: locks of sessions on the database server, which lets them go when a session is really gone.

Of each database user, by letter and number:

    h i     keeper i lives
    s i     keeper i has the same budget as who looks for it, and speaks the same version of this protocol
    w i     its host waits for slots that it is entitled to
    v i     its host wants more than that
    a k     slot k is the host's whose keeper holds it
    b k     a session stands on slot k: its fence, which it takes as its first statement
"""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from fullhouse.errors import ConfigurationError

VERSION = 1
# What a keeper's session may be silent for before its server ends it.
SILENCE_S = 8


class FleetRefusedError(ConfigurationError):
    """What stands there cannot keep a ledger, or has no room for another host."""


def no_room(most_hosts: int) -> FleetRefusedError:
    return FleetRefusedError(
        f"{most_hosts} hosts have joined, and the reserve has room for as many keepers, a session each: raise the "
        "reserve (--reserve), the same on every host"
    )


@dataclass(frozen=True)
class View:
    """The ledger at one moment. Sessions are named by the server's numbers for them.

    me: the session that looks. hosts: of each living keeper. owners: of each slot (a); fences: that stands on each (b).
    same: keepers with our budget. sessions: all of our database user.
    """

    me: int
    hosts: Mapping[int, int]
    owners: Mapping[int, int] = field(default_factory=dict)
    fences: Mapping[int, int] = field(default_factory=dict)
    waiting: Set[int] = frozenset()
    wanting: Set[int] = frozenset()
    same: Set[int] = frozenset()
    sessions: Set[int] = frozenset()

    @property
    def number(self) -> int | None:
        """Of the keeper that looks; None: its session has lost its lock."""
        return next((number for number, session in self.hosts.items() if session == self.me), None)

    @property
    def owned(self) -> set[int]:
        """Slots of the host that looks."""
        return {slot for slot, session in self.owners.items() if session == self.me}


class Ledger(Protocol):
    """One keeper's session with the server. Whatever it raises, the session is given up, and the keeper joins anew."""

    def join(self, most_hosts: int, budget: int) -> int:
        """Take the first free h; its number. Raises FleetRefusedError."""

    def look(self, most_hosts: int, budget: int) -> View:
        """Everything, by one statement where that can be."""

    def glance(self, most_hosts: int) -> View:
        """Only which keepers live, and who waits or wants more: much cheaper than a look at a long ledger."""

    def take(self, slots: Collection[int]) -> set[int]:
        """Try to become the owner of these slots; of which it worked."""

    def give(self, slots: Collection[int]) -> None:
        """Own these slots no more."""

    def fenced(self, slots: Collection[int]) -> set[int]:
        """On which of these slots a session stands now."""

    def say(self, number: int, *, waiting: bool, wanting: bool) -> None:
        """Let the other keepers know."""

    def end(self, slot: int, session: int) -> None:
        """End a session of our own user that stands on a slot which nobody owns."""

    def addresses(self, view: View) -> Mapping[int, str]:
        """Where each keeper's host connects from."""

    def close(self) -> None:
        """Say goodbye. Must not raise."""
