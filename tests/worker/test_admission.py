"""The queue in front of the threads, with a clock of the test's own."""

from collections import deque
from collections.abc import Iterable
from math import inf
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullhouse.worker.admission.concurrency import Concurrency
from fullhouse.worker.admission.fairness import Fairness
from fullhouse.worker.admission.queue import Admission, AdmissionRules, Priority, Waiting
from fullhouse.worker.admission.sliding_minimum import SlidingMinimum
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import PeerList
from fullhouse.worker.triage import Triage, parse_request_start

EVERYBODY = PeerList(everybody=True)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 9)), max_size=60), st.sampled_from([0.5, 1.0, 5.0]))
def test_the_sliding_minimum_is_that_of_the_window(steps, window_s):
    sliding, kept, now = SlidingMinimum(window_s), deque(), 0.0
    for pause_s, value in steps:
        now += pause_s
        sliding.add(now, value)
        kept.append((now, value))
        assert sliding.minimum(now) == min(value for at, value in kept if at >= now - window_s)


def offer(admission: Admission, now: float, *names: str, **more) -> list:
    return [shed for name in names for shed in admission.offer(Waiting(name, now, **more), now)]


def test_the_oldest_runs_first():
    admission = Admission(AdmissionRules())
    assert offer(admission, 0.0, "a", "b", "c") == []
    assert admission.oldest_wait_s(2.0) == 2.0
    assert [admission.take(2.0) for _ in range(4)] == [("a", []), ("b", []), ("c", []), (None, [])]
    assert (admission.waiting, admission.shed, admission.oldest_wait_s(3.0)) == (0, 0, 0.0)


def run(admission: Admission, now: float) -> tuple[object, list]:
    """Take a request and have it served; what ran, and what was shed."""
    job, shed = admission.take(now)
    if job is not None:
        admission.served(0.0)
    return job, shed


def overload(admission: Admission, seconds: float = 0.0) -> float:
    """Three clients ask while one is served, until some are shed, and for so many seconds more; the time then."""
    now, began = 0.0, inf
    for number in range(100):
        offer(admission, now, f"old {number}", client=f"old {number}")
    while now - began < seconds:
        now += 0.01
        for name in ("one", "two", f"at {now:.2f}"):
            offer(admission, now, name, client=f"{name} {now}")
        if run(admission, now)[1]:
            began = min(began, now)
        assert now < 10
    return now


def test_a_queue_that_stands_sheds_what_has_waited_too_long_and_runs_the_newest_first():
    admission = Admission(AdmissionRules(target_s=0.05))
    now = overload(admission)
    assert now == pytest.approx(5.59, abs=0.02)  # a proof of five seconds after ten targets of waits that are too long
    newest = f"at {now:.2f}"
    offer(admission, now + 0.01, "newest")
    job, shed = admission.take(now + 0.02)
    assert job == "newest"
    assert newest not in shed
    assert admission.oldest_wait_s(now + 0.02) <= 0.1  # twice the target


def test_an_overload_begins_with_a_proof_in_which_the_newest_runs_first_and_nothing_is_shed():
    admission = Admission(AdmissionRules(target_s=0.05))
    now, overloaded_for = 0.0, 0
    offer(admission, now, *(f"old {number}" for number in range(100)))
    while overloaded_for < 490:
        now += 0.01
        newest = f"at {now:.2f}"
        offer(admission, now, "one", "two", newest)
        job, shed = run(admission, now)
        overloaded_for += admission.overloaded
        assert shed == []
        assert job == newest or overloaded_for < 2


def test_a_burst_is_no_overload():
    admission = Admission(AdmissionRules(target_s=0.05))
    now = 0.0
    for _ in range(20):
        offer(admission, now, *range(10))
        while admission.waiting:
            now += 0.03
            assert admission.take(now)[1] == []
        now += 0.05
    assert not admission.overloaded


def test_a_crowd_of_clients_that_wait_for_their_answers_is_no_overload():
    admission = Admission(AdmissionRules(target_s=0.05))
    now = 0.0
    offer(admission, now, *range(200))
    for _ in range(2000):  # each answer brings the next request of its client
        now += 0.01
        assert run(admission, now)[1] == []
        assert offer(admission, now, "next") == []
    assert admission.waiting == 200


def crowd(admission: Admission, now: float, come: int, seconds: float) -> int:
    """So many clients come, two in 10 ms, one of whom is served, and ask again at once; how many were refused."""
    refused, again = 0, 0
    for _ in range(round(seconds * 100)):
        now += 0.01
        asking, come = again + min(2, come), come - min(2, come)
        shed = offer(admission, now, *range(asking))
        job, more_shed = run(admission, now)
        again = len(shed) + len(more_shed) + (job is not None)
        refused += again - (job is not None)
    return refused


def test_a_crowd_that_takes_its_time_to_come_is_no_overload():
    admission = Admission(AdmissionRules(target_s=0.05))
    assert crowd(admission, 0.0, 150, 0.7) == 0
    assert admission.overloaded, "while they come"
    assert crowd(admission, 0.7, 0, 20) == 0
    assert not admission.overloaded


def test_a_crowd_that_asks_again_at_once_when_it_is_refused_does_not_keep_an_overload_alive():
    admission = Admission(AdmissionRules(target_s=0.05))
    assert crowd(admission, 0.0, 1400, 7) > 100, "as long as more come"
    crowd(admission, 7.0, 0, 5)
    assert crowd(admission, 12.0, 0, 20) == 0, "since a trial at 10 s"
    assert not admission.overloaded


def test_a_queue_that_does_not_grow_is_an_overload_where_that_of_another_worker_does():
    others_come = 0

    def publish_flow(arrived: int, served: int) -> tuple[int, int]:
        nonlocal others_come
        others_come += 3
        return arrived + others_come, served

    admission = Admission(AdmissionRules(target_s=0.05), publish_flow)
    assert crowd(admission, 0.0, 150, 8), "who would all wait if they were alone"
    assert admission.overloaded


def serve(admission: Admission, arrivals: Iterable[int]) -> float:
    """One request is served each 50 ms, and so many come meanwhile; for how long there was no overload."""
    now = 0.0
    for come in arrivals:
        offer(admission, now, *range(come))
        run(admission, now)
        if admission.overloaded:
            break
        now += 0.05
    return now


def test_what_comes_more_for_a_moment_by_chance_is_no_overload():
    admission = Admission(AdmissionRules(target_s=0.05))
    assert serve(admission, [3] + [1, 1, 2, 0, 1, 2, 1, 0] * 50) == pytest.approx(401 * 0.05)
    assert admission.oldest_wait_s(401 * 0.05) > 0.05, "although a queue stood all the time"


def test_a_queue_that_grows_slowly_is_an_overload_in_the_end():
    assert serve(Admission(AdmissionRules(target_s=0.05)), [1, 1, 1, 1, 2] * 50) < 5


def test_requests_that_take_long_may_wait_long():
    admission = Admission(AdmissionRules(target_s=0.05))
    for _ in range(200):
        admission.served(1.0)
    assert admission.target_s == pytest.approx(1.0, abs=0.01)


def test_after_an_overload_the_oldest_runs_first_again():
    admission = Admission(AdmissionRules(target_s=0.05))
    now = overload(admission)
    while admission.take(now)[0] is not None:
        now += 0.001
    assert admission.overloaded, "it may have been chance"
    now += 0.5  # ten targets
    offer(admission, now, "first", "second")
    now += 0.002
    assert admission.take(now)[0] == "first"
    assert not admission.overloaded


def test_a_queue_that_runs_empty_now_and_then_does_not_end_an_overload():
    admission = Admission(AdmissionRules(target_s=0.05))
    now = overload(admission)
    for _ in range(15):
        offer(admission, now, "too late")
        now += 0.101
        job, shed = admission.take(now)
        assert (job, shed[-1]) == (None, "too late")
        assert admission.overloaded


def test_a_full_queue_sheds_what_matters_least():
    admission = Admission(AdmissionRules(limit=3))
    offer(admission, 0.0, "normal")
    offer(admission, 0.0, "critical", priority=Priority.CRITICAL)
    offer(admission, 0.0, "sheddable", priority=Priority.SHEDDABLE)
    assert offer(admission, 1.0, "another", priority=Priority.SHEDDABLE) == ["sheddable"]
    assert offer(admission, 1.0, "important", priority=Priority.CRITICAL) == ["another"]
    assert offer(admission, 1.0, "late", priority=Priority.SHEDDABLE) == ["late"]
    assert [admission.take(1.0)[0] for _ in range(3)] == ["critical", "important", "normal"]
    assert (admission.shed, admission.waiting) == (3, 0)


def test_critical_requests_are_not_shed_for_waiting():
    admission = Admission(AdmissionRules(target_s=0.05))
    offer(admission, 0.0, "critical", priority=Priority.CRITICAL)
    now = overload(admission)
    offer(admission, now, "more", priority=Priority.CRITICAL)
    job, shed = admission.take(now + 0.3)
    assert job == "more"
    assert shed
    assert "critical" not in shed


def test_a_request_whose_own_deadline_has_passed_does_not_run():
    admission = Admission(AdmissionRules())
    offer(admission, 0.0, "impatient", deadline=1.0)
    offer(admission, 0.0, "patient", deadline=9.0)
    assert admission.take(1.5) == ("patient", ["impatient"])


def test_a_client_may_hold_its_share_of_the_queue_and_no_more():
    admission = Admission(AdmissionRules(limit=10, client_share=0.3))
    assert offer(admission, 0.0, *range(5), client="flood") == [3, 4]
    assert offer(admission, 0.0, "other", client="other") == []
    admission.take(0.0)
    assert offer(admission, 0.0, "again", client="flood") == []


def test_a_client_that_floods_comes_after_all_others():
    admission = Admission(AdmissionRules(target_s=0.05, client_share=0.1))
    now = overload(admission)
    offer(admission, now, "other", client="other")
    assert offer(admission, now, *range(10), client="flood") == [2, 3, 4, 5, 6, 7, 8, 9], "any client may have two"
    assert admission.take(now)[0] == 1, "the newest"
    assert offer(admission, now, "again", client="flood") == []
    assert admission.take(now)[0] == 0, "offered before it was known"
    assert admission.take(now)[0] == "other"
    offer(admission, now, "other again", client="other")
    offer(admission, now, "and again", client="flood")
    ran = [admission.take(now)[0] for _ in range(admission.waiting)]
    assert (ran[0], ran[-2:]) == ("other again", ["and again", "again"])


def test_as_long_as_a_client_floods_and_others_wait_the_overload_lasts():
    admission = Admission(AdmissionRules(target_s=0.05, client_share=0.1))
    now = overload(admission)
    for _ in range(100):
        now += 0.05
        offer(admission, now, *range(10), client="flood")
        offer(admission, now, "other", client="other")
        assert admission.take(now)[0] == "other"
        assert admission.overloaded
    for _ in range(2):  # what is too old is shed, and an interval later it is over
        now += 1
        assert admission.take(now)[0] is None
    assert not admission.overloaded
    assert offer(admission, now, *range(10), client="flood") == []
    assert not offer(admission, now, "other", client="other")
    assert [admission.take(now)[0] for _ in range(11)] == [*range(10), "other"]


@pytest.mark.parametrize("pause_s", [0.1, 3600])
def test_who_wants_more_than_a_share_of_a_queue_that_nobody_else_waits_in_has_it(pause_s):
    """An overload ends, also where nobody took a request when it was over."""
    admission = Admission(AdmissionRules(target_s=0.05, client_share=0.1))
    now = overload(admission)
    while admission.take(now)[0] is not None:
        pass
    for _ in range(20):
        now += pause_s
        assert offer(admission, now, *range(6), client="page with parts") == []
        assert sorted(admission.take(now)[0] for _ in range(6)) == list(range(6))
    assert not admission.overloaded


def test_no_more_clients_are_remembered_than_fit():
    fairness = Fairness(0.1)
    for number in range(10_001):
        fairness.entered(str(number))
        fairness.entered(str(number))
        assert not fairness.allows(str(number), 0, 1.0)
    assert fairness.is_greedy("10000", 0.5)
    assert not fairness.is_greedy("1", 0.5)


def test_retry_after_is_told_by_the_rate_at_which_the_queue_drains():
    admission = Admission(AdmissionRules(target_s=100.0))
    assert admission.retry_after_s() == 1
    offer(admission, 0.0, *range(100))
    for second in range(4):
        for step in range(5):
            run(admission, second + step / 5)
    assert 16 <= admission.retry_after_s() <= 17  # 80 wait, about 5 a second run


priorities = st.sampled_from(Priority)


@given(st.lists(st.one_of(st.tuples(st.just("offer"), priorities), st.just(("take", None))), max_size=80))
def test_nothing_is_lost_and_nothing_runs_twice(steps):
    admission, now, ended, offered = Admission(AdmissionRules(limit=5, target_s=0.05)), 0.0, [], 0
    for step, priority in steps:
        now += 0.03
        if step == "offer":
            ended += admission.offer(Waiting(offered, now, priority=priority), now)
            offered += 1
        else:
            job, shed = admission.take(now)
            ended += shed + ([job] if job is not None else [])
        assert len(ended) + admission.waiting == offered
        assert admission.waiting <= 5
    while admission.waiting:
        job, shed = admission.take(now)
        ended += [*shed, job] if job is not None else shed
    assert sorted(ended) == list(range(offered))


def test_more_threads_only_while_the_interpreter_is_free():
    concurrency, running = Concurrency(16), 1
    for _ in range(20):
        running += concurrency.change(running, 100, busy=False, held_up=False)
    assert running == 16
    for _ in range(40):
        running += concurrency.change(running, 100, busy=True, held_up=False)
    assert running == 1
    assert concurrency.is_full
    assert concurrency.change(1, 100, busy=True, held_up=False) == 0
    assert concurrency.change(1, 100, busy=False, held_up=False) == 0, "once it was free by chance"
    assert [concurrency.change(1, 100, busy=False, held_up=False) for _ in range(4)][-1] == 1


def test_fewer_threads_while_requests_wait_for_connections():
    concurrency, running = Concurrency(16), 16
    for _ in range(40):
        running += concurrency.change(running, 100, busy=False, held_up=True)
    assert running == 1
    assert concurrency.change(2, 1, busy=False, held_up=False) == 1  # never more than wait


@pytest.mark.parametrize(
    "value", ["t=1512379167.574", "t=1512379167574", "1512379167574000", " t=1512379167574000000", "1512379167.574"]
)
def test_the_formats_of_x_request_start(value):
    assert parse_request_start(value) == pytest.approx(1512379167.574, abs=0.001)


@pytest.mark.parametrize("value", ["", "t=", "yesterday", "-5", "nan", "inf", "t=1e40"])
def test_what_is_no_time_is_ignored(value):
    assert parse_request_start(value) is None


def request(path: str, **headers: str) -> Request:
    made = Request("GET", path, (1, 1), "http", ("127.0.0.1", 5))
    made.headers = [(name.upper().replace("_", "-"), value) for name, value in headers.items()]
    return made


def client(*, trusted: bool = False) -> SimpleNamespace:
    return SimpleNamespace(peer=("192.0.2.9", 5), http=SimpleNamespace(trusted=trusted))


@pytest.mark.parametrize(
    ("start", "trusted", "left_s"),
    [("t=990", True, 20), ("t=990", False, 30), ("t=1010", True, 30), ("never", True, 30)],
)
def test_time_spent_in_the_proxys_queue_counts_if_the_proxy_is_trusted(start, trusted, left_s):
    triage = Triage(wait_timeout_s=30, wall_clock=lambda: 1000.0)
    assert triage.entry(client(trusted=trusted), request("/", x_request_start=start), 50.0).deadline == 50 + left_s


def test_paths_and_then_a_callable_say_how_much_a_request_matters():
    triage = Triage(("/health", "/pay"), ("/export",), lambda request: "critical" if "vip" in request.path else None)
    found = {path: triage.entry(client(), request(path), 0.0).priority for path in ("/pay/1", "/export", "/vip", "/")}
    assert list(found.values()) == [Priority.CRITICAL, Priority.SHEDDABLE, Priority.CRITICAL, Priority.NORMAL]


def test_a_priority_that_cannot_be_told_is_normal():
    logged = []
    log = SimpleNamespace(exception=lambda text, *values: logged.append(text % values))
    for fails in (lambda request: request.missing, lambda _request: "urgent"):
        triage = Triage(priority_of=fails, log=log)
        assert triage.entry(client(), request("/a"), 0.0).priority == Priority.NORMAL
    assert logged == ["Cannot determine the priority of /a; using normal"] * 2


@pytest.mark.parametrize(("trusted", "counted"), [(True, "198.51.100.7"), (False, "192.0.2.9")])
def test_the_client_behind_a_trusted_proxy_is_the_last_it_names(trusted, counted):
    triage = Triage(counts_clients=True)
    asked = request("/", x_forwarded_for="10.0.0.1, 198.51.100.7")
    asked.headers.insert(0, ("X-FORWARDED-FOR", "203.0.113.1"))  # the client's own, before the line of its proxy
    assert triage.entry(client(trusted=trusted), asked, 0.0).client == counted
