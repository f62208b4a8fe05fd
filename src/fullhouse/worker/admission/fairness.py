"""That one client does not take the queue from the others. Pure, as the queue."""

from collections import Counter

# What any client may have in the queue.
_FEW = 2
# Clients whose greed is remembered: addresses cost an attacker nothing.
_MOST_REMEMBERED = 10_000


class Fairness:
    """share: of the queue that one client may hold, 0 to 1; 1 switches all of this off."""

    def __init__(self, share: float) -> None:
        self.is_on = share < 1
        self._share = share
        self._held: Counter[str] = Counter()
        self._greedy_until: dict[str, float] = {}

    def allows(self, client: str, queue: int, greedy_until: float) -> bool:
        """Whether a client holds less than its share of a queue so long; if not, it is greedy until then."""
        if self._held[client] < max(_FEW, int(queue * self._share)):
            return True
        if len(self._greedy_until) >= _MOST_REMEMBERED:
            self._greedy_until.clear()
        self._greedy_until[client] = greedy_until
        return False

    def is_greedy(self, client: str, now: float) -> bool:
        """Whether a client has lately wanted more than its share.

        One that always has a request ready always has the newest one, too.
        """
        return self._greedy_until.get(client, now) > now

    def entered(self, client: str) -> None:
        self._held[client] += 1

    def left(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
