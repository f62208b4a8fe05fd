"""What a keeper does next: pure decisions from a look at the ledger, one at the host, and the time.

The invariants that these rules keep, with those of `grants` and the fence of each session: the sessions of all hosts
never exceed the budget (but for openers that something stops between permission and connect), and a host that waits
with less than its fair share gets a slot while others have more than theirs.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from fullhouse.fleet.ledger import View

REST_S = 1.0
"""After a keeper has vanished, or this one has joined, no slot is taken: an opener whose permission the vanished one
gave may be about to connect, and its session is not in the ledger before its first statement."""
ORPHAN_S = 5.0
"""A session whose host has had no keeper for so long may be ended for a host below its share. A keeper's process that
was killed is back within two seconds; a host that was cut off has been silent for SILENCE_S before."""
QUIET_S = 2.0
"""When no host has waited for so long, each takes its fair share before it needs it."""


@dataclass(frozen=True)
class HostView:
    """The slots of this host. used: those that its processes hold. granted: those that they may take.

    wants: one of them waits for a slot.
    """

    used: Set[int] = frozenset()
    granted: Set[int] = frozenset()
    wants: bool = False


@dataclass(frozen=True)
class Decision:
    """take: slots to own. lend: owned ones that the host's processes may have. give: those to own no more, as soon as
    nothing here stands on them. adopt: those that sessions of this host stand on, and nobody owns. end: (slot, session)
    of orphans.

    waiting, wanting: to be said. entitled: slots that the host's pools may count on. excess: slots to collect from them
    for hosts that wait. others_want: what is idle here.
    """

    take: list[int] = field(default_factory=list)
    lend: list[int] = field(default_factory=list)
    give: list[int] = field(default_factory=list)
    adopt: list[int] = field(default_factory=list)
    end: list[tuple[int, int]] = field(default_factory=list)
    waiting: bool = False
    wanting: bool = False
    entitled: int = 1
    excess: int = 0
    others_want: bool = False

    @property
    def is_calm(self) -> bool:
        """Whether nothing moves, and nobody wants that it does."""
        moves = self.take or self.lend or self.give or self.adopt or self.end or self.excess
        return not (moves or self.waiting or self.wanting or self.others_want)


def fair_share(budget: int, hosts: Set[int], number: int) -> int:
    """Slots that host `number` can always get in the end. The remainder goes to those that joined first."""
    rank = sorted(hosts).index(number)
    return budget // len(hosts) + (rank < budget % len(hosts))


class Core:
    """Remembers what one look does not show: since when things are as they are. Times in monotonic seconds."""

    def __init__(self, budget: int, number: int, now: float) -> None:
        self._budget = budget
        self._number = number
        self._rest_until = now + REST_S
        self._hosts: Set[int] = frozenset()  # their sessions
        self._outside: Set[int] | None = None  # sessions that the last look did not see in the ledger
        self._strays: Set[int] = frozenset()
        self._orphans: dict[tuple[int, int], float] = {}  # (slot, session) on slots that nobody owns: since when
        self._quiet_since = now

    def decide(self, view: View, host: HostView, now: float) -> Decision:
        self._remember(view, host, now)
        owned = view.owned
        fair = fair_share(self._budget, set(view.hosts), self._number)
        others_wait = bool(view.waiting - {self._number})
        others_want = bool(view.wanting - {self._number})
        needs = host.wants and not (owned & host.granted) - host.used
        if others_wait or others_want or needs:
            self._quiet_since = now
        idle = owned - host.used
        give = {slot for slot in idle - host.granted if slot in view.fences}  # a session of another host is there
        give |= self._to_give(
            idle, len(owned) - fair, others_wait=others_wait, others_want=others_want and not host.wants
        )
        wanted = self._how_many(len(owned), fair, now, needs=needs, others_wait=others_wait)
        below = needs and len(owned) < fair
        excess = max(0, len(owned) - fair) if others_wait else 0
        return Decision(
            take=self._free(view)[:wanted] if now >= self._rest_until else [],
            lend=sorted(idle - host.granted - give),
            give=sorted(give),
            adopt=sorted(slot for slot in host.used if slot < self._budget and slot not in view.owners),
            end=sorted(one for one, since in self._orphans.items() if now - since >= ORPHAN_S) if below else [],
            waiting=below,
            wanting=needs and not below,
            entitled=max(1, len(owned) - excess),
            excess=excess,
            others_want=others_want,
        )

    def _free(self, view: View) -> list[int]:
        """Slots that this host may try to take; those first that others try last.

        A stray counts as one: a session of our user that was not in the ledger at two looks, so that it is none that is
        just being opened. It may have been cut off before its first statement, or be a person's.
        """
        free = [slot for slot in range(self._budget) if slot not in view.owners and slot not in view.fences]
        start = self._number * self._budget // len(view.hosts)
        ordered = [slot for slot in free if slot >= start] + [slot for slot in free if slot < start]
        return ordered[: max(0, len(free) - len(self._strays))]

    def _how_many(self, owned: int, fair: int, now: float, *, needs: bool, others_wait: bool) -> int:
        """Slots to take now. Beyond the share it borrows step by step, each as large as what there is."""
        if needs and owned < fair:
            return fair - owned
        if needs and not others_wait:
            return max(4, owned)
        if not needs and now - self._quiet_since >= QUIET_S:
            return max(0, fair - owned)
        return 0

    def _to_give(self, idle: Set[int], over: int, *, others_wait: bool, others_want: bool) -> set[int]:
        """What lies above the share, for hosts that wait; all that is not used, for those that want more."""
        if others_wait:
            return set(sorted(idle, reverse=True)[: max(0, over)])
        return set(idle) if others_want else set()

    def _remember(self, view: View, host: HostView, now: float) -> None:
        hosts = frozenset(view.hosts.values())
        if self._hosts - hosts:
            self._rest_until = now + REST_S
        orphans = {pair for pair in view.fences.items() if pair[0] not in view.owners and pair[0] not in host.used}
        self._orphans = {orphan: self._orphans.get(orphan, now) for orphan in orphans}
        outside = view.sessions - hosts.union(view.fences.values())
        self._strays = outside if self._outside is None else outside & self._outside
        self._outside = outside
        self._hosts = hosts
