"""The smallest of the values of the last so many seconds."""

from math import inf


class SlidingMinimum:
    """O(1) for each value: a queue made of two stacks, each entry with the minimum of its stack up to there.

    Values come with times that never go back, in seconds.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._since = inf  # when the first value came
        self._arrived: list[tuple[float, float, float]] = []  # time, value, minimum of it and all below; newest on top
        self._leaving: list[tuple[float, float]] = []  # time, minimum of it and all below; oldest on top

    def add(self, now: float, value: float) -> None:
        self._since = min(self._since, now)
        below = self._arrived[-1][2] if self._arrived else inf
        self._arrived.append((now, value, min(below, value)))
        self._expire(now)

    def has_full_window(self, now: float) -> bool:
        """Whether values have come for a whole window."""
        return now - self._since >= self.window_s

    def minimum(self, now: float) -> float:
        """The smallest value not older than the window; infinity where there is none."""
        self._expire(now)
        leaving = self._leaving[-1][1] if self._leaving else inf
        arrived = self._arrived[-1][2] if self._arrived else inf
        return min(leaving, arrived)

    def _expire(self, now: float) -> None:
        oldest = now - self.window_s
        while True:
            if not self._leaving:
                self._turn_over()
            if not self._leaving or self._leaving[-1][0] >= oldest:
                return
            self._leaving.pop()

    def _turn_over(self) -> None:
        smallest = inf
        while self._arrived:
            time, value, _ = self._arrived.pop()
            smallest = min(smallest, value)
            self._leaving.append((time, smallest))
