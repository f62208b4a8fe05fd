"""How many threads run requests at once: more only while they help.

Python runs one thread at a time, so a thread more helps only if the others wait for something: a database, another
service, a disk. Two signs show that it would not help: the interpreter is busy nearly whenever the loop looks, or
requests that run already wait for a connection. Pure: what was seen is passed in.
"""

# Weight of one look at the interpreter: about the last five count.
_WEIGHT = 0.2
# Busy in so many looks of all: what is left over is the price of finding out.
_FULL = 0.9
# Busy so often: one look that finds it free was chance, as between two requests.
_RATHER = 0.5


class Concurrency:
    """most: threads that may ever run."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the interpreter has been busy nearly whenever it was looked at."""
        return self._busy > _FULL

    def change(self, running: int, waiting: int, *, busy: bool, held_up: bool) -> int:
        """How many threads to wake, or, below 0, to let sleep after their request.

        running: threads that run requests. waiting: requests. busy: whether the interpreter was. held_up: whether
        requests that run wait for connections.
        """
        self._busy += _WEIGHT * (busy - self._busy)
        if held_up or self.is_full:
            return -(running // 8 or 1) if running > 1 else 0
        if busy or self._busy > _RATHER:
            return 0
        return max(0, min(waiting, self._most - running, 1 + running // 4))
