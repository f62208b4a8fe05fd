"""The keeper of one host's slots: carries out what `core` decides, between the ledger and the host's processes.

One thread. It lends for GRANT_S after the last answer of its server: a keeper that is stopped, or cut off, lends
nothing soon, and one that died lends nothing at once (see `grants`).
"""

import time
from collections.abc import Callable, Sequence

from fullhouse.fleet.core import Core, Decision, HostView
from fullhouse.fleet.host import Host
from fullhouse.fleet.ledger import Ledger, View

GRANT_S = 1.5
"""Less than SILENCE_S, after which the server ends the session of a keeper, by more than a connect may take."""
TICK_S = 0.25
SLOWEST_TICK_S = 0.75
"""A tick later than this, and the grants would end between two looks."""
LOOKS = 10_000
"""Hosts × slots of which each tick reads the whole ledger. With more, ticks are longer, and in calm a glance does."""
WHOLE_EVERY_S = 5.0
"""Between two looks at the whole ledger in calm."""
COLLECT_EVERY_S = 0.02
"""Between two looks for what pools give back: as often as a pool gives back one (pool.state.GIVE_BACK_EVERY_S)."""


class LostError(Exception):
    """The session that keeps the slots is not there any more, or has lost its locks."""


class Keeper:
    """Joins when it is made. `tick` until it raises; then make another."""

    def __init__(self, ledger: Ledger, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._host = host
        self._most_hosts = host.grants.terms.most_hosts
        self._clock = clock
        self.budget = host.budget
        self.number = ledger.join(self._most_hosts, self.budget)
        self._core = Core(self.budget, self.number, clock())
        self._said = (False, False)
        self._given: set[int] = set()  # since the last look
        self._last: tuple[View, Decision] | None = None
        self._looked_at = clock()

    def tick(self) -> tuple[View, Decision]:
        """Look, and do what follows. Raises LostError, or what the driver raises: then nothing is lent any more."""
        if self._host.budget != self.budget:
            raise LostError("the budget has changed")
        asked_at = self._clock()
        host = self._host.view()
        if self._last is not None and self._is_still_calm(*self._last, host, asked_at):
            decision = self._last[1]
            self._host.renew(asked_at + GRANT_S, decision.entitled)
            return self._last
        view = self._ledger.look(self._most_hosts, self.budget)
        if view.number != self.number:
            raise LostError("the session has lost its locks")
        self._looked_at = asked_at
        decision = self._core.decide(view, host, asked_at)
        self._given = set()
        self._give(decision.give)
        for slot, session in decision.end:
            self._ledger.end(slot, session)
        if decision.adopt:
            self._ledger.take(decision.adopt)
        new = self._take(decision)
        self._host.withhold(set(range(self.budget)) - view.owned - new)
        self._host.lend([*decision.lend, *new])
        if (decision.waiting, decision.wanting) != self._said:
            self._said = decision.waiting, decision.wanting
            self._ledger.say(self.number, waiting=decision.waiting, wanting=decision.wanting)
        self._host.announce(waiting=decision.excess > 0)
        self._host.renew(asked_at + GRANT_S, decision.entitled, wanted=decision.others_want)
        self._last = view, decision
        return view, decision

    def _is_still_calm(self, before: View, decision: Decision, host: HostView, now: float) -> bool:
        """Whether a glance shows that nothing has to be done, on a ledger that is long."""
        is_long = len(before.hosts) * self.budget > LOOKS
        if not is_long or host.wants or not decision.is_calm or now - self._looked_at >= WHOLE_EVERY_S:
            return False
        found = self._ledger.glance(self._most_hosts)
        return found.hosts == before.hosts and not (found.waiting or found.wanting)

    def _take(self, decision: Decision) -> set[int]:
        """Slots that are this host's from now on, and have no session on them."""
        taken = self._ledger.take(decision.take) if decision.take else set()
        return taken - self._ledger.fenced(taken) if taken else taken

    def collect(self, view: View, excess: int) -> int:
        """Give back what pools have let go, up to `excess` slots. How many it were."""
        idle = view.owned - self._host.view().used - self._given
        return self._give(sorted(idle, reverse=True)[:excess])

    def _give(self, slots: Sequence[int]) -> int:
        """Own them no more, where no session of this host stands on them. How many it were."""
        gone = [slot for slot in slots if self._host.withdraw(slot)]
        if gone:
            self._ledger.give(gone)
            self._given.update(gone)
        return len(gone)

    def tick_s(self, view: View) -> float:
        """How long to wait until the next tick."""
        return min(SLOWEST_TICK_S, TICK_S * max(1.0, len(view.hosts) * self.budget / LOOKS))
