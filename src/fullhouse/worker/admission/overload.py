"""Whether more requests come than can be served. Pure: the caller brings the time, in monotonic seconds.

**Overloaded** means two things at once. The queue stands, by CoDel's rule (Nichols and Jacobson, "Controlling Queue
Delay", 2012; for servers: folly's Codel): for a whole interval the oldest request has always waited longer than the
target. And more requests come than are served, by more than chance: a crowd that has come once, or clients that each
wait for their answer before they ask again, make a long queue too, but shedding would shorten no wait.

Whether more come can only be seen while nothing is shed: a client that was refused and asks again at once is no new
demand. So an overload begins with a **proof**, in which all may wait: only where more come than are served in each of
five seconds, it is no crowd that took its time to come. And it has a **trial** now and then, in which all may wait
again. If the queue does not grow meanwhile, those who ask were all there already.
"""

from math import inf, sqrt
from typing import NamedTuple

from fullhouse.worker.admission.sliding_minimum import SlidingMinimum

# CoDel wants a target of 5 to 10 % of the interval. The longest of these, so that a crowd may take its time to come.
_TARGETS_IN_INTERVAL = 10
_LONGEST_INTERVAL_S = 1.0
# What comes must exceed what is served by so much, and by so many standard deviations of a random number of arrivals.
_EXCESS = 1.05
_SIGMAS = 2
# No overload is seen only by so many served requests, and so many times as many as run at once: these end in bursts.
_SERVED_IN_TRIAL = 40
_TURNS_IN_TRIAL = 4
_LONGEST_TRIAL_INTERVALS = 2
# A crowd that comes at once, or within some seconds, waits and is served: shedding begins once more have come than were
# served in each of so many seconds.
_PROOF_S = 5
# Between the beginnings of later trials, on a clock that all workers share: one that sheds takes the growth from one
# that does not. In a trial it takes longer until a client hears that it is refused; others notice nothing.
# At first, and where a crowd was found that may grow, more often: it is served soonest if none is refused.
_TRIAL_EVERY_S = 20.0
_FIRST_TRIAL_EVERY_S = 5.0


class Counts(NamedTuple):
    """Requests that wait and run here now; that ever came to, and were served by, all workers."""

    waiting: int
    running: int
    arrived: int
    served: int

    def since(self, before: "Counts") -> tuple[int, int]:
        """How many came, and how many left, having been served."""
        return self.arrived - before.arrived, self.served - before.served


class Flows:
    """How many requests came in a period, and how many left, having been served."""

    def __init__(self) -> None:
        self._came = 0
        self._excess = self._excess_before = 0.0
        self._since = -inf
        self._arrived = self._served = 0

    @property
    def exceed_twice(self) -> bool:
        """Whether more came in each of the last two periods. A crowd that comes at once is in one."""
        return self._excess > 1 and self._excess_before > 1

    @property
    def exceed_chance(self) -> bool:
        """Whether more came in the last period than chance would have it, if they come independently of each other."""
        return self._excess > _SIGMAS * sqrt(self._came)

    def end_period(self, now: float, period_s: float, counts: Counts) -> None:
        """Ends a period if it has been so long."""
        if now - self._since < period_s:
            return
        if self._since > -inf:  # else other workers have counted since long ago
            came, left = counts.arrived - self._arrived, counts.served - self._served
            self._came, self._excess_before, self._excess = came, self._excess, came - _EXCESS * left
        self._since, self._arrived, self._served = now, counts.arrived, counts.served

    def forget_excess(self) -> None:
        self._excess = self._excess_before = 0.0


class Proof:
    """Whether more come than are served, and go on coming, at the beginning of what looks like an overload."""

    def __init__(self, now: float, counts: Counts) -> None:
        self._first = self._last = counts
        self._look_at = now + 1.0
        self._seconds = 0  # that more came in

    def more_come(self, now: float, counts: Counts) -> bool | None:
        """None as long as that is not clear. In a second without more it is not so."""
        if now < self._look_at:
            return None
        self._look_at, self._seconds = now + 1.0, self._seconds + 1
        came, left = counts.since(self._last)
        self._last = counts
        if came <= _EXCESS * left:
            return False
        if self._seconds < _PROOF_S:
            return None
        came, left = counts.since(self._first)
        return came - _EXCESS * left > _SIGMAS * sqrt(came)


class Trial:
    """Whether a queue grows that nothing is shed from.

    interval_s: a trial takes one at least; it settles for half of one, in which those come again that were refused.
    """

    def __init__(self, now: float, interval_s: float) -> None:
        self._settled_at = now + interval_s / 2
        self._soonest, self._latest = now + interval_s, now + _LONGEST_TRIAL_INTERVALS * interval_s
        self._before: Counts | None = None
        self._most_ran = 0

    def more_come(self, now: float, counts: Counts) -> bool | None:
        """Whether more come than are served; None as long as that is not clear."""
        self._most_ran = max(self._most_ran, counts.running)
        if self._before is None and now >= self._settled_at:
            self._before = counts
        if self._before is None or now < self._soonest:
            return None
        came, left = counts.since(self._before)
        excess = came - _EXCESS * left
        if excess > _SIGMAS * sqrt(came):
            return True
        if excess <= 1 and left >= max(_SERVED_IN_TRIAL, _TURNS_IN_TRIAL * self._most_ran):
            return False
        return True if now >= self._latest else None


class Overload:
    """is_on: whether there is one. target_s: a wait that is none yet. interval_s: of CoDel's rule."""

    def __init__(self, target_s: float) -> None:
        self.is_on = False
        self.target_s = target_s
        self.interval_s = _LONGEST_INTERVAL_S
        self._oldest = SlidingMinimum(self.interval_s)
        self._lately = Flows()
        self._longer = Flows()
        self._needed_at = -inf  # when there was something to shed, while overloaded
        self._trial: Trial | Proof | None = None
        self._began_at = -inf
        self._trial_at = -inf  # what the last one has shown counts until then

    @property
    def longest_wait_s(self) -> float:
        """What has waited longer is shed."""
        return 2 * self.target_s if self.is_on and self._trial is None else inf

    def observe(self, now: float, counts: Counts, oldest_wait_s: float, *, was_empty: bool) -> None:
        """Look at the queue, often. was_empty: at some moment since the last look."""
        self._oldest.add(now, 0.0 if was_empty else oldest_wait_s)
        self._oldest.window_s = self.interval_s = min(_LONGEST_INTERVAL_S, _TARGETS_IN_INTERVAL * self.target_s)
        # By half intervals, so that a crowd that came before the last one is not counted any more.
        self._lately.end_period(now, self.interval_s / 2, counts)
        self._longer.end_period(now, _LONGEST_INTERVAL_S, counts)
        if oldest_wait_s > 2 * self.target_s:
            self.need(now)
        if self.is_on:
            self.end_if_over(now)
            self._try(now, counts)
        elif self._oldest.has_full_window(now):
            self._begin_if_needed(now, counts)

    def need(self, now: float) -> None:
        """There was something to shed, so an overload goes on."""
        self._needed_at = now

    def end_if_over(self, now: float) -> None:
        """After a whole interval: by chance, even under ten times the load a queue runs empty for a moment.

        Called while it is on.
        """
        if now - self._needed_at >= self.interval_s:
            self._end()

    def _begin_if_needed(self, now: float, counts: Counts) -> None:
        shortest_wait_s = self._oldest.minimum(now)
        if shortest_wait_s > self.target_s and self._too_many_come(shortest_wait_s):
            self.is_on, self._needed_at = True, now
            self._trial, self._began_at = Proof(now, counts), now

    def _try(self, now: float, counts: Counts) -> None:
        if self._trial is None:
            if now >= self._trial_at:
                self._trial = Trial(now, self.interval_s)
            return
        more_come = self._trial.more_come(now, counts)
        if more_come is False:
            self._end()
        if more_come is not None:
            is_known = more_come and now - self._began_at > _FIRST_TRIAL_EVERY_S
            every_s = _TRIAL_EVERY_S if is_known else _FIRST_TRIAL_EVERY_S
            self._trial, self._trial_at = None, now - now % every_s + every_s

    def _end(self) -> None:
        self.is_on, self._trial = False, None
        self._lately.forget_excess()
        self._longer.forget_excess()

    def _too_many_come(self, shortest_wait_s: float) -> bool:
        """For what has waited so long at least, in the last interval."""
        stands_long = shortest_wait_s >= self.interval_s
        return self._lately.exceed_chance or (stands_long and self._longer.exceed_twice)
