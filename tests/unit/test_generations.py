"""The supervisor's decisions, without a process and without a clock."""

from collections.abc import Mapping
from typing import Any

import pytest

from fullhouse.supervisor.crashes import BACKOFF_S, CRASH_LOOP, STABLE_S
from fullhouse.supervisor.policy import (
    STOPPING,
    Action,
    Answer,
    Caller,
    Drain,
    Finish,
    Kill,
    Opened,
    Policy,
    Report,
    Spawn,
    State,
    Unready,
)


class Asked(Caller):
    def answer(self, reply: Mapping[str, Any]) -> None:
        raise AssertionError("the engine answers nobody itself")


def new_house() -> Policy:
    return Policy(boot_timeout_s=60, graceful_timeout_s=30)


def bring_up(policy: Policy, number: int, now: float = 0) -> list[Action]:
    """Let the generation tell that it has two workers, and both be ready."""
    policy.planned(number, 2)
    assert policy.worker_ready(number, 100 * number + 1, now) == []
    return policy.worker_ready(number, 100 * number + 2, now)


@pytest.fixture
def policy() -> Policy:
    """With generation 1 serving since 0."""
    policy = new_house()
    assert policy.start(0) == [Spawn(1)]
    assert bring_up(policy, 1) == [Opened(1)]
    return policy


def states(policy: Policy) -> dict[int, State]:
    return {one.number: one.state for one in policy.generations}


def test_a_reload_drains_the_old_once_all_workers_of_the_new_are_ready(policy: Policy) -> None:
    asked = Asked()
    assert policy.reload(5, asked) == [Spawn(2)]
    assert bring_up(policy, 2, 6) == [Opened(2), Drain(1), Answer([asked], None)]
    assert states(policy) == {1: State.DRAINING, 2: State.READY}
    assert policy.gone(1, "exit code 0", 7) == []
    assert states(policy) == {2: State.READY}


def test_one_worker_twice_is_not_two(policy: Policy) -> None:
    policy.reload(5)
    policy.planned(2, 2)
    assert policy.worker_ready(2, 201, 6) == []
    assert policy.worker_ready(2, 201, 6) == []


@pytest.mark.parametrize("reason", ["failed", "exits", "dies", "hangs"])
def test_a_broken_deploy_is_discarded_and_the_old_one_serves_on(policy: Policy, reason: str) -> None:
    asked = Asked()
    policy.reload(5, asked)
    policy.planned(2, 2)
    match reason:
        case "failed":
            actions = policy.failed(2, "SyntaxError", 5, 6)
        case "exits":
            actions = policy.worker_ended(2, 201, 0.5, 1, 6)
        case "dies":
            actions = []
        case _:
            actions = policy.tick(65)
    actions += policy.gone(2, "exit code 5", 66)
    assert (Kill(2) in actions) == (reason != "dies")
    (answer,) = [action for action in actions if isinstance(action, Answer)]
    assert answer.callers == [asked]
    assert answer.failure == policy.last_failure
    assert answer.failure
    assert not [action for action in actions if isinstance(action, Spawn | Drain | Finish)]
    assert states(policy) == {1: State.READY}
    assert policy.crashes.count == 0


def test_the_first_reason_is_the_one_told(policy: Policy) -> None:
    policy.reload(5)
    policy.failed(2, "the reason", 5, 6)
    assert policy.failed(2, "the second worker's", 5, 6) == []
    assert policy.worker_ended(2, 201, 0.5, 1, 6) == []
    policy.gone(2, "killed by SIGKILL", 6)
    assert policy.last_failure == "the reason"


def test_a_good_reload_clears_the_failure(policy: Policy) -> None:
    policy.reload(5)
    policy.failed(2, "broken", 5, 6)
    policy.gone(2, "killed", 6)
    policy.reload(7)
    bring_up(policy, 3, 8)
    assert policy.last_failure is None


def test_reloads_during_a_reload_come_after_it_once_for_all(policy: Policy) -> None:
    first, second, third = Asked(), Asked(), Asked()
    policy.reload(5, first)
    assert policy.reload(5, second) == []
    assert policy.reload(5, third) == []
    assert bring_up(policy, 2, 6) == [Opened(2), Drain(1), Answer([first], None)]
    assert policy.gone(1, "exit code 0", 6) == [Spawn(3)]
    assert bring_up(policy, 3, 7) == [Opened(3), Drain(2), Answer([second, third], None)]


def test_a_reload_waiting_behind_a_broken_one_still_comes(policy: Policy) -> None:
    asked = Asked()
    policy.reload(5)
    policy.reload(5, asked)
    policy.failed(2, "broken", 5, 6)
    assert policy.gone(2, "killed", 6)[-1] == Spawn(3)
    assert bring_up(policy, 3, 7)[-1] == Answer([asked], None)


def test_a_reload_waits_while_one_drains_for_the_plan_counts_two(policy: Policy) -> None:
    asked = Asked()
    policy.reload(5)
    bring_up(policy, 2, 6)
    assert policy.reload(7, asked) == []
    assert policy.gone(1, "exit code 0", 8) == [Spawn(3)]
    assert bring_up(policy, 3, 9)[-1] == Answer([asked], None)


def test_who_waits_for_a_drain_gets_what_replaces_a_crashed_one(policy: Policy) -> None:
    asked = Asked()
    policy.reload(5)
    bring_up(policy, 2, 6)
    policy.reload(7, asked)
    policy.gone(2, "killed by SIGKILL", 8)
    assert policy.tick(8) == [Spawn(3)]
    assert policy.gone(1, "exit code 0", 9) == []
    assert bring_up(policy, 3, 10)[-1] == Answer([asked], None)


def test_a_reload_at_start_waits_for_the_first_generation() -> None:
    policy, asked = new_house(), Asked()
    policy.start(0)
    assert policy.reload(1, asked) == []
    assert bring_up(policy, 1, 2) == [Opened(1), Spawn(2)]


def test_a_first_generation_that_fails_ends_the_supervisor_with_its_code() -> None:
    policy, asked = new_house(), Asked()
    policy.start(0)
    policy.reload(1, asked)
    assert policy.failed(1, "no such module", 5, 1, in_log=True) == []
    assert policy.gone(1, "killed by SIGKILL", 2) == [Answer([asked], "no such module"), Finish(5)]


def test_a_first_master_that_dies_without_a_word_gives_its_own_code() -> None:
    policy = new_house()
    policy.start(0)
    assert policy.gone(1, "exit code 3", 2, 3)[-1] == Finish(3)


def test_a_first_generation_that_hangs_ends_the_supervisor() -> None:
    policy = new_house()
    policy.start(0)
    assert policy.next_time == 60
    assert Kill(1) in policy.tick(60)
    assert policy.gone(1, "killed by SIGKILL", 61)[-1] == Finish(5)


def test_stop_drains_and_finishes_when_all_are_gone(policy: Policy) -> None:
    assert policy.stop(5) == [Unready(), Answer([], STOPPING), Drain(1)]
    assert policy.gone(1, "exit code 0", 6) == [Finish(0)]


def test_a_stop_with_a_delay_serves_on_while_it_is_seen_to_be_unready() -> None:
    policy = Policy(boot_timeout_s=60, graceful_timeout_s=30, stop_delay_s=4)
    policy.start(0)
    bring_up(policy, 1)
    assert policy.stop(5) == [Unready(), Answer([], STOPPING)]
    assert states(policy) == {1: State.READY}
    assert policy.next_time == 9
    assert policy.tick(8) == []
    assert policy.tick(9) == [Drain(1)]
    assert policy.gone(1, "exit code 0", 10) == [Finish(0)]


def test_a_second_stop_does_not_wait_for_the_delay() -> None:
    policy = Policy(boot_timeout_s=60, graceful_timeout_s=30, stop_delay_s=4)
    policy.start(0)
    bring_up(policy, 1)
    policy.stop(5)
    assert policy.stop(6) == [Kill(1)]


def test_stop_twice_ends_everything_at_once(policy: Policy) -> None:
    policy.stop(5)
    assert policy.stop(6) == [Kill(1)]


def test_stop_during_a_reload_drains_the_old_and_ends_the_new(policy: Policy) -> None:
    first, second = Asked(), Asked()
    policy.reload(5, first)
    policy.reload(5, second)
    actions = policy.stop(6)
    assert {Drain(1), Kill(2)} <= {action for action in actions if isinstance(action, Drain | Kill)}
    answered = [caller for action in actions if isinstance(action, Answer) for caller in action.callers]
    assert answered == [first, second]
    assert policy.worker_ready(2, 201, 6) == []
    assert policy.gone(2, "killed", 6) == []
    assert policy.gone(1, "exit code 0", 6) == [Finish(0)]


def test_a_reload_while_stopping_is_refused(policy: Policy) -> None:
    policy.stop(5)
    (answer,) = policy.reload(6, Asked())
    assert isinstance(answer, Answer)
    assert answer.failure


def test_a_drain_that_takes_too_long_is_cut(policy: Policy) -> None:
    policy.stop(5)
    assert policy.next_time == 5 + 30 + 5
    assert Kill(1) in policy.tick(policy.next_time)


def test_a_crashed_generation_is_replaced_with_growing_delays(policy: Policy) -> None:
    now, number = 1.0, 1
    for delay in (*BACKOFF_S, BACKOFF_S[-1]):
        (report,) = policy.gone(number, "killed by SIGKILL", now)
        assert isinstance(report, Report)
        assert ("crash loop" in report.text) == (policy.crashes.count >= CRASH_LOOP)
        assert policy.next_time == now + delay
        now += delay
        number += 1
        assert policy.tick(now) == [Spawn(number)]
        bring_up(policy, number, now)


def test_a_generation_that_served_long_ends_the_row_of_crashes(policy: Policy) -> None:
    policy.crashes.count = 5
    policy.gone(1, "killed by SIGKILL", STABLE_S)
    assert policy.crashes.count == 1
    assert policy.next_time == STABLE_S


def test_a_replacement_that_does_not_come_up_is_tried_again(policy: Policy) -> None:
    policy.gone(1, "killed by SIGKILL", 1)
    policy.tick(1)
    assert policy.failed(2, "the database is down", 3, 1, in_log=True) == []
    (report,) = policy.gone(2, "killed", 2)
    assert isinstance(report, Report)
    assert policy.tick(policy.next_time) == [Spawn(3)]


def test_a_reload_during_a_crash_loop_does_not_wait_for_the_backoff(policy: Policy) -> None:
    policy.crashes.count = 5
    policy.gone(1, "killed by SIGKILL", 1)
    assert policy.reload(2) == [Spawn(2)]
    assert policy.tick(100) != [Spawn(3)]


def test_a_serving_generation_that_dies_during_a_reload_is_replaced_by_the_new_one(policy: Policy) -> None:
    policy.reload(5)
    assert all(isinstance(action, Report) for action in policy.gone(1, "killed by SIGKILL", 6))
    assert bring_up(policy, 2, 7)[0] == Opened(2)


def test_stop_during_a_backoff_finishes_at_once(policy: Policy) -> None:
    policy.crashes.count = 5
    policy.gone(1, "killed by SIGKILL", 1)
    assert policy.stop(2)[-1] == Finish(0)


def test_workers_that_keep_ending_are_told_as_a_crash_loop(policy: Policy) -> None:
    assert policy.worker_ended(1, 101, 900.0, 0, 9) == []
    (report,) = policy.worker_ended(1, 102, 0.2, CRASH_LOOP, 9)
    assert isinstance(report, Report)
    assert "crash loop" in report.text


def test_a_generation_that_ends_itself_gets_a_moment_for_it(policy: Policy) -> None:
    policy.reload(5)
    assert policy.failed(2, "does not import", 5, 6, in_log=True) == []
    assert policy.tick(6) == []
    assert policy.tick(policy.next_time) == [Kill(2)]
    assert policy.tick(100) == []
