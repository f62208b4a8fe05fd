"""How long to rest between tries."""

import math
from collections.abc import Callable

JITTER = 0.25
"""A rest is shortened by up to this part of it, so that the processes of a host do not try in step."""


class Backoff:
    """A rest that doubles with each failure in a row."""

    def __init__(self, first_s: float, longest_s: float, random: Callable[[], float]) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._random = random
        self._rest_s = 0.0
        self._failed_at = -math.inf
        self.until = -math.inf
        """The next try is due then."""

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._rest_s > 0

    def failed(self, now: float) -> None:
        """Rest twice as long as the last time."""
        self._rest_s = min(self._rest_s * 2, self._longest_s) if self.failing else self._first_s
        self._failed_at = now
        self.until = now + self._rest_s * (1 - JITTER * self._random())

    def shorten(self, rest_s: float) -> None:
        """End this rest `rest_s` after the last failure at the latest; the next one doubles all the same."""
        self.until = min(self.until, self._failed_at + rest_s)

    def succeeded(self) -> None:
        """Forget the failures."""
        self._rest_s = 0.0
        self.until = -math.inf
