"""Eight processes with twenty threads each fight for 25 slots while some are killed: never more than 25 sessions.

TEST_FIGHT_SECONDS sets how long each fight lasts; the full one takes 20.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

import pytest

import fight_process
from dbsupport import Observer, Watch, forget_plan, slot_file, wait_until
from fullhouse.budget.slots import SlotFile
from private_servers import PrivateServer, mysql_family, postgresql

SECONDS = float(os.environ.get("TEST_FIGHT_SECONDS", "3"))
PROCESSES = 8
KILLED = 4
SLOTS = 25
FAIR_SHARE = SLOTS // PROCESSES
SERVERS = {"mysql": mysql_family, "postgresql": postgresql}

PROCESS = multiprocessing.get_context("forkserver")  # forks them like workers: from a process that has loaded the code
PROCESS.set_forkserver_preload([fight_process.__name__])


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    """With room for twice the slots, so that nothing but the slots keeps anybody out."""
    with SERVERS[request.param](max_connections=2 * SLOTS + 10) as server:
        yield server
        forget_plan(server)


class Fighter:
    """One process of the fight."""

    def __init__(self, server: PrivateServer) -> None:
        names = ("engine", "host", "port", "user", "password", "database")
        facts = {name: getattr(server, name) for name in names}
        self._orders, theirs = PROCESS.Pipe()
        self.process = PROCESS.Process(target=fight_process.fight, args=(theirs, facts, SLOTS, FAIR_SHARE))
        self.process.start()
        theirs.close()

    def begin(self) -> None:
        self._orders.send("begin")

    def end(self) -> tuple[list[int], list[str]]:
        """Requests of each thread, and errors."""
        self._orders.send("end")
        result: tuple[list[int], list[str]] = self._orders.recv()
        self.process.join()
        return result

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._orders.close()


def test_fight(server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for what the fork server loads beforehand
    fighters = [Fighter(server) for _ in range(PROCESSES + KILLED)]
    survivors, victims, spares = fighters[: -2 * KILLED], fighters[-2 * KILLED : PROCESSES], fighters[PROCESSES:]
    try:
        with Watch(server) as watch:
            for fighter in survivors + victims:
                fighter.begin()
            for victim, spare in zip(victims, spares, strict=True):
                time.sleep(SECONDS / (KILLED + 1))
                victim.kill()
                spare.begin()
            time.sleep(SECONDS / (KILLED + 1))
            results = [fighter.end() for fighter in survivors + spares]
    finally:
        for fighter in fighters:
            fighter.kill()
    counts = [count for result in results[: len(survivors)] for count in result[0]]
    print(
        f"{server.engine}: at most {watch.most_held} sessions held, and {watch.most_gone} not yet noticed as gone, in "
        f"{watch.samples} samples; {sum(counts)} requests of the survivors, {min(counts)} to {max(counts)} a thread"
    )
    assert watch.most_held <= SLOTS
    assert watch.samples > 10
    assert [errors for _, errors in results] == [[]] * PROCESSES
    assert min(counts) > 0
    assert_nothing_left(server)


def assert_nothing_left(server: PrivateServer) -> None:
    observer = Observer(server)
    wait_until(lambda: not observer.sessions())
    observer.close()
    assert SlotFile.open(slot_file(server, server.user)).statistics().used == 0
