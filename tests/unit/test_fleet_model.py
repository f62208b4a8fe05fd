"""Thousands of histories of a fleet: whatever dies, hangs, is cut off or comes back, the sessions never exceed the
budget, and a host that waits gets its share."""

import os

import pytest
from fleet_world import CONNECT_TIMEOUT_S, FakeLedger, World

from fullhouse.fleet import keeper
from fullhouse.fleet.ledger import View

HISTORIES = int(os.environ.get("FLEET_HISTORIES", "10"))  # of each kind
SETTLE_S = 30.0


def world(seed: int, budget: int = 6, hosts: int = 3) -> World:
    return World(seed, budget, hosts, has_keepalive=seed % 2 == 0)


def run(world: World, seconds: float) -> None:
    until = world.now + seconds
    while world.now < until:
        world.step()


def settle(world: World) -> None:
    """Everything is well again, and all want more than there is: each then has its share, and all is in use."""
    for host in world.hosts:
        world.heal(host)
        host.stopped_until = 0.0
        if not host.lives:
            world.start(host)
        host.wanted = world.budget
    run(world, SETTLE_S)
    shares = [len(host.openers) for host in world.hosts]
    assert sum(shares) == world.server.pooled == world.budget, shares
    assert min(shares) >= world.budget // len(world.hosts), shares


def test_alone_a_host_has_all() -> None:
    one = world(1, budget=20, hosts=1)
    one.start(one.hosts[0])
    one.hosts[0].wanted = 20
    run(one, 4)
    assert one.server.pooled == 20


def test_an_idle_hosts_share_is_used_elsewhere_and_comes_back() -> None:
    made = world(2, budget=20, hosts=2)
    busy, idle = made.hosts
    for host in made.hosts:
        made.start(host)
    busy.wanted = 20
    run(made, 4)
    assert len(busy.openers) == 20
    idle.wanted = 20
    run(made, 3)
    assert [len(busy.openers), len(idle.openers)] == [10, 10]
    busy.wanted = 0
    run(made, 3)
    assert len(idle.openers) == 20


def test_a_killed_hosts_share_is_used_elsewhere() -> None:
    made = world(3, budget=20, hosts=2)
    for host in made.hosts:
        made.start(host)
        host.wanted = 20
    run(made, 5)
    made.kill_host(made.hosts[0])
    run(made, 3)
    assert len(made.hosts[1].openers) == 20


def test_a_hosts_share_that_was_cut_off_is_used_elsewhere() -> None:
    made = world(4, budget=20, hosts=2)
    for host in made.hosts:
        made.start(host)
        host.wanted = 20
    run(made, 5)
    made.cut(made.hosts[0])
    run(made, 15)
    assert len(made.hosts[1].openers) == 20


def test_on_a_long_ledger_keepers_glance_and_the_rules_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ledger is long here."""
    looks, glances = 0, 0
    look, glance = FakeLedger.look, FakeLedger.glance

    def counted_look(self: FakeLedger, *arguments: int) -> View:
        nonlocal looks
        looks += 1
        return look(self, *arguments)

    def counted_glance(self: FakeLedger, most_hosts: int) -> View:
        nonlocal glances
        glances += 1
        return glance(self, most_hosts)

    monkeypatch.setattr(keeper, "LOOKS", 1)
    monkeypatch.setattr(FakeLedger, "look", counted_look)
    monkeypatch.setattr(FakeLedger, "glance", counted_glance)
    made = world(5, budget=20, hosts=2)
    for host in made.hosts:
        made.start(host)
    run(made, 10)
    before = looks - glances  # a glance of these is a look, too
    run(made, 20)
    assert looks - glances - before <= 10
    made.hosts[0].wanted = 20
    run(made, 4)
    assert len(made.hosts[0].openers) == 20
    made.kill_host(made.hosts[0])
    made.hosts[1].wanted = 20
    run(made, 4)
    assert len(made.hosts[1].openers) == 20


FAULTS = ("kill_keeper", "die_in_tick", "kill_host", "cut", "stop", "stall", "restart", "demand")


@pytest.mark.parametrize("fault", [*FAULTS, "all"])
def test_histories(fault: str) -> None:
    for seed in range(HISTORIES):
        made = world(seed, budget=5 + seed % 7, hosts=2 + seed % 4)
        chance = made.random
        for host in made.hosts:
            made.start(host)
            host.wanted = chance.randrange(made.budget + 3)
        try:
            for _ in range(chance.randrange(3, 8)):
                run(made, chance.random() * 4)
                host = chance.choice(made.hosts)
                _do(made, host, chance.choice(FAULTS) if fault == "all" else fault)
            run(made, chance.random() * 12)
            made.die_after = None
            settle(made)
        except AssertionError as error:
            raise AssertionError(f"history {seed} of {fault}: {error}") from error


def _do(made: World, host: object, fault: str) -> None:
    chance = made.random
    match fault:
        case "kill_keeper":
            made.kill_keeper(host)  # type: ignore[arg-type]
        case "die_in_tick":
            made.die_after = chance.randrange(6)
        case "kill_host":
            made.kill_host(host)  # type: ignore[arg-type]
        case "cut":
            made.heal(host) if host.cut else made.cut(host)  # type: ignore[attr-defined,arg-type,func-returns-value]
        case "stop":
            host.stopped_until = made.now + chance.random() * 14  # type: ignore[attr-defined]
            made.excused = host.stopped_until + CONNECT_TIMEOUT_S + 1 if _is_opening(host) else made.excused  # type: ignore[attr-defined]
        case "stall":
            for opener in host.openers:  # type: ignore[attr-defined]
                opener.acts_at += chance.random() * 8
        case "restart":
            made.restart_server()
        case "demand":
            host.wanted = chance.randrange(made.budget + 3)  # type: ignore[attr-defined]


def _is_opening(host: object) -> bool:
    return any(opener.session is None for opener in host.openers)  # type: ignore[attr-defined]
