"""Which request runs next, and which does not run at all: the bounded queue between the loop and the threads.

Pure: the caller brings the time (monotonic seconds) and, where threads share it, the lock.

While **overloaded** (`overload`), the newest runs first, since it is the one whose client still waits (Facebook's
adaptive LIFO), and what has waited for more than twice the target is shed.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf
from typing import Generic, TypeVar

from fullhouse.telemetry.tally import SHED_REASONS
from fullhouse.worker.admission.fairness import Fairness
from fullhouse.worker.admission.overload import Counts, Overload

J = TypeVar("J")
PublishFlow = Callable[[int, int], tuple[int, int]]

# How fast the mean of the time in service follows.
_SERVICE_WEIGHT = 0.05
# Looking at every request would cost more than the rest of the queue.
_OBSERVE_EVERY_S = 0.005
_LONGEST_RETRY_S = 60
_RATE_S = 1.0


class Priority(IntEnum):
    """Critical requests run first and are shed last."""

    CRITICAL = 0
    NORMAL = 1
    SHEDDABLE = 2


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """limit: requests that may wait. target_s: a wait that is no overload yet; where requests take longer, so long.

    client_share: of the queue that one client may hold, 0 to 1.
    """

    limit: int = 1000
    target_s: float = 0.05
    client_share: float = 1.0


@dataclass(slots=True)
class Waiting(Generic[J]):
    """A request in the queue. deadline: when its client no longer waits for the answer."""

    job: J
    since: float
    deadline: float = inf
    priority: Priority = Priority.NORMAL
    client: str = ""


class Admission(Generic[J]):
    """The queue. What it sheds is returned, for the caller to answer.

    publish_flow: is given how many requests came and were served, and returns the same of all workers; None if alone.
    """

    def __init__(self, rules: AdmissionRules, publish_flow: PublishFlow | None = None) -> None:
        self._publish_flow = publish_flow or (lambda arrived, served: (arrived, served))
        self._rules = rules
        self._fairness = Fairness(rules.client_share)
        self._queues: tuple[deque[Waiting[J]], ...] = tuple(deque() for _ in Priority)
        self._overload = Overload(rules.target_s)
        self._observe_at = -inf
        self._was_empty = True  # at some moment since it was looked at
        self.service_s = 0.0
        self._arrived = 0
        self._served = 0
        self.served_per_s, self._rated_at, self._served_before = 0.0, -inf, 0
        self.running = 0
        self.waiting = self.peak_waiting = 0
        self.shed_by = dict.fromkeys(SHED_REASONS, 0)

    @property
    def shed(self) -> int:
        """How many requests did not run."""
        return sum(self.shed_by.values())

    def take_peak(self) -> int:
        """The most requests that waited at once since the last call."""
        peak, self.peak_waiting = self.peak_waiting, self.waiting
        return peak

    @property
    def overloaded(self) -> bool:
        """Whether more requests come than can be served."""
        return self._overload.is_on

    @property
    def target_s(self) -> float:
        """The wait beyond which a queue that stands is an overload."""
        return max(self._rules.target_s, self.service_s)

    def offer(self, entry: Waiting[J], now: float) -> list[J]:
        """Take a request in. Returns what is shed for it: it itself, or one that matters less."""
        if self._overload.is_on:
            self._overload.end_if_over(now)
        self._arrived += 1
        self._was_empty = self._was_empty or not self.waiting
        shed: list[J] = []
        if self._fairness.is_on and not self._is_fair(entry, now):
            self.shed_by["client_share"] += 1
            return [entry.job]
        if self.waiting >= self._rules.limit:
            victim = self._least_useful(entry)
            if victim is entry:
                self.shed_by["queue_limit"] += 1
                return [entry.job]
            shed.append(self._drop(victim, "queue_limit"))
        self._queues[entry.priority].append(entry)
        if self._fairness.is_on:
            self._fairness.entered(entry.client)
        self.waiting += 1
        if self.waiting > self.peak_waiting:
            self.peak_waiting = self.waiting
        return shed

    def take(self, now: float) -> tuple[J | None, list[J]]:
        """The request that runs next, None where none waits; and those that are shed at this moment."""
        shed = self.expire(now) if now >= self._observe_at else []
        for queue in self._queues:
            while queue:
                entry = queue.pop() if self._overload.is_on else queue.popleft()
                self._forget(entry)
                if entry.deadline >= now:
                    self.running += 1
                    return entry.job, shed
                self.shed_by["wait_timeout"] += 1
                shed.append(entry.job)
        return None, shed

    def expire(self, now: float) -> list[J]:
        """What has waited for too long; where no request has ended for a while, the loop has to ask."""
        if now < self._observe_at:
            return []
        self._observe(now)
        return [self._drop(entry, _reason(entry, now)) for entry in self._hopeless(now)]

    def served(self, service_s: float) -> None:
        """A request that was taken has been answered after so long in a thread."""
        self.running -= 1
        self._served += 1
        self.service_s += _SERVICE_WEIGHT * (service_s - self.service_s)

    def gone(self) -> None:
        """A request that was taken does not run, since its client has gone."""
        self.running -= 1
        self.shed_by["client_gone"] += 1

    def oldest_wait_s(self, now: float) -> float:
        """How long the oldest request has waited; 0 where none waits."""
        return max((now - queue[0].since for queue in self._queues if queue), default=0.0)

    def retry_after_s(self) -> int:
        """When a client that was shed may try again: once what waits is served, at the rate of the last seconds."""
        if not self.served_per_s:
            return 1
        return max(1, min(_LONGEST_RETRY_S, ceil(self.waiting / self.served_per_s)))

    def _observe(self, now: float) -> None:
        self._observe_at = now + _OBSERVE_EVERY_S
        self._overload.target_s = self.target_s
        counts = Counts(self.waiting, self.running, *self._publish_flow(self._arrived, self._served))
        self._overload.observe(now, counts, self.oldest_wait_s(now), was_empty=self._was_empty)
        self._was_empty = False
        if now - self._rated_at >= _RATE_S:
            self.served_per_s = (self._served - self._served_before) / (now - self._rated_at)
            self._rated_at, self._served_before = now, self._served

    def _hopeless(self, now: float) -> Iterator[Waiting[J]]:
        """The oldest of each queue, as long as they have waited too long. Critical ones wait until their deadline."""
        longest = self._overload.longest_wait_s
        for queue in self._queues:
            while queue and (queue[0].deadline < now or (queue[0].priority and now - queue[0].since > longest)):
                yield queue[0]

    def _is_fair(self, entry: Waiting[J], now: float) -> bool:
        """Whether its client has less than its share: of the longest queue, or, while others wait, of that there is."""
        crowded = self.overloaded and self.oldest_wait_s(now) > self.target_s
        queue = self.waiting if crowded else self._rules.limit
        if not self._fairness.allows(entry.client, queue, now + self._overload.interval_s):
            if crowded:
                self._overload.need(now)
            return False
        if self._fairness.is_greedy(entry.client, now):
            entry.priority = Priority.SHEDDABLE
        return True

    def _least_useful(self, arriving: Waiting[J]) -> Waiting[J]:
        """The oldest of the least important queue, unless what arrives matters less still."""
        worst = next(queue[0] for queue in reversed(self._queues) if queue)
        return worst if worst.priority >= arriving.priority else arriving

    def _drop(self, entry: Waiting[J], reason: str) -> J:
        self._queues[entry.priority].popleft()
        self._forget(entry)
        self.shed_by[reason] += 1
        return entry.job

    def _forget(self, entry: Waiting[J]) -> None:
        self.waiting -= 1
        if self._fairness.is_on:
            self._fairness.left(entry.client)


def _reason(entry: Waiting[J], now: float) -> str:
    """Why it is hopeless."""
    return "wait_timeout" if entry.deadline < now else "overload"
