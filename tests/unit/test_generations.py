"""The supervisor's decisions, without a process and without a clock."""

from collections.abc import Mapping
from typing import Any

import pytest

from fullhouse.supervisor.policy import (
    BACKOFF_S,
    CRASH_LOOP,
    STABLE_S,
    STOPPING,
    Action,
    Answer,
    Caller,
    Drain,
    Finish,
    House,
    Kill,
    Opened,
    Report,
    Spawn,
    State,
    Unready,
)


class Asked(Caller):
    def answer(self, reply: Mapping[str, Any]) -> None:
        raise AssertionError("the engine answers nobody itself")


def new_house() -> House:
    return House(boot_timeout_s=60, graceful_timeout_s=30)


def bring_up(house: House, number: int, now: float = 0) -> list[Action]:
    """Let the generation tell that it has two workers, and both be ready."""
    house.planned(number, 2)
    assert house.worker_ready(number, 100 * number + 1, now) == []
    return house.worker_ready(number, 100 * number + 2, now)


@pytest.fixture
def house() -> House:
    """With generation 1 serving since 0."""
    house = new_house()
    assert house.start(0) == [Spawn(1)]
    assert bring_up(house, 1) == [Opened(1)]
    return house


def states(house: House) -> dict[int, State]:
    return {one.number: one.state for one in house.generations}


def test_a_reload_drains_the_old_once_all_workers_of_the_new_are_ready(house: House) -> None:
    asked = Asked()
    assert house.reload(5, asked) == [Spawn(2)]
    assert bring_up(house, 2, 6) == [Opened(2), Drain(1), Answer([asked], None)]
    assert states(house) == {1: State.DRAINING, 2: State.READY}
    assert house.gone(1, "exit code 0", 7) == []
    assert states(house) == {2: State.READY}


def test_one_worker_twice_is_not_two(house: House) -> None:
    house.reload(5)
    house.planned(2, 2)
    assert house.worker_ready(2, 201, 6) == []
    assert house.worker_ready(2, 201, 6) == []


@pytest.mark.parametrize("reason", ["failed", "exits", "dies", "hangs"])
def test_a_broken_deploy_is_discarded_and_the_old_one_serves_on(house: House, reason: str) -> None:
    asked = Asked()
    house.reload(5, asked)
    house.planned(2, 2)
    match reason:
        case "failed":
            actions = house.failed(2, "SyntaxError", 5, 6)
        case "exits":
            actions = house.worker_ended(2, 201, 0.5, 1, 6)
        case "dies":
            actions = []
        case _:
            actions = house.tick(65)
    actions += house.gone(2, "exit code 5", 66)
    assert (Kill(2) in actions) == (reason != "dies")
    (answer,) = [action for action in actions if isinstance(action, Answer)]
    assert answer.callers == [asked]
    assert answer.failure == house.last_failure
    assert answer.failure
    assert not [action for action in actions if isinstance(action, Spawn | Drain | Finish)]
    assert states(house) == {1: State.READY}
    assert house.crashes == 0


def test_the_first_reason_is_the_one_told(house: House) -> None:
    house.reload(5)
    house.failed(2, "the reason", 5, 6)
    assert house.failed(2, "the second worker's", 5, 6) == []
    assert house.worker_ended(2, 201, 0.5, 1, 6) == []
    house.gone(2, "killed by SIGKILL", 6)
    assert house.last_failure == "the reason"


def test_a_good_reload_clears_the_failure(house: House) -> None:
    house.reload(5)
    house.failed(2, "broken", 5, 6)
    house.gone(2, "killed", 6)
    house.reload(7)
    bring_up(house, 3, 8)
    assert house.last_failure is None


def test_reloads_during_a_reload_come_after_it_once_for_all(house: House) -> None:
    first, second, third = Asked(), Asked(), Asked()
    house.reload(5, first)
    assert house.reload(5, second) == []
    assert house.reload(5, third) == []
    assert bring_up(house, 2, 6) == [Opened(2), Drain(1), Answer([first], None)]
    assert house.gone(1, "exit code 0", 6) == [Spawn(3)]
    assert bring_up(house, 3, 7) == [Opened(3), Drain(2), Answer([second, third], None)]


def test_a_reload_waiting_behind_a_broken_one_still_comes(house: House) -> None:
    asked = Asked()
    house.reload(5)
    house.reload(5, asked)
    house.failed(2, "broken", 5, 6)
    assert house.gone(2, "killed", 6)[-1] == Spawn(3)
    assert bring_up(house, 3, 7)[-1] == Answer([asked], None)


def test_a_reload_waits_while_one_drains_for_the_plan_counts_two(house: House) -> None:
    asked = Asked()
    house.reload(5)
    bring_up(house, 2, 6)
    assert house.reload(7, asked) == []
    assert house.gone(1, "exit code 0", 8) == [Spawn(3)]
    assert bring_up(house, 3, 9)[-1] == Answer([asked], None)


def test_who_waits_for_a_drain_gets_what_replaces_a_crashed_one(house: House) -> None:
    asked = Asked()
    house.reload(5)
    bring_up(house, 2, 6)
    house.reload(7, asked)
    house.gone(2, "killed by SIGKILL", 8)
    assert house.tick(8) == [Spawn(3)]
    assert house.gone(1, "exit code 0", 9) == []
    assert bring_up(house, 3, 10)[-1] == Answer([asked], None)


def test_a_reload_at_start_waits_for_the_first_generation() -> None:
    house, asked = new_house(), Asked()
    house.start(0)
    assert house.reload(1, asked) == []
    assert bring_up(house, 1, 2) == [Opened(1), Spawn(2)]


def test_a_first_generation_that_fails_ends_the_supervisor_with_its_code() -> None:
    house, asked = new_house(), Asked()
    house.start(0)
    house.reload(1, asked)
    assert house.failed(1, "no such module", 5, 1, in_log=True) == []
    assert house.gone(1, "killed by SIGKILL", 2) == [Answer([asked], "no such module"), Finish(5)]


def test_a_first_master_that_dies_without_a_word_gives_its_own_code() -> None:
    house = new_house()
    house.start(0)
    assert house.gone(1, "exit code 3", 2, 3)[-1] == Finish(3)


def test_a_first_generation_that_hangs_ends_the_supervisor() -> None:
    house = new_house()
    house.start(0)
    assert house.next_time == 60
    assert Kill(1) in house.tick(60)
    assert house.gone(1, "killed by SIGKILL", 61)[-1] == Finish(5)


def test_stop_drains_and_finishes_when_all_are_gone(house: House) -> None:
    assert house.stop(5) == [Unready(), Answer([], STOPPING), Drain(1)]
    assert house.gone(1, "exit code 0", 6) == [Finish(0)]


def test_a_stop_with_a_delay_serves_on_while_it_is_seen_to_be_unready() -> None:
    house = House(boot_timeout_s=60, graceful_timeout_s=30, stop_delay_s=4)
    house.start(0)
    bring_up(house, 1)
    assert house.stop(5) == [Unready(), Answer([], STOPPING)]
    assert states(house) == {1: State.READY}
    assert house.next_time == 9
    assert house.tick(8) == []
    assert house.tick(9) == [Drain(1)]
    assert house.gone(1, "exit code 0", 10) == [Finish(0)]


def test_a_second_stop_does_not_wait_for_the_delay() -> None:
    house = House(boot_timeout_s=60, graceful_timeout_s=30, stop_delay_s=4)
    house.start(0)
    bring_up(house, 1)
    house.stop(5)
    assert house.stop(6) == [Kill(1)]


def test_stop_twice_ends_everything_at_once(house: House) -> None:
    house.stop(5)
    assert house.stop(6) == [Kill(1)]


def test_stop_during_a_reload_drains_the_old_and_ends_the_new(house: House) -> None:
    first, second = Asked(), Asked()
    house.reload(5, first)
    house.reload(5, second)
    actions = house.stop(6)
    assert {Drain(1), Kill(2)} <= {action for action in actions if isinstance(action, Drain | Kill)}
    answered = [caller for action in actions if isinstance(action, Answer) for caller in action.callers]
    assert answered == [first, second]
    assert house.worker_ready(2, 201, 6) == []
    assert house.gone(2, "killed", 6) == []
    assert house.gone(1, "exit code 0", 6) == [Finish(0)]


def test_a_reload_while_stopping_is_refused(house: House) -> None:
    house.stop(5)
    (answer,) = house.reload(6, Asked())
    assert isinstance(answer, Answer)
    assert answer.failure


def test_a_drain_that_takes_too_long_is_cut(house: House) -> None:
    house.stop(5)
    assert house.next_time == 5 + 30 + 5
    assert Kill(1) in house.tick(house.next_time)


def test_a_crashed_generation_is_replaced_with_growing_delays(house: House) -> None:
    now, number = 1.0, 1
    for delay in (*BACKOFF_S, BACKOFF_S[-1]):
        (report,) = house.gone(number, "killed by SIGKILL", now)
        assert isinstance(report, Report)
        assert ("crash loop" in report.text) == (house.crashes >= CRASH_LOOP)
        assert house.next_time == now + delay
        now += delay
        number += 1
        assert house.tick(now) == [Spawn(number)]
        bring_up(house, number, now)


def test_a_generation_that_served_long_ends_the_row_of_crashes(house: House) -> None:
    house.crashes = 5
    house.gone(1, "killed by SIGKILL", STABLE_S)
    assert house.crashes == 1
    assert house.next_time == STABLE_S


def test_a_replacement_that_does_not_come_up_is_tried_again(house: House) -> None:
    house.gone(1, "killed by SIGKILL", 1)
    house.tick(1)
    assert house.failed(2, "the database is down", 3, 1, in_log=True) == []
    (report,) = house.gone(2, "killed", 2)
    assert isinstance(report, Report)
    assert house.tick(house.next_time) == [Spawn(3)]


def test_a_reload_during_a_crash_loop_does_not_wait_for_the_backoff(house: House) -> None:
    house.crashes = 5
    house.gone(1, "killed by SIGKILL", 1)
    assert house.reload(2) == [Spawn(2)]
    assert house.tick(100) != [Spawn(3)]


def test_a_serving_generation_that_dies_during_a_reload_is_replaced_by_the_new_one(house: House) -> None:
    house.reload(5)
    assert all(isinstance(action, Report) for action in house.gone(1, "killed by SIGKILL", 6))
    assert bring_up(house, 2, 7)[0] == Opened(2)


def test_stop_during_a_backoff_finishes_at_once(house: House) -> None:
    house.crashes = 5
    house.gone(1, "killed by SIGKILL", 1)
    assert house.stop(2)[-1] == Finish(0)


def test_workers_that_keep_ending_are_told_as_a_crash_loop(house: House) -> None:
    assert house.worker_ended(1, 101, 900.0, 0, 9) == []
    (report,) = house.worker_ended(1, 102, 0.2, CRASH_LOOP, 9)
    assert isinstance(report, Report)
    assert "crash loop" in report.text


def test_a_generation_that_ends_itself_gets_a_moment_for_it(house: House) -> None:
    house.reload(5)
    assert house.failed(2, "does not import", 5, 6, in_log=True) == []
    assert house.tick(6) == []
    assert house.tick(house.next_time) == [Kill(2)]
    assert house.tick(100) == []
