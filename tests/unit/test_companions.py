"""What becomes of companion processes: started, replaced one after the other, begun again, ended."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.settings.companions import Companion, companions
from fullhouse.settings.layers import layered
from fullhouse.settings.table import Settings
from fullhouse.supervisor.companions import Action, Companions, Drain, Kill, Program, Start, State
from fullhouse.supervisor.crashes import BACKOFF_S, STABLE_S
from fullhouse.supervisor.policy import Report

TASKS = Program("tasks", ["worker"], {}, 1, 4, "TERM", 60)
CHECK = replace(TASKS, name="migration check", stop_signal="KILL")
BEAT = replace(TASKS, name="beat", graceful_timeout=5)


def kinds(actions: Sequence[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def seats(policy: Companions) -> dict[str, State]:
    return {f"{seat.name} {seat.number}": seat.state for seat in policy.seats}


def test_each_program_starts_as_often_as_it_says() -> None:
    policy = Companions()
    actions = policy.run([replace(TASKS, count=2), BEAT], None, 0)
    assert [action.seat.title for action in actions if isinstance(action, Start)] == ["tasks 1", "tasks 2", "beat"]
    assert policy.next_time == inf


def test_a_successor_starts_only_once_the_one_before_is_gone() -> None:
    policy = Companions()
    policy.run([BEAT], None, 0)
    new = replace(BEAT, words=["newer"])
    (drain,) = policy.run([new], None, 10)
    assert isinstance(drain, Drain)
    assert policy.next_time == 15
    newest = replace(BEAT, words=["newest"])
    assert policy.run([newest], None, 11) == []  # another reload meanwhile
    (start,) = policy.ended(policy.seats[0], "exit code 0", 0, 12)
    assert isinstance(start, Start)
    assert start.program is newest
    assert policy.next_time == inf


def test_what_does_not_drain_is_killed_and_replaced() -> None:
    policy = Companions()
    policy.run([BEAT], None, 0)
    policy.run([BEAT], None, 10)
    report, kill = policy.tick(15)
    assert isinstance(report, Report)
    assert report.text == "beat did not end within 5 s of its stop signal and was killed"
    assert isinstance(kill, Kill)
    assert policy.tick(16) == []
    assert kinds(policy.ended(policy.seats[0], "killed by SIGKILL", -9, 16)) == ["Start"]


def test_what_is_no_longer_wanted_goes_and_what_is_new_comes() -> None:
    policy = Companions()
    policy.run([TASKS], None, 0)
    assert kinds(policy.run([BEAT], None, 1)) == ["Drain", "Start"]
    assert policy.ended(policy.seats[0], "exit code 0", 0, 2) == []
    assert seats(policy) == {"beat 1": State.RUNNING}


def test_a_crash_loop_slows_down_and_a_long_life_ends_it() -> None:
    policy = Companions()
    policy.run([TASKS], None, 0)
    (seat,) = policy.seats
    now = 0.0
    for count, delay in enumerate([*BACKOFF_S, BACKOFF_S[-1]], start=1):
        (report,) = policy.ended(seat, "exit code 1", 1, now)
        assert isinstance(report, Report)
        assert ("crash loop" in report.text) == (count >= 3)
        assert policy.next_time == now + delay
        assert policy.tick(now + delay - 0.1) == []
        now += delay
        assert kinds(policy.tick(now)) == ["Start"]
    policy.ended(seat, "exit code 1", 1, now + STABLE_S)
    assert policy.next_time == now + STABLE_S + BACKOFF_S[0]
    assert seat.crashes.count == 1


def test_a_reload_begins_at_once_what_waits_to_be_started_again() -> None:
    policy = Companions()
    policy.run([TASKS], None, 0)
    for now in (1, 2):
        policy.ended(policy.seats[0], "exit code 1", 1, now)
        policy.tick(2)
    policy.ended(policy.seats[0], "exit code 1", 1, 3)
    assert seats(policy) == {"tasks 1": State.WAITING}
    assert kinds(policy.run([TASKS], None, 3)) == ["Start"]
    policy.ended(policy.seats[0], "exit code 1", 1, 4)
    assert policy.run([], None, 4) == []
    assert policy.seats == []


def test_a_stop_drains_all_and_a_second_one_kills() -> None:
    policy = Companions()
    policy.run([TASKS, BEAT], None, 0)
    policy.ended(policy.seats[1], "exit code 1", 1, 100)  # waits
    assert kinds(policy.stop(100)) == ["Drain"]
    assert policy.next_time == 160
    assert policy.run([TASKS], None, 101) == []
    assert kinds(policy.stop(102)) == ["Kill"]
    assert policy.ended(policy.seats[0], "killed by SIGKILL", -9, 103) == []
    assert policy.seats == []


def test_nothing_is_replaced_before_the_check_has_ended_well() -> None:
    policy = Companions()
    (start,) = policy.run([TASKS], CHECK, 0)
    assert isinstance(start, Start)
    assert start.program is CHECK
    (report,) = policy.ended(start.seat, "exit code 1", 1, 1)
    assert isinstance(report, Report)
    assert report.text == (
        "tasks wait for migrations to be applied (exit code 1): run manage.py migrate. Looking again now."
    )
    (again,) = policy.tick(1)
    assert isinstance(again, Start)
    (tasks,) = policy.ended(again.seat, "exit code 0", 0, 2)
    assert isinstance(tasks, Start)
    assert tasks.program is TASKS
    new = replace(TASKS, words=["newer"])
    (check,) = policy.run([new], CHECK, 10)
    assert isinstance(check, Start)
    assert seats(policy) == {"migration check 1": State.RUNNING, "tasks 1": State.RUNNING}
    assert kinds(policy.ended(check.seat, "exit code 0", 0, 11)) == ["Drain"]


def test_a_reload_begins_the_check_anew() -> None:
    policy = Companions()
    policy.run([TASKS], CHECK, 0)
    (drain,) = policy.run([BEAT], CHECK, 1)  # a check of the code before says nothing
    assert isinstance(drain, Drain)
    (start,) = policy.ended(drain.seat, "killed by SIGKILL", -9, 2)
    assert isinstance(start, Start)
    assert [
        action.seat.name for action in policy.ended(start.seat, "exit code 0", 0, 3) if isinstance(action, Start)
    ] == ["beat"]


def test_a_stop_ends_the_check_too() -> None:
    policy = Companions()
    policy.run([TASKS], CHECK, 0)
    (drain,) = policy.stop(1)
    assert isinstance(drain, Drain)
    assert policy.ended(drain.seat, "killed by SIGKILL", -9, 2) == []
    assert policy.seats == []


def test_without_programs_there_is_nothing_to_check() -> None:
    policy = Companions()
    policy.run([TASKS], None, 0)
    assert kinds(policy.run([], CHECK, 1)) == ["Drain"]


def read(given: dict[str, Any], **options: Any) -> tuple[Companion, ...]:
    return companions(layered(Settings(), {"processes": given, **options}, "FULLHOUSE in site.settings"))


def test_a_command_alone_is_one_process_with_one_connection() -> None:
    expected = Companion("tasks", ("manage.py", "db_worker", "--queue", "two words"), 1, 1, "TERM", 12)
    assert read({"tasks": "manage.py db_worker --queue 'two words'"}, graceful_timeout=12) == (expected,)


def test_a_dict_says_more() -> None:
    given = {"command": ["huey"], "count": 2, "connections": 0, "stop_signal": "sigint", "graceful_timeout": 90}
    assert read({"huey": given}) == (Companion("huey", ("huey",), 2, 0, "INT", 90),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"web": "x"}, "processes['web']: a name has letters, digits, - and _, and is not web or reserve"),
        ({"a b": "x"}, "processes['a b']: a name has letters"),
        ({"tasks": ""}, "processes['tasks']: command must be a command in one text, or its words in a list, not ''"),
        ({"tasks": "'open"}, 'command must be a command in one text, or its words in a list, not "\'open"'),
        ({"tasks": {}}, "command must be a command in one text, or its words in a list, not None"),
        ({"tasks": 3}, "command must be"),
        ({"tasks": {"command": "x", "conections": 2}}, "has no option 'conections'. Did you mean connections?"),
        ({"tasks": {"command": "x", "connections": -1}}, "connections must be a whole number of at least 0, not -1"),
        ({"tasks": {"command": "x", "count": 0}}, "count must be a whole number of at least 1, not 0"),
        ({"tasks": {"command": "x", "stop_signal": "STOPP"}}, "stop_signal must be the name of a signal, such as"),
        ({"tasks": {"command": "x", "graceful_timeout": 0}}, "graceful_timeout must be a number above 0, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(given)
    assert str(refused.value).startswith("FULLHOUSE in site.settings: processes[")
    assert message in str(refused.value)
