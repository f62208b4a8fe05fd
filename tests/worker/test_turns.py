"""Who runs the loop, with every order of events that matters forced."""

import threading
from contextlib import contextmanager

import pytest
from serving import PATIENCE_S, gunicorn, read_response, wait_until

from fullhouse.worker import turns as module
from fullhouse.worker.turns import QUICK_S, LoopTurns, Quickness


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: example\r\n\r\n".encode()


def test_the_loop_is_lent_while_requests_are_short():
    quickness = Quickness()
    assert quickness.is_worth_lending(QUICK_S / 2, 0.0)
    assert not quickness.is_worth_lending(QUICK_S, 0.0)


def test_the_loop_is_lent_again_a_while_after_requests_waited_for_others():
    quickness = Quickness()
    assert quickness.ran(50, 0.05, 0.05, now=1.0), "the processor was busy all the time"
    assert quickness.ran(2, 0.0015, 0.001, now=2.0), "they waited less than a change of threads costs"
    assert not quickness.ran(1, 0.1, 0.001, now=3.0)
    assert not quickness.is_worth_lending(0.001, 3.9)
    assert quickness.is_worth_lending(0.001, 4.1)
    assert quickness.ran(1, 0.001, 0.001, now=5.0), "what was before is forgotten"


def test_the_loop_is_lent_more_and_more_seldom_while_requests_take_long_also_alone():
    quickness = Quickness()
    quickness.came_back(QUICK_S, now=1.0)
    assert not quickness.is_worth_lending(QUICK_S / 2, 1.9)
    assert quickness.is_worth_lending(QUICK_S / 2, 2.1)
    quickness.came_back(QUICK_S, now=3.0)
    assert not quickness.is_worth_lending(QUICK_S / 2, 4.9)
    quickness.came_back(QUICK_S / 2, now=6.0)
    assert quickness.is_worth_lending(QUICK_S / 2, 6.0), "alone they are quick"
    quickness.came_back(QUICK_S, now=7.0)
    assert quickness.is_worth_lending(QUICK_S / 2, 8.1)


class Main(threading.Thread):
    """Lends the loop, as the main thread does; `error` is what went wrong in it meanwhile."""

    def __init__(self, turns: LoopTurns) -> None:
        super().__init__(daemon=True)
        self._turns = turns
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._turns.lend()
        except ValueError as error:
            self.error = error


@pytest.fixture
def turns(monkeypatch) -> LoopTurns:
    """Whose main thread looks after the loop only when the test says so, however slow the machine is."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", PATIENCE_S)
    return LoopTurns()


def look_until(turns: LoopTurns, condition, what: str) -> None:
    """Have the main thread look after the loop until it holds."""

    def holds() -> bool:
        turns._wakes.put(None)
        return condition()

    wait_until(holds, what)


@contextmanager
def lent(turns: LoopTurns):
    main = Main(turns)
    main.start()
    wait_until(lambda: turns.turn(list) or not main.is_alive(), "the loop is lent")
    yield main
    look_until(turns, lambda: not main.is_alive(), "the loop has come back")
    assert not turns.turn(list), "it belongs to the main thread again"


@contextmanager
def waiting_in_the_loop(turns: LoopTurns, then=list):
    """Another thread runs the loop, which waits for clients meanwhile; `then` what it meets there."""
    inside, gate = threading.Event(), threading.Event()

    def run_loop() -> None:
        inside.set()
        gate.wait(PATIENCE_S)
        then()

    leader = threading.Thread(target=turns.turn, args=(run_loop,), daemon=True)
    leader.start()
    assert inside.wait(PATIENCE_S)
    yield
    gate.set()
    leader.join(PATIENCE_S)


def test_nobody_runs_a_loop_that_is_not_lent(turns):
    assert not turns.turn(lambda: pytest.fail("it is run"))


def test_the_main_thread_takes_a_loop_that_nobody_runs(turns):
    with lent(turns):
        pass  # as a thread that is held up by its request


def test_only_one_thread_runs_the_loop(turns):
    with lent(turns), waiting_in_the_loop(turns):
        assert not turns.turn(lambda: pytest.fail("it is run twice"))


def test_the_main_thread_sleeps_while_clients_are_waited_for(turns):
    with lent(turns) as main, waiting_in_the_loop(turns):
        look_until(turns, lambda: turns._main_sleeps, "the main thread sleeps")
        assert main.is_alive()


def test_the_loop_is_given_back(turns):
    with lent(turns) as main, waiting_in_the_loop(turns):
        look_until(turns, lambda: turns._main_sleeps, "the main thread sleeps")
        turns.give_back()
        assert not turns.turn(list)
        assert main.is_alive(), "another thread is in the loop"


def test_the_loop_is_lent_once_more_after_it_was_given_back(turns):
    for _ in range(3):
        with lent(turns):
            turns.give_back()


def test_a_loop_that_was_recalled_is_never_lent_again(turns):
    with lent(turns), waiting_in_the_loop(turns):
        turns.recall()
    main = Main(turns)
    main.start()
    main.join(PATIENCE_S)
    assert not main.is_alive()
    assert not turns.turn(list)


def test_the_main_thread_is_told_what_went_wrong_in_the_loop(turns):
    def fail() -> None:
        raise ValueError("out of memory")

    with lent(turns) as main, waiting_in_the_loop(turns, then=fail):
        pass
    assert str(main.error) == "out of memory"


def test_a_request_that_takes_long_holds_nobody_up_although_its_thread_ran_the_loop(tmp_path):
    serving = gunicorn(tmp_path, "apps:gated", threads=2, keepalive=20)
    with serving as server, server.connect() as quick, server.connect() as slow:
        for _ in range(50):  # so the loop is lent
            quick.sendall(get("/arrived?0"))
            read_response(quick)
        slow.sendall(get("/wait"))
        quick.sendall(get("/arrived?1") + get("/open"))
        read_response(quick)
        assert b"200 OK" in read_response(slow)[0]
