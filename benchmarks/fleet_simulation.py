"""What a fleet does at sizes that no machine here can have: the keepers' real rules, on a made-up database.

Run: PYTHONPATH=tools:src python -m benchmarks.fleet_simulation [--sizes 10x100,100x1000,1000x2000]

Each host serves a load of its own, and after a while the load moves: half of the hosts get three times as much, and the
others nearly nothing. Databases do not know of each other, so a site with a hundred of them is a hundred times this;
what each costs its server is measured on real servers: one look at a ledger of that size.
"""

import argparse
import heapq
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fullhouse.fleet import mysql, postgresql
from fullhouse.fleet.core import Core, HostView
from fullhouse.fleet.keeper import LOOKS, SLOWEST_TICK_S, TICK_S
from fullhouse.fleet.ledger import View
from private_servers import PrivateServer, mysql_family
from private_servers import postgresql as postgresql_server

CALM_S, SHIFTED_S = 15.0, 25.0
FOLLOWED = 0.95  # of what could be in use


@dataclass
class SimulatedHost:
    """wanted: sessions that its requests would use. Slots in use are the first ones that it owns."""

    number: int
    core: Core
    wanted: int = 0
    owned: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)

    def serve(self, most: int) -> None:
        """Use what there is, and no more than `most`."""
        wanted = min(self.wanted, most)
        self.used &= self.owned
        while len(self.used) > wanted:
            self.used.pop()
        for slot in self.owned - self.used:
            if len(self.used) >= wanted:
                break
            self.used.add(slot)


class Simulation:
    """All hosts of one database. Time is made up, in seconds."""

    def __init__(self, hosts: int, budget: int, seed: int = 1) -> None:
        self.budget = budget
        self.chance = random.Random(seed)
        self.tick_s = min(SLOWEST_TICK_S, TICK_S * max(1.0, hosts * budget / LOOKS))
        self.hosts = [SimulatedHost(number, Core(budget, number, 0.0)) for number in range(hosts)]
        self.sessions = {host.number: host.number + 1 for host in self.hosts}
        self.owners: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.wanting: set[int] = set()
        self.moved = self.looks = 0
        self.now = 0.0
        self._due = [(self.chance.random() * self.tick_s, host.number) for host in self.hosts]
        heapq.heapify(self._due)

    def run(self, until: float) -> None:
        while self._due[0][0] < until:
            self.now, number = heapq.heappop(self._due)
            self._tick(self.hosts[number])
            heapq.heappush(self._due, (self.now + self.tick_s, number))
        self.now = until

    def _tick(self, host: SimulatedHost) -> None:
        host.serve(len(host.owned))
        me = self.sessions[host.number]
        view = View(me, self.sessions, self.owners, {}, self.waiting, self.wanting)
        decision = host.core.decide(view, HostView(host.used, host.owned, host.wanted > len(host.owned)), self.now)
        self.looks += 1
        host.serve(len(host.owned) - decision.excess)  # pools give back what they hold above their share
        given = [*decision.give, *sorted(host.owned - host.used)[: decision.excess]]
        for slot in set(given) - host.used:
            del self.owners[slot]
            host.owned.discard(slot)
        for slot in decision.take:
            self.owners[slot] = me
            host.owned.add(slot)
        self.moved += len(decision.take)
        for flags, is_so in ((self.waiting, decision.waiting), (self.wanting, decision.wanting)):
            flags.add(host.number) if is_so else flags.discard(host.number)
        host.serve(len(host.owned))

    @property
    def in_use(self) -> float:
        """Of what could be."""
        possible = min(self.budget, sum(host.wanted for host in self.hosts))
        return sum(len(host.used) for host in self.hosts) / possible

    def want(self, weights: list[float]) -> None:
        """Let the hosts want nine tenths of the budget together, by their weights."""
        whole = sum(weights)
        for host, weight in zip(self.hosts, weights, strict=True):
            host.wanted = max(1, round(0.9 * self.budget * weight / whole))


def simulate(hosts: int, budget: int) -> str:
    made = Simulation(hosts, budget)
    made.want([1 + made.chance.random() for _ in range(hosts)])
    made.run(CALM_S)
    before, began = made.in_use, (made.moved, made.looks)
    made.run(2 * CALM_S)
    calm = (made.moved - began[0]) / CALM_S
    looks = (made.looks - began[1]) / CALM_S
    shift = made.now
    made.want([3 + made.chance.random() if number % 2 else 0.1 for number in range(hosts)])
    moved, followed_s = made.moved, float("inf")
    while made.now < shift + SHIFTED_S:
        made.run(made.now + 0.25)
        if made.in_use >= FOLLOWED:
            followed_s = made.now - shift
            break
    return (
        f"{hosts:>5} hosts, {budget:>5} slots: a tick each {made.tick_s:.2f} s, at most {looks:,.0f} looks/s; in calm "
        f"{before:.0%} in use and {calm:.1f} slots/s move; a shift is followed in {followed_s:.1f} s, "
        f"{made.moved - moved:,} slots move"
    )


@contextmanager
def ledgers(server: PrivateServer) -> Iterator[Any]:
    if server.vendor == "mysql":
        import MySQLdb

        access = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
        yield mysql.MySQLLedger(MySQLdb.connect(**access, autocommit=True), server.user)
    else:
        import psycopg

        access = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
        connection = psycopg.connect(**access, dbname=server.database, autocommit=True)
        yield postgresql.PostgreSQLLedger(connection, connection.info.backend_pid, server.user)


def look_ms(server: PrivateServer, budget: int) -> float:
    """The median of a look at a ledger of which all slots are owned."""
    with ledgers(server) as ledger:
        ledger.join(40, budget)
        ledger.take(range(budget))
        found = []
        for _ in range(40):
            began = time.perf_counter()
            ledger.look(40, budget)
            found.append(1000 * (time.perf_counter() - began))
        ledger.close()
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="10x100,100x1000,1000x2000", help="hosts × slots (default: %(default)s)")
    sizes = [tuple(map(int, size.split("x"))) for size in parser.parse_args().sizes.split(",")]
    for hosts, budget in sizes:
        print(simulate(hosts, budget), flush=True)
    for make in (postgresql_server, mysql_family):
        with make(max_connections=200) as server:
            times = ", ".join(f"{budget} slots {look_ms(server, budget):.1f} ms" for _, budget in sizes)
            print(f"{server.engine}: a look at {times}, client included", flush=True)


if __name__ == "__main__":
    main()
