"""Slots on real files, across real processes; pipes and `wait` decide the order, never time."""

import os
import subprocess
import threading

import pytest
from slot_process import SlotProcess, is_above_fair_share

import programs
from fullhouse.budget.resting import REST_S
from fullhouse.budget.slots import WAITING, SlotFile, SlotStatistics
from fullhouse.errors import ConfigurationError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slots"


NOW = 1000.0


@pytest.fixture
def later(path):
    """Call it to let the rest of every slot pass. Until then no time does."""
    passed = 0.0

    def pass_rest():
        nonlocal passed
        passed += REST_S

    SlotFile.open(path).resting.clock = lambda: NOW + passed
    return pass_rest


def take(share, count):
    return [share.acquire_nowait() for _ in range(count)]


def take_there(process, count):
    return [process.call("acquire_nowait") for _ in range(count)]


class TestBudget:
    def test_is_the_length_of_the_file(self, path):
        assert SlotFile.open(path).budget is None
        share = SlotFile.open(path).share("main", 1)
        SlotFile.open(path, budget=7)
        assert path.stat().st_size == SlotFile.open(path).budget == share.budget == 7
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("slots", [-1, 0, 2**18 + 1])
    def test_senseless_numbers_are_refused(self, path, slots):
        with pytest.raises(ConfigurationError, match=f"budget is {slots} slots"):
            SlotFile.open(path, budget=slots)
        with pytest.raises(ConfigurationError, match=f"fair share of main is {slots} slots"):
            SlotFile.open(path, budget=5).share("main", slots)

    def test_growth_is_seen_by_everyone_at_once(self, path):
        share = SlotFile.open(path, budget=1).share("main", 1)
        with SlotProcess(path) as other:
            assert take(share, 2) == [0, None]
            SlotFile.open(path, budget=2)
            assert other.call("acquire_nowait") == 1

    def test_shrinking_takes_nothing_away_and_grants_nothing_beyond(self, path):
        file = SlotFile.open(path, budget=4)
        share = file.share("main", 4)
        take(share, 4)
        SlotFile.open(path, budget=2)
        with SlotProcess(path) as other:
            assert other.locks()[0] == (0, 4)
            share.release(3)
            assert other.call("acquire_nowait") is share.acquire_nowait() is None
            assert file.statistics() == SlotStatistics(budget=2, held=3, used=3)
            share.release(1)
            assert other.call("acquire_nowait") == 1


class TestExclusion:
    def test_no_slot_is_out_twice(self, path):
        share = SlotFile.open(path, budget=5).share("main", 2)
        with SlotProcess(path) as other:
            mine = take(share, 2)
            theirs = take_there(other, 4)
            assert theirs[3] is None
            assert sorted(mine + theirs[:3]) == [0, 1, 2, 3, 4]
            assert share.acquire_nowait() is None
            other.call("release", theirs[1])
            assert share.acquire_nowait() == theirs[1]

    def test_a_killed_process_gives_back_by_itself(self, path, later):
        share = SlotFile.open(path, budget=3).share("main", 1)
        with SlotProcess(path) as other:
            take_there(other, 3)
            assert share.acquire_nowait() is None
            other.kill()
            assert share.acquire_nowait() is None
            later()
            assert sorted(take(share, 3)) == [0, 1, 2]

    def test_threads_and_pools_of_one_process_exclude_each_other(self, path):
        file = SlotFile.open(path, budget=100)
        taken = []

        def grab(share):
            while (slot := share.acquire_nowait()) is not None:
                taken.append(slot)

        shares = [file.share(f"pool{number}", 50) for number in range(2)]
        threads = [threading.Thread(target=grab, args=(share,)) for share in shares * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(100))
        assert sum(share.held for share in shares) == 100

    def test_every_opening_in_a_process_is_the_same_file(self, path, tmp_path):
        file = SlotFile.open(path, budget=1)
        assert SlotFile.open(path) is file
        assert SlotFile.open(tmp_path / ".." / tmp_path.name / "slots") is file

    def test_a_slot_of_another_pool_cannot_be_released(self, path):
        file = SlotFile.open(path, budget=2)
        slot = file.share("one", 1).acquire_nowait()
        with pytest.raises(ValueError, match=r"Pool two does not hold slot 0, but \[\]"):
            file.share("two", 1).release(slot)

    def test_programs_started_by_the_process_do_not_disturb(self, path):
        file = SlotFile.open(path, budget=2)
        file.share("main", 1).acquire_nowait()
        assert not os.get_inheritable(file.descriptor)
        subprocess.run([programs.path("true")], check=True, close_fds=False, timeout=60)
        with SlotProcess(path) as other:
            assert other.locks()[0] == (0, 1)

    def test_a_deleted_file_is_refused(self, path):
        share = SlotFile.open(path, budget=2).share("main", 1)
        slot = share.acquire_nowait()
        path.unlink()
        with pytest.raises(ConfigurationError, match="deleted while in use"):
            share.acquire_nowait()
        share.release(slot)


class TestRest:
    """A slot whose session may live on is not used at once."""

    def test_a_session_that_nobody_saw_end(self, path, later):
        share = SlotFile.open(path, budget=2).share("main", 2)
        with SlotProcess(path, now=NOW) as other:
            one, two = take(share, 2)
            share.release(one, gone=False)
            share.release(two, gone=True)
            assert take_there(other, 2) == [two, None]
            assert share.acquire_nowait() is None
            later()
            assert share.acquire_nowait() == one

    def test_ends_for_all_at_once(self, path, later):
        """Whoever looks first begins it, and nobody begins it again."""
        share = SlotFile.open(path, budget=3).share("main", 3)
        with SlotProcess(path, now=NOW) as other:
            take_there(other, 3)
            other.kill()
        assert share.acquire_nowait() is None
        later()
        assert sorted(take(share, 3)) == [0, 1, 2]

    def test_survives_who_began_it(self, path, later):
        share = SlotFile.open(path, budget=1).share("main", 1)
        with SlotProcess(path, now=NOW) as first, SlotProcess(path, now=NOW) as second:
            first.call("acquire_nowait")
            first.kill()
            assert second.call("acquire_nowait") is None
            second.kill()
        assert share.acquire_nowait() is None
        later()
        assert share.acquire_nowait() == 0

    def test_of_an_earlier_boot_is_no_longer_than_any(self, path, later):
        file = SlotFile.open(path, budget=1)
        clock, file.resting.clock = file.resting.clock, lambda: 1e9
        file.resting.begin(0)
        file.resting.clock = clock
        share = file.share("main", 1)
        assert share.acquire_nowait() is None
        later_clock = file.resting.clock
        file.resting.clock = lambda: later_clock() + REST_S
        assert share.acquire_nowait() == 0

    def test_records_never_change_the_budget(self, path):
        file = SlotFile.open(path, budget=4)
        share = file.share("main", 4)
        take(share, 4)
        SlotFile.open(path, budget=1)
        share.release(3, gone=False)
        share.release(2)
        assert file.budget == 1


class TestUnplanned:
    def test_has_one_slot(self, path):
        file = SlotFile.open(path)
        share = file.share("main", 4)
        assert (file.budget, share.budget) == (None, 1)
        assert take(share, 2) == [0, None]

    def test_a_budget_of_one_is_a_budget(self, path):
        assert SlotFile.open(path, budget=1).budget == 1


class TestFork:
    def test_a_child_has_nothing_and_takes_nothing_away(self, path, later):
        file = SlotFile.open(path, budget=4)
        share = file.share("main", 2)
        share.announce_waiting()
        take(share, 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            answer = [share.held, file.statistics().held, share.must_give_back(), take(share, 3), share.held]
            os.write(writing, repr(answer).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reading, 1000) == b"[0, 0, False, [1, 2, None], 2]"
        with SlotProcess(path, now=NOW) as other:
            claim = other.locks()[-1]
            assert other.locks() == [(0, 1), (WAITING, WAITING + 1), claim]
            assert claim[1] - claim[0] == 2
        assert take(share, 2) == [3, None]
        later()
        assert take(share, 3) == [1, 2, None]

    def test_a_child_without_a_pool_in_use_claims_nothing(self, path):
        file = SlotFile.open(path, budget=4)
        share = file.share("main", 4)
        take(share, 3)
        ready, go_on = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.write(ready[1], b"x")
            os.read(go_on[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        with SlotProcess(path, now=NOW) as other:
            other.call("acquire_nowait")
            other.call("announce_waiting")
            assert not is_above_fair_share(share)
        os.write(go_on[1], b"x")
        os.waitpid(child, 0)

    def test_a_child_waits_for_itself(self, path):
        file = SlotFile.open(path, budget=4)
        rich, poor = file.share("rich", 1), file.share("poor", 1)
        take(rich, 4)
        poor.announce_waiting()
        ready, go_on = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            poor.announce_waiting()
            os.write(ready[1], b"x")
            os.read(go_on[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        poor.leave()
        with_child = rich.must_give_back()
        os.write(go_on[1], b"x")
        os.waitpid(child, 0)
        assert (with_child, rich.must_give_back()) == (True, False)

    def test_a_child_born_while_a_thread_has_the_mutex_is_free(self, path):
        file = SlotFile.open(path, budget=1)
        share = file.share("main", 1)
        with file.mutex:
            child = os.fork()
            if child == 0:
                os._exit(0 if share.acquire_nowait() == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestWaiting:
    def test_is_seen_by_another_process_and_not_by_oneself(self, path):
        share = SlotFile.open(path, budget=3).share("main", 1)
        with SlotProcess(path, now=NOW) as other:
            take(share, 3)
            assert not share.must_give_back()
            other.call("announce_waiting")
            assert share.must_give_back()
            assert not other.call("must_give_back")
            other.call("withdraw_waiting")
            assert not share.must_give_back()

    def test_is_seen_by_another_pool_of_the_process(self, path):
        file = SlotFile.open(path, budget=3)
        one, two = file.share("one", 1), file.share("two", 1)
        take(one, 3)
        two.announce_waiting()
        assert one.must_give_back()
        one.release(0)
        assert two.acquire_nowait() == 0
        assert not one.must_give_back()

    def test_ends_with_the_process(self, path):
        share = SlotFile.open(path, budget=2).share("main", 1)
        take(share, 2)
        with SlotProcess(path, now=NOW) as other:
            other.call("announce_waiting")
            assert share.must_give_back()
            other.kill()
            assert not share.must_give_back()

    def test_one_free_slot_is_enough_for_all_to_keep_theirs(self, path):
        share = SlotFile.open(path, budget=3).share("main", 1)
        with SlotProcess(path, now=NOW) as other:
            take(share, 3)
            other.call("announce_waiting")
            share.release(2)
            assert not share.must_give_back()

    def test_borrowers_take_nothing_meanwhile(self, path):
        share = SlotFile.open(path, budget=3).share("main", 1)
        with SlotProcess(path, now=NOW) as other:
            take(share, 1)
            other.call("announce_waiting")
            assert share.acquire_nowait() is None
            assert other.call("acquire_nowait") == 1
            assert share.acquire_nowait() == 2

    def test_with_the_share_in_hand_asks_nobody_for_anything(self, path):
        share = SlotFile.open(path, budget=3).share("main", 1)
        with SlotProcess(path, now=NOW) as other:
            other.call("acquire_nowait")
            other.call("announce_waiting")
            assert take(share, 2) == [1, 2]
            assert is_above_fair_share(share)
            assert not share.must_give_back()

    def test_nobody_goes_below_the_share(self, path):
        share = SlotFile.open(path, budget=4).share("main", 2)
        with SlotProcess(path, fair_share=2) as other:
            take(share, 4)
            other.call("announce_waiting")
            while share.must_give_back():
                share.release(max(share.slots))
                other.call("acquire_nowait")
            assert share.held == 2

    def test_two_generations_halve_their_shares_until_one_is_gone(self, path, later):
        share = SlotFile.open(path, budget=4).share("new", 4)
        with SlotProcess(path, fair_share=4) as old:
            take_there(old, 4)
            share.announce_waiting()
            for slot in (3, 2):
                assert share.acquire_nowait() is None
                assert old.call("must_give_back")
                old.call("release", slot)
                assert share.acquire_nowait() == slot
            assert not old.call("must_give_back")
            assert not is_above_fair_share(share)
            old.kill()
            assert share.acquire_nowait() is None
            later()
            assert sorted(take(share, 2)) == [0, 1]
            assert not is_above_fair_share(share)

    def test_more_pools_than_slots_pass_them_round(self, path):
        file = SlotFile.open(path, budget=1)
        one, two = file.share("one", 1), file.share("two", 1)
        for holder, waiter in ((one, two), (two, one)):
            assert holder.acquire_nowait() == 0
            waiter.announce_waiting()
            assert holder.must_give_back()
            holder.release(0)
            waiter.withdraw_waiting()

    def test_a_pool_that_leaves_claims_and_waits_no_more(self, path):
        file = SlotFile.open(path, budget=4)
        one, two = file.share("one", 4), file.share("two", 4)
        slot = two.acquire_nowait()
        take(one, 3)
        two.announce_waiting()
        assert is_above_fair_share(one)
        with pytest.raises(ValueError, match=r"Pool two leaves but holds the slots \[0\]"):
            two.leave()
        two.release(slot)
        two.leave()
        assert not is_above_fair_share(one)
        assert one.acquire_nowait() == slot
        assert two.acquire_nowait() is None
        assert not one.must_give_back()


def test_statistics_count_every_process(path):
    file = SlotFile.open(path, budget=9)
    take(file.share("one", 1), 2)
    take(file.share("two", 1), 1)
    with SlotProcess(path, now=NOW) as first, SlotProcess(path, now=NOW) as second:
        for process in (first, second, first):
            process.call("acquire_nowait")
        assert file.statistics() == SlotStatistics(budget=9, held=3, used=6)
    assert file.statistics() == SlotStatistics(budget=9, held=3, used=3)


class TestBadPlaces:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
    def test_a_file_that_others_can_open(self, path, mode):
        path.touch()
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*chmod 0600"):
            SlotFile.open(path)

    def test_a_symbolic_link(self, path, tmp_path):
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigurationError, match="symbolic link"):
            SlotFile.open(path)
        assert not (tmp_path / "elsewhere").exists()

    def test_something_that_is_no_file(self, path):
        os.mkfifo(path, 0o600)
        with pytest.raises(ConfigurationError, match="not a regular file"):
            SlotFile.open(path)

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(ConfigurationError, match="No such file or directory"):
            SlotFile.open(tmp_path / "missing" / "slots")

    def test_nothing_stays_open_after_a_refusal(self, path):
        path.touch()
        path.chmod(0o666)
        before = os.listdir("/dev/fd")
        for _ in range(3):
            with pytest.raises(ConfigurationError):
                SlotFile.open(path)
        assert len(os.listdir("/dev/fd")) == len(before)
