"""A database server, hosts and their processes, all of them made up, that a keeper cannot tell from real ones.

The clock is the world's. Between any two statements of a keeper other hosts may act, and the keeper may die.
"""

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from fullhouse.budget.grants import Terms
from fullhouse.fleet.core import REST_S, HostView
from fullhouse.fleet.keeper import TICK_S, Keeper, LostError
from fullhouse.fleet.ledger import SILENCE_S, FleetRefusedError, View

MOST_HOSTS = 8
READ_TIMEOUT_S = 5.0
KEEPALIVE_S = 9.0
CONNECT_TIMEOUT_S = 5.0
STRAY_LIFE_S = 20.0


class Gone(Exception):
    """The session is not there, or cannot be reached."""


class KeeperDied(BaseException):
    """In the middle of a tick."""


class Server:
    def __init__(self) -> None:
        self.last = 0
        self.sessions: dict[int, str] = {}  # of whom: keeper or pool
        self.locks: dict[tuple[str, int], int] = {}

    def connect(self, kind: str) -> int:
        self.last += 1
        self.sessions[self.last] = kind
        return self.last

    def end(self, session: int) -> None:
        self.sessions.pop(session, None)
        self.locks = {lock: holder for lock, holder in self.locks.items() if holder != session}

    def try_lock(self, session: int, lock: tuple[str, int]) -> bool:
        return self.locks.setdefault(lock, session) == session

    def unlock(self, session: int, lock: tuple[str, int]) -> None:
        if self.locks.get(lock) == session:
            del self.locks[lock]

    @property
    def pooled(self) -> int:
        return sum(kind == "pool" for kind in self.sessions.values())


class FakeLedger:
    def __init__(self, world: "World", host: "FakeHost") -> None:
        self._world, self._host = world, host
        self._server = world.server
        self.session = self._server.connect("keeper")

    @contextmanager
    def _statement(self) -> Iterator[None]:
        self._world.between_statements(self._host)
        if self._host.cut or self.session not in self._server.sessions:
            raise Gone
        self._host.heard_at = self._world.now
        yield

    def join(self, most_hosts: int, budget: int) -> int:
        for number in range(most_hosts):
            with self._statement():
                if self._server.try_lock(self.session, ("h", number)):
                    self._server.try_lock(self.session, (f"s{budget}", number))
                    return number
        raise FleetRefusedError("full")

    def look(self, most_hosts: int, budget: int) -> View:
        with self._statement():
            found: dict[str, dict[int, int]] = {letter: {} for letter in ("h", "a", "b", "w", "v", f"s{budget}")}
            for (letter, number), session in self._server.locks.items():
                if letter in found:
                    found[letter][number] = session
            return View(
                self.session,
                found["h"],
                found["a"],
                found["b"],
                frozenset(found["w"]),
                frozenset(found["v"]),
                frozenset(found[f"s{budget}"]),
                frozenset(self._server.sessions),
            )

    def glance(self, most_hosts: int) -> View:
        found = self.look(most_hosts, 0)
        return View(found.me, found.hosts, waiting=found.waiting, wanting=found.wanting)

    def take(self, slots: Collection[int]) -> set[int]:
        with self._statement():
            return {slot for slot in slots if self._server.try_lock(self.session, ("a", slot))}

    def give(self, slots: Collection[int]) -> None:
        with self._statement():
            for slot in slots:
                self._server.unlock(self.session, ("a", slot))

    def fenced(self, slots: Collection[int]) -> set[int]:
        with self._statement():
            return {slot for slot in slots if ("b", slot) in self._server.locks}

    def say(self, number: int, *, waiting: bool, wanting: bool) -> None:
        for letter, is_so in (("w", waiting), ("v", wanting)):
            with self._statement():
                if is_so:
                    self._server.try_lock(self.session, (letter, number))
                else:
                    self._server.unlock(self.session, (letter, number))

    def end(self, slot: int, session: int) -> None:
        with self._statement():
            if self._server.locks.get(("b", slot)) == session and ("a", slot) not in self._server.locks:
                self._world.end_pooled(session)

    def addresses(self, view: View) -> Mapping[int, str]:
        return {}

    def close(self) -> None:
        if not self._host.cut:
            self._server.end(self.session)


class Opener:
    """A process of a host that opens one session, keeps it, and closes it. Each step takes its time."""

    def __init__(self, slot: int, now: float, chance: random.Random) -> None:
        self.slot = slot
        self.permitted_at = now
        self.session: int | None = None
        self.fenced = False
        self._chance = chance
        self.wait(now)

    def wait(self, now: float) -> None:
        self.acts_at = now + self._chance.choice((0.0, 0.01, 0.2, 0.8)) * self._chance.random()


class FakeHost:
    """The record locks and grants of one host, its processes, and its keeper."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self.name = number
        self.budget = world.budget
        self.grants = self
        self.terms = Terms(MOST_HOSTS)
        self.granted: set[int] = set()
        self.locked_by_keeper: set[int] = set()
        self.openers: list[Opener] = []
        self.wanted = 0
        self.keeper: Keeper | None = None
        self.ledger: FakeLedger | None = None
        self.keeper_due = world.now
        self.cut = self.lives = False
        self.cut_at = self.heard_at = world.now
        self.stopped_until = 0.0
        self.waiting_announced = False

    # -- What a keeper asks

    def view(self) -> HostView:
        return HostView(frozenset(self.used), frozenset(self.granted), self.wanted > len(self.openers))

    @property
    def used(self) -> set[int]:
        return {opener.slot for opener in self.openers}

    def lend(self, slots: Collection[int]) -> None:
        self.granted.update(slots)
        self.locked_by_keeper.difference_update(slots)

    def withdraw(self, slot: int) -> bool:
        self.granted.discard(slot)
        if slot not in self.used:
            self.locked_by_keeper.add(slot)
        return slot in self.locked_by_keeper

    def withhold(self, slots: Collection[int]) -> None:
        for slot in slots:
            if slot not in self.locked_by_keeper:
                self.withdraw(slot)

    def announce(self, *, waiting: bool) -> None:
        self.waiting_announced = waiting

    def renew(self, until: float = 0.0, entitled: int = 0, *, wanted: bool = False) -> None:
        self.terms = Terms(MOST_HOSTS, until, entitled, wanted)

    def withdraw_all(self) -> None:
        self.renew()
        self.withhold(range(self.budget))

    # -- What its processes do

    def permit(self) -> None:
        """A process takes a slot, if it may."""
        has_keeper = self.keeper is not None
        free = [slot for slot in sorted(self.granted) if slot not in self.used and slot not in self.locked_by_keeper]
        if self.lives and has_keeper and self._world.now < self.terms.until and free:
            if self.waiting_announced and len(self.openers) >= self.terms.entitled:
                return
            self.openers.append(Opener(self._world.random.choice(free), self._world.now, self._world.random))

    def go_on(self, opener: Opener) -> None:
        """Connect, or take the fence."""
        server = self._world.server
        if self.cut:
            return
        if opener.session is None:
            opener.session = server.connect("pool")
            opener.wait(self._world.now)
        elif opener.session not in server.sessions:
            self.openers.remove(opener)
        elif not opener.fenced:
            opener.fenced = server.try_lock(opener.session, ("b", opener.slot))
            if not opener.fenced:
                server.end(opener.session)
                self.granted.discard(opener.slot)
                self.openers.remove(opener)

    def close(self, opener: Opener) -> None:
        if opener.session is not None and not self.cut:
            self._world.server.end(opener.session)
            self.openers.remove(opener)

    def must_give_back(self) -> bool:
        return self.waiting_announced and len(self.openers) > self.terms.entitled


class World:
    """random: of the history. has_keepalive: whether the server notices a host that is cut off. Times in seconds."""

    def __init__(self, seed: int, budget: int, hosts: int, *, has_keepalive: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a history that can be had again
        self.has_keepalive = has_keepalive
        self.left: dict[int, float] = {}  # sessions that no process knows any more: since when
        self.budget = budget
        self.now = 1000.0
        self.server = Server()
        self.hosts = [FakeHost(self, number) for number in range(hosts)]
        self.most = 0
        self.excused = 0.0  # until then an opener that was stopped for long may have one too many
        self._within = False
        self.die_after: int | None = None

    # -- Faults

    def start(self, host: FakeHost) -> None:
        host.lives = True
        host.keeper_due = self.now

    def kill_keeper(self, host: FakeHost) -> None:
        """Its session ends at once, and its record locks with it."""
        if host.ledger is not None and not host.cut:
            self.server.end(host.ledger.session)
        host.keeper = host.ledger = None
        host.locked_by_keeper.clear()
        host.keeper_due = self.now + 0.5 + self.random.random()

    def kill_host(self, host: FakeHost) -> None:
        self.kill_keeper(host)
        for opener in host.openers:
            if opener.session is not None and not host.cut:
                self.server.end(opener.session)
        host.openers.clear()
        host.granted.clear()
        host.lives = False

    def cut(self, host: FakeHost) -> None:
        host.cut, host.cut_at = True, self.now

    def heal(self, host: FakeHost) -> None:
        host.cut = False

    def restart_server(self) -> None:
        for session in list(self.server.sessions):
            self.server.end(session)
        for host in self.hosts:
            host.openers = [opener for opener in host.openers if opener.session is None]

    def end_pooled(self, session: int) -> None:
        self.server.end(session)
        for host in self.hosts:
            if not host.cut:
                host.openers = [opener for opener in host.openers if opener.session != session]

    # -- Time

    def between_statements(self, host: FakeHost) -> None:
        if self._within:
            return
        self._within = True
        try:
            if self.die_after is not None:
                self.die_after -= 1
                if self.die_after < 0:
                    self.die_after = None
                    raise KeeperDied
            if self.random.random() < 0.3:
                self._processes_act()
                other = self.random.choice(self.hosts)
                if other is not host:
                    self.keep(other)
        finally:
            self._within = False

    def keep(self, host: FakeHost) -> None:
        """One step of its keeper, where it is due."""
        if not host.lives or self.now < max(host.keeper_due, host.stopped_until):
            return
        if host.cut:
            if self.now - host.heard_at > READ_TIMEOUT_S and host.keeper is not None:  # its statement times out
                host.keeper = host.ledger = None
                host.withdraw_all()
            return
        host.keeper_due = self.now + 0.25
        try:
            if host.keeper is None:
                host.granted.clear()
                host.renew()
                host.withhold(range(host.budget))
                host.ledger = FakeLedger(self, host)
                host.keeper = Keeper(host.ledger, host, clock=lambda: self.now)  # type: ignore[arg-type]
            assert host.ledger is not None
            view, decision = host.keeper.tick()
            if decision.excess:
                host.keeper.collect(view, decision.excess)
        except (Gone, LostError, FleetRefusedError):
            host.withdraw_all()
            if host.ledger is not None:
                host.ledger.close()
            host.keeper = host.ledger = None
            host.keeper_due = self.now + 0.5
        except KeeperDied:
            self.kill_keeper(host)

    def step(self, seconds: float = 0.05) -> None:
        self.now += seconds
        self._server_notices()
        for host in self.random.sample(self.hosts, len(self.hosts)):
            self.keep(host)
            self._processes_act()
        self._look()

    def _server_notices(self) -> None:
        """What was silent for long is ended by the server."""
        for host in self.hosts:
            silent = self.now - host.heard_at > SILENCE_S
            if silent and host.ledger is not None and host.ledger.session in self.server.sessions:
                self.server.end(host.ledger.session)
        keepers = {host.ledger.session for host in self.hosts if host.ledger is not None}
        known = keepers.union(opener.session for host in self.hosts for opener in host.openers)
        for session, kind in list(self.server.sessions.items()):
            if session not in known:
                since = self.left.setdefault(session, self.now)
                if self.now - since > (SILENCE_S if kind == "keeper" else STRAY_LIFE_S):
                    self.server.end(session)
        for host in self.hosts:
            if self.has_keepalive and host.cut and self.now - host.cut_at > KEEPALIVE_S:
                for opener in host.openers:
                    if opener.session is not None:
                        self.server.end(opener.session)
                host.openers = [opener for opener in host.openers if opener.session is None]

    def _processes_act(self) -> None:
        for host in self.hosts:
            if not host.lives or self.now < host.stopped_until:
                continue
            if len(host.openers) < host.wanted:
                host.permit()
            for opener in list(host.openers):
                if not opener.fenced and self.now - opener.permitted_at > CONNECT_TIMEOUT_S:
                    if opener.session is not None and not host.cut:
                        self.server.end(opener.session)
                    host.openers.remove(opener)  # where the host is cut off, its session stays: a stray
                elif self.now >= opener.acts_at:
                    if opener.session is None and self.now - opener.permitted_at > REST_S - 2 * TICK_S:
                        self.excused = self.now + CONNECT_TIMEOUT_S + 1  # stopped between permission and connect
                    host.go_on(opener)
                    self._look()
            fenced = [opener for opener in host.openers if opener.fenced]
            if fenced and (len(host.openers) > host.wanted or host.must_give_back()):
                host.close(self.random.choice(fenced))

    def _look(self) -> None:
        if self.now > self.excused:
            self.most = max(self.most, self.server.pooled)
            assert self.server.pooled <= self.budget, f"{self.server.pooled} of {self.budget} at {self.now:.2f}"
        for host in self.hosts:
            if host.ledger is None:
                continue
            mine = {
                slot
                for (letter, slot), one in self.server.locks.items()
                if letter == "a" and one == host.ledger.session
            }
            if self.now < host.terms.until and not host.cut and host.ledger.session in self.server.sessions:
                assert host.granted <= mine, "a slot is lent that is another's"
