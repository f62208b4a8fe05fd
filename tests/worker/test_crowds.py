"""Crowds and overloads on a simulated worker: one core, a loop that looks now and then, and clients; no clock."""

import heapq
import random
from itertools import count

import pytest

from fullhouse.worker.admission.queue import Admission, AdmissionRules, Waiting

RUNNING = 2  # requests that share the core
COLD_S, COLD_REQUESTS = 0.6, 4  # what the first requests of a worker take
GOOD_S = 1.0
SOON_S = 0.001  # after which a client that was answered asks again


class Worker:
    """page_s: what a request computes. looks_every_s: the loop, mostly. at_once: connections that it accepts then."""

    def __init__(self, page_s: float, *, cold: bool = False, looks_every_s: float = 0.02) -> None:
        self._page_s = page_s
        self._cold_left = COLD_REQUESTS if cold else 0
        self._looks_every_s = looks_every_s
        self._admission = Admission(AdmissionRules())
        self._events: list[tuple[float, int, str, int]] = []
        self._number = count()
        self._chance = random.Random(1)  # noqa: S311
        self._arrived: list[tuple[float, int]] = []  # in the kernel
        self._accepted: set[int] = set()
        self._running: list[list[float]] = []  # computing left, client, when it asked
        self._now = 0.0
        self._more: dict[int, int] = {}  # requests that a client has still to make
        self.waits: list[float] = []  # of those that were answered
        self.refused = 0

    def crowd(self, clients: int, requests: int, within_s: float) -> None:
        """So many clients come in this time, each with so many requests, one after the other."""
        for client in range(clients):
            self._more[client] = requests - 1
            self._at(self._chance.random() * within_s, "ask", client)
        self._run()

    def offer(self, times: float, seconds: float) -> None:
        """Clients with one request each come by chance, so many times as many as can be served."""
        due = 0.0
        for client in count():
            due += self._chance.expovariate(times / self._page_s)
            if due > seconds:
                break
            self._more[client] = 0
            self._at(due, "ask", client)
        self._run()

    def _at(self, when: float, what: str, client: int = 0) -> None:
        heapq.heappush(self._events, (when, next(self._number), what, client))

    def _run(self) -> None:
        self._at(self._looks_every_s, "look")
        while self._events:
            now, _, what, client = heapq.heappop(self._events)
            for request in self._running:
                request[0] -= (now - self._now) / len(self._running)
            self._now = now
            if what == "ask":
                self._arrived.append((now, client))
            elif what == "look":
                self._look()
            else:
                self._end()

    def _look(self) -> None:
        may_accept, left = 1 + len(self._accepted) // 8, []
        for since, client in self._arrived:
            if client not in self._accepted and not may_accept:
                left.append((since, client))
                continue
            may_accept -= client not in self._accepted
            self._accepted.add(client)
            self._refuse(self._admission.offer(Waiting((client, since), since, since + 30), self._now))
        self._arrived = left
        self._refuse(self._admission.expire(self._now))
        self._take()
        if self._arrived or self._running or self._events:
            self._at(self._now + self._looks_every_s * (1 + self._chance.random()), "look")

    def _take(self) -> None:
        while len(self._running) < RUNNING:
            job, shed = self._admission.take(self._now)
            self._refuse(shed)
            if job is None:
                break
            work_s = max(self._page_s, COLD_S) if self._cold_left else self._page_s
            self._cold_left = max(0, self._cold_left - 1)
            self._running.append([work_s, *job, self._now])
        if self._running:
            self._at(self._now + max(0.0, min(self._running)[0]) * len(self._running), "end")

    def _end(self) -> None:
        for request in [one for one in self._running if one[0] <= 1e-9]:
            self._running.remove(request)
            _, client, since, began = request
            self._admission.served(self._now - began)
            self.waits.append(self._now - since)
            self._ask_again(int(client))
        self._take()

    def _refuse(self, jobs) -> None:
        self.refused += len(jobs)
        for client, _ in jobs:
            self._ask_again(client)

    def _ask_again(self, client: int) -> None:
        if self._more[client]:
            self._more[client] -= 1
            self._at(self._now + SOON_S, "ask", client)


@pytest.mark.parametrize("within_s", [0.0, 2.0])
@pytest.mark.parametrize("looks_every_s", [0.02, 0.1])
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(("page_s", "clients"), [(0.005, 30), (0.005, 200), (0.08, 30), (0.08, 200), (0.6, 30)])
def test_a_crowd_that_comes_at_once_is_served(page_s, clients, cold, looks_every_s, within_s):
    worker = Worker(page_s, cold=cold, looks_every_s=looks_every_s)
    worker.crowd(clients, 4, within_s)
    assert worker.refused == 0
    assert len(worker.waits) == 4 * clients


def test_of_a_crowd_that_is_too_large_for_the_patience_of_clients_those_are_served_that_can_be():
    worker = Worker(0.6)
    worker.crowd(200, 1, 0.0)
    assert worker.refused == 200 - len(worker.waits)
    assert len(worker.waits) == pytest.approx(30 / 0.6, abs=3)


@pytest.mark.parametrize("page_s", [0.01, 0.05])
@pytest.mark.parametrize("times", [0.5, 0.9])
def test_a_worker_that_is_busy_refuses_nobody(times, page_s):
    worker = Worker(page_s)
    worker.offer(times, 12)
    assert worker.refused == 0


@pytest.mark.parametrize("page_s", [0.01, 0.05])
@pytest.mark.parametrize("times", [1.5, 3, 10])
def test_under_more_than_it_can_do_a_worker_answers_as_many_in_time_as_it_can(times, page_s):
    worker = Worker(page_s)
    worker.offer(times, 12)
    assert worker.refused > 0
    assert sum(wait_s <= GOOD_S for wait_s in worker.waits) > 0.9 * 12 / page_s
