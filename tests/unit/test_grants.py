"""What a keeper lends, and that a process takes nothing that no living keeper has lent to it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fullhouse.budget.grants import Grants, Terms, file_of
from fullhouse.budget.slots import SlotFile
from fullhouse.fleet import report
from fullhouse.fleet.report import FleetHost, FleetReport
from support import DEADLINE_S, wait_until

# Another process: the kernel shows nobody its own locks.
KEEPER = """
import sys, time
from pathlib import Path
from fullhouse.fleet.host import Host
host = Host(Path(sys.argv[1]))
assert host.grants.try_to_keep()
host.withhold(range(host.budget))
for line in sys.stdin:
    word, *numbers = line.split()
    numbers = list(map(int, numbers))
    match word:
        case "lend": host.lend(numbers)
        case "renew": host.renew(time.monotonic() + 1000, numbers[0], wanted=bool(numbers[1]))
        case "expire": host.renew(time.monotonic() - 1, 10)
        case "withdraw": print([host.withdraw(slot) for slot in numbers], flush=True); continue
        case "view":
            found = host.view()
            print(sorted(found.used), sorted(found.granted), found.wants, host.is_used(), flush=True); continue
        case "announce": host.announce(waiting=bool(numbers[0]))
    print("done", flush=True)
"""


class Keeper:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ask(self, order: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)


@contextmanager
def keeping(path: Path) -> Iterator[Keeper]:
    words = [sys.executable, "-c", KEEPER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Keeper(process)
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "a.slots"


def test_nothing_is_lent_without_a_keeper(path: Path) -> None:
    file = SlotFile.open(path, 10, most_hosts=4)
    share = file.share("default", 2)
    assert share.acquire_nowait() is None
    with keeping(path) as keeper:
        keeper.ask("renew 10 0")
        assert share.acquire_nowait() is None
        keeper.ask("lend 3 4")
        assert {share.acquire_nowait(), share.acquire_nowait()} == {3, 4}
        assert share.acquire_nowait() is None
        share.release(3)
        keeper.ask("expire")
        assert share.acquire_nowait() is None, "the grants have ended"
        keeper.ask("renew 10 0")
        assert share.acquire_nowait() == 3
        share.release(3)
        keeper.kill()
        assert share.acquire_nowait() is None, "the keeper is dead, whatever it has granted"
    share.release(4)
    share.leave()


def test_a_successor_begins_with_nothing(path: Path) -> None:
    file = SlotFile.open(path, 10, most_hosts=4)
    share = file.share("default", 2)
    with keeping(path) as keeper:
        keeper.ask("lend 3")
        keeper.ask("renew 10 0")
        keeper.kill()
    with keeping(path) as keeper:
        assert keeper.ask("view") == "[] [] False False"
        assert share.acquire_nowait() is None
        assert Grants(file.grants._descriptor).terms == Terms(4)
    share.leave()


def test_there_is_one_keeper(path: Path) -> None:
    file = SlotFile.open(path, 10, most_hosts=4)
    with keeping(path) as keeper:
        keeper.ask("view")
        assert file.grants.has_keeper
        assert not file.grants.try_to_keep()
    assert not file.grants.has_keeper


def test_a_slot_in_use_is_not_given_away(path: Path) -> None:
    share = SlotFile.open(path, 10, most_hosts=4).share("default", 2)
    with keeping(path) as keeper:
        keeper.ask("lend 3 4")
        keeper.ask("renew 10 0")
        held = share.acquire_nowait()
        assert held is not None
        other = 7 - held
        assert keeper.ask(f"withdraw {held} {other}") == "[False, True]"
        assert keeper.ask("view") == f"[{held}] [] False True"
        share.release(held)
        assert share.acquire_nowait() is None, "it was revoked while it was used"
        assert keeper.ask(f"withdraw {held}") == "[True]"
    share.leave()


def test_a_slot_whose_session_may_live_is_not_used_before_its_keeper_has_looked(path: Path) -> None:
    """As after a cut: who closed the session has not seen its end."""
    share = SlotFile.open(path, 10, most_hosts=4).share("default", 2)
    with keeping(path) as keeper:
        keeper.ask("lend 3")
        keeper.ask("renew 10 0")
        assert share.acquire_nowait() == 3
        share.release(3, gone=False)
        assert keeper.ask("view") == "[] [] False True"
        keeper.ask("lend 3")
        wait_until(lambda: share.acquire_nowait() == 3, "it had rested")
        share.release(3)
        assert share.acquire_nowait() == 3, "its end was seen"
        share.release(3)
    share.leave()


def test_a_slot_rests_before_it_is_given_away(path: Path) -> None:
    """Until the server has surely noticed that its session has ended."""
    file = SlotFile.open(path, 10, most_hosts=4)
    share = file.share("default", 2)
    with keeping(path) as keeper:
        keeper.ask("lend 3")
        keeper.ask("renew 10 0")
        assert share.acquire_nowait() == 3
        file.resting.clock = lambda: time.monotonic() + 1000  # so that it rests for long
        share.release(3, gone=False)
        assert keeper.ask("withdraw 3") == "[False]"
    share.leave()


def test_pools_are_asked_for_what_is_above_the_hosts_share(path: Path) -> None:
    share = SlotFile.open(path, 10, most_hosts=4).share("default", 8)
    with keeping(path) as keeper:
        keeper.ask("lend 0 1 2 3")
        keeper.ask("renew 4 0")
        held = [share.acquire_nowait() for _ in range(4)]
        assert sorted(slot for slot in held if slot is not None) == [0, 1, 2, 3]
        assert not share.must_give_back()
        share.announce_waiting()
        assert keeper.ask("view") == "[0, 1, 2, 3] [0, 1, 2, 3] True True"
        share.withdraw_waiting()
        keeper.ask("renew 2 1")
        keeper.ask("announce 1")
        assert share.others_want_idle()
        assert share.must_give_back()
        for slot in (2, 3):
            share.release(slot)
            assert keeper.ask(f"withdraw {slot}") == "[True]"
        assert not share.must_give_back(), "it has no more than its share"
        for slot in (0, 1):
            share.release(slot)
    share.leave()


def test_without_a_fleet_every_slot_is_the_hosts(path: Path) -> None:
    share = SlotFile.open(path, 2, most_hosts=4).share("default", 2)
    assert share.acquire_nowait() is None
    SlotFile.open(path, 2)
    assert share.acquire_nowait() is not None
    assert not share.others_want_idle()
    for slot in set(share.slots):
        share.release(slot)
    share.leave()


def test_the_report_is_read_as_it_was_written(path: Path) -> None:
    host = FleetHost(0, "10.0.0.1", 5, 5, 2, waits=True, is_here=True, agrees=False)
    found = FleetReport(os.getpid(), time.time(), 10, 4, hosts=[host])
    report.write(path, found)
    assert report.read(path) is None, "the slots belong to no fleet"
    SlotFile.open(path, 10, most_hosts=4)
    assert report.read(path) == found
    assert found.lines[1] == (
        "  host 0 at 10.0.0.1 (here): a share of 5, holds 5, 2 in use, waits for more, plans with another budget"
    )
    report.path_of(path).write_text("{")
    assert report.read(path) is None
    assert file_of(path).exists()
