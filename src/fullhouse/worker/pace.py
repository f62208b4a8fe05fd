"""How slow a client may be. Pure: the clock is passed in."""


class Pace:
    """The deadline of a transfer that must keep a minimum rate, and may pause for a grace.

    In every `grace_s` seconds at least `grace_s * minimum_rate_bytes_s` bytes must move. A burst buys no more
    time than its own window, so a client that stops is cut after the grace, however fast it was before.
    """

    __slots__ = ("_counted", "_grace_s", "_needed", "deadline")

    def __init__(self, now: float, grace_s: float, minimum_rate_bytes_s: int, moved_bytes: int = 0) -> None:
        self._grace_s = grace_s
        self._needed = grace_s * minimum_rate_bytes_s
        self._counted = moved_bytes
        self.deadline = now + grace_s

    def moved(self, now: float, moved_bytes: int) -> float:
        """Tell how much has moved in all; the deadline from then on."""
        if moved_bytes - self._counted >= self._needed:
            self._counted = moved_bytes
            self.deadline = now + self._grace_s
        return self.deadline
