"""Who runs the loop, with every order of events that matters forced."""

import threading
from contextlib import contextmanager
from math import inf

import pytest
from serving import PATIENCE_S, gunicorn, read_response, wait_until

from fullhouse.worker import turns as module
from fullhouse.worker.processors import idle_s
from fullhouse.worker.turns import Figures, LoopChoice, LoopTurns, Way


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: example\r\n\r\n".encode()


class Site:
    """A worker that is asked for more than it can do, or for `rate` a second: how each way serves it.

    cpu_s: what one request computes, in each way. idle: which part of a processor stands idle meanwhile.
    """

    def __init__(self, cpu_s: dict[Way, float], idle: dict[Way, float], rate: float = inf) -> None:
        self._cpu_s, self._idle, self._rate = cpu_s, idle, rate
        self.choice = LoopChoice()
        self.now = 1000.0
        self.figures = Figures(0.0, 0.0, 0.0, 0.0, 0.0)
        self.in_flight = 0
        self.seconds = dict.fromkeys(Way, 0.0)

    def run(self, seconds: float) -> Way:
        """Serve for so long; the way at the end."""
        end = self.now + seconds
        while self.now < end:
            self._serve(0.001)
            if self.now >= self.choice.look_at:
                self.choice.look(self.now, self.figures, self.in_flight)
        return self.choice.way

    def _serve(self, seconds: float) -> None:
        way, figures = self.choice.way, self.figures
        self.now += seconds
        self.seconds[way] += seconds
        most = (1 - self._idle[way]) / self._cpu_s[way]
        answered = min(most, self._rate) * seconds
        self.in_flight = int(self._rate > most)
        self.figures = Figures(
            figures.answered + answered,
            figures.answer_s + answered * self._cpu_s[way] * (2 if self._rate > most else 1),
            figures.waited_s + seconds * (1 - min(1.0, self._rate / most)),
            figures.cpu_s + answered * self._cpu_s[way],
            figures.idle_s + seconds * self._idle[way],
        )


NEVER_IDLE = dict.fromkeys(Way, 0.0)
CHEAP_KEPT = {Way.MAIN: 0.0007, Way.PASSED_ON: 0.0006, Way.KEPT: 0.0004}


def test_the_loop_is_kept_where_the_processors_are_full():
    assert Site(CHEAP_KEPT, NEVER_IDLE).run(12) is Way.KEPT


def test_the_loop_is_passed_on_where_the_processor_would_stand_idle():
    site = Site(CHEAP_KEPT, {Way.MAIN: 0.0, Way.PASSED_ON: 0.0, Way.KEPT: 0.6})
    assert site.run(12) is Way.PASSED_ON
    site.seconds = dict.fromkeys(Way, 0.0)
    site.run(60)
    assert site.seconds[Way.PASSED_ON] > 0.94 * sum(site.seconds.values()), "trials take little of its time"


def test_another_way_is_chosen_once_another_is_better():
    site = Site(CHEAP_KEPT, NEVER_IDLE)
    site.run(30)
    site._idle = {Way.MAIN: 0.0, Way.PASSED_ON: 0.0, Way.KEPT: 0.6}
    assert site.run(12) is Way.PASSED_ON


def test_where_all_that_come_are_served_the_way_that_answers_soonest_is_kept():
    site = Site({Way.MAIN: 0.0003, Way.PASSED_ON: 0.0005, Way.KEPT: 0.0004}, NEVER_IDLE, rate=200)
    assert site.run(12) is Way.MAIN


def test_long_requests_get_their_threads_from_the_main_thread_at_once():
    site = Site(dict.fromkeys(Way, 0.005), NEVER_IDLE)
    site.run(0.3)
    assert site.run(20) is Way.MAIN
    assert site.seconds[Way.MAIN] > 19.5
    site._cpu_s = CHEAP_KEPT
    assert site.run(12) is Way.KEPT, "they have become short"


def test_nothing_is_learnt_from_few_requests():
    site = Site({Way.MAIN: 0.0003, Way.PASSED_ON: 0.0005, Way.KEPT: 0.0004}, NEVER_IDLE, rate=20)
    assert site.run(19) is Way.KEPT


def test_nothing_is_learnt_while_no_requests_come():
    """What was learnt before counts once they come again."""
    site = Site(CHEAP_KEPT, {Way.MAIN: 0.0, Way.PASSED_ON: 0.0, Way.KEPT: 0.6})
    assert site.run(12) is Way.PASSED_ON
    site._rate = 0
    assert site.run(12) is Way.PASSED_ON


def test_all_workers_try_at_the_same_moments():
    sites = [Site(CHEAP_KEPT, NEVER_IDLE) for _ in range(2)]
    sites[1].now += 1.7
    sites[1].run(3.3)
    sites[0].run(5)
    for _ in range(100):
        assert abs(sites[0].now - sites[1].now) < 0.01
        assert sites[0].run(0.002) is sites[1].run(0.002)


def test_the_idle_time_of_the_processors_is_told():
    before = idle_s()
    assert before > 0
    wait_until(lambda: idle_s() > before, "a processor has stood idle")


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
