"""Which request runs next, and which does not run at all: the bounded queue between the loop and the threads.

Pure: the caller brings the time (monotonic seconds) and, where threads share it, the lock.

**Overloaded** means two things at once. The queue stands, by CoDel's rule (Nichols and Jacobson, "Controlling Queue
Delay", 2012; for servers: folly's Codel): for a whole interval the oldest request has always waited longer than the
target. And more requests come than are served, by more than chance: a crowd that has come once, or clients that each
wait for their answer before they ask again, make a long queue too, but shedding would not shorten anybody's wait. Then
the newest runs first, since it is the one whose client still waits (Facebook's adaptive LIFO), and what has waited for
more than twice the target is shed, until for a whole interval there was nothing to shed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf, sqrt
from typing import Generic, TypeVar

from fullhouse.worker.fairness import Fairness
from fullhouse.worker.sliding_minimum import SlidingMinimum

J = TypeVar("J")

# CoDel wants a target of 5 to 10 % of the interval. The longest of these, so that a crowd may take its time to come.
_TARGETS_IN_INTERVAL = 10
_LONGEST_INTERVAL_S = 1.0
# How fast the mean of the time in service follows.
_SERVICE_WEIGHT = 0.05
# What comes must exceed what is served by so much, and by so many standard deviations of a random number of arrivals.
_EXCESS = 1.05
_SIGMAS = 2
# Looking at every request would cost more than the rest of the queue.
_OBSERVE_EVERY_S = 0.001
_LONGEST_RETRY_S = 60


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
    """A request in the queue. deadline: when nobody waits for its answer any more."""

    job: J
    since: float
    deadline: float = inf
    priority: Priority = Priority.NORMAL
    client: str = ""


class Flows:
    """How many requests came in a period, and how many were taken."""

    def __init__(self) -> None:
        self._came = 0
        self._excess = self._excess_before = 0.0
        self._since = -inf
        self._before = (0, 0)
        self.served_per_s = 0.0

    @property
    def exceed_twice(self) -> bool:
        """Whether more came in each of the last two periods. A crowd that comes at once is in one."""
        return self._excess > 1 and self._excess_before > 1

    @property
    def exceed_chance(self) -> bool:
        """Whether more came in the last period than chance would have it, if they come independently of each other."""
        return self._excess > _SIGMAS * sqrt(self._came)

    def end_period(self, now: float, period_s: float, arrived: int, taken: int) -> None:
        """arrived, taken: in all. Ends a period if it has been so long."""
        if now - self._since < period_s:
            return
        came, served = arrived - self._before[0], taken - self._before[1]
        self._came, self._excess_before, self._excess = came, self._excess, came - _EXCESS * served
        self.served_per_s = served / (now - self._since)
        self._since, self._before = now, (arrived, taken)


class Admission(Generic[J]):
    """The queue. What it sheds is returned, for the caller to answer."""

    def __init__(self, rules: AdmissionRules) -> None:
        self._rules = rules
        self._fairness = Fairness(rules.client_share)
        self._queues: tuple[deque[Waiting[J]], ...] = tuple(deque() for _ in Priority)
        self._oldest = SlidingMinimum(_LONGEST_INTERVAL_S)
        self._observe_at = -inf
        self._was_empty = True  # at some moment since it was looked at
        self.service_s = 0.0
        self._arrived = 0
        self._taken = 0
        self._lately = Flows()
        self._longer = Flows()
        self._needed_at = -inf  # when there was something to shed, while overloaded
        self.waiting = 0
        self.shed = 0
        self.overloaded = False

    @property
    def target_s(self) -> float:
        """The wait beyond which a queue that stands is an overload."""
        return max(self._rules.target_s, self.service_s)

    @property
    def _longest_wait_s(self) -> float:
        """What is shed while overloaded has waited longer."""
        return 2 * self.target_s

    def offer(self, entry: Waiting[J], now: float) -> list[J]:
        """Take a request in. Returns what is shed for it: it itself, or one that matters less."""
        self._end_overload_if_over(now)
        self._arrived += 1
        self._was_empty = self._was_empty or not self.waiting
        shed: list[J] = []
        if self._fairness.is_on and not self._is_fair(entry, now):
            self.shed += 1
            return [entry.job]
        if self.waiting >= self._rules.limit:
            victim = self._least_useful(entry)
            if victim is entry:
                self.shed += 1
                return [entry.job]
            shed.append(self._drop(victim))
        self._queues[entry.priority].append(entry)
        self._fairness.entered(entry.client)
        self.waiting += 1
        return shed

    def take(self, now: float) -> tuple[J | None, list[J]]:
        """The request that runs next, None where none waits; and those that are shed at this moment."""
        shed: list[J] = []
        if now >= self._observe_at:
            self._observe(now)
            shed = [self._drop(entry) for entry in self._hopeless(now)]
        for queue in self._queues:
            while queue:
                entry = queue.pop() if self.overloaded else queue.popleft()
                self._forget(entry)
                if entry.deadline >= now:
                    self._taken += 1
                    return entry.job, shed
                self.shed += 1
                shed.append(entry.job)
        return None, shed

    def served(self, service_s: float) -> None:
        """A request was answered after so long in a thread."""
        self.service_s += _SERVICE_WEIGHT * (service_s - self.service_s)

    def oldest_wait_s(self, now: float) -> float:
        """How long the oldest request has waited; 0 where none waits."""
        return max((now - queue[0].since for queue in self._queues if queue), default=0.0)

    def retry_after_s(self) -> int:
        """When a client that was shed may try again: once what waits is served, at the rate of the last seconds."""
        if not self._longer.served_per_s:
            return 1
        return max(1, min(_LONGEST_RETRY_S, ceil(self.waiting / self._longer.served_per_s)))

    def _observe(self, now: float) -> None:
        self._observe_at = now + _OBSERVE_EVERY_S
        self._oldest.add(now, 0.0 if self._was_empty else self.oldest_wait_s(now))
        self._was_empty = False
        self._oldest.window_s = min(_LONGEST_INTERVAL_S, _TARGETS_IN_INTERVAL * self.target_s)
        # By half intervals, so that a crowd that came before the last one is not counted any more.
        self._lately.end_period(now, self._oldest.window_s / 2, self._arrived, self._taken)
        self._longer.end_period(now, _LONGEST_INTERVAL_S, self._arrived, self._taken)
        if self.overloaded and self.oldest_wait_s(now) > self._longest_wait_s:
            self._needed_at = now
        self._end_overload_if_over(now)
        if not self.overloaded and self._oldest.has_full_window(now):
            self.overloaded = self._too_many_come(self._oldest.minimum(now))
            self._needed_at = now

    def _end_overload_if_over(self, now: float) -> None:
        """After a whole interval: by chance, even under ten times the load a queue runs empty for a moment."""
        if self.overloaded and now - self._needed_at >= self._oldest.window_s:
            self.overloaded = False
            self._fairness.forget_greed()

    def _too_many_come(self, shortest_wait_s: float) -> bool:
        """For what has waited so long at least, in the last interval."""
        if shortest_wait_s <= self.target_s:
            return False
        stands_long = shortest_wait_s >= self._oldest.window_s
        return self._lately.exceed_chance or (stands_long and self._longer.exceed_twice)

    def _hopeless(self, now: float) -> Iterator[Waiting[J]]:
        """The oldest of each queue, as long as they have waited too long. Critical ones wait until their deadline."""
        longest = self._longest_wait_s if self.overloaded else inf
        for queue in self._queues:
            while queue and (queue[0].deadline < now or (queue[0].priority and now - queue[0].since > longest)):
                yield queue[0]

    def _is_fair(self, entry: Waiting[J], now: float) -> bool:
        """Whether its client has less than its share: of the longest queue, or, while others wait, of that there is."""
        crowded = self.overloaded and self.oldest_wait_s(now) > self.target_s
        queue = self.waiting if crowded else self._rules.limit
        if not self._fairness.allows(entry.client, queue, now + self._oldest.window_s):
            if crowded:
                self._needed_at = now
            return False
        if self._fairness.is_greedy(entry.client, now):
            entry.priority = Priority.SHEDDABLE
        return True

    def _least_useful(self, arriving: Waiting[J]) -> Waiting[J]:
        """The oldest of the least important queue, unless what arrives matters less still."""
        worst = next(queue[0] for queue in reversed(self._queues) if queue)
        return worst if worst.priority >= arriving.priority else arriving

    def _drop(self, entry: Waiting[J]) -> J:
        self._queues[entry.priority].popleft()
        self._forget(entry)
        self.shed += 1
        return entry.job

    def _forget(self, entry: Waiting[J]) -> None:
        self.waiting -= 1
        self._fairness.left(entry.client)
