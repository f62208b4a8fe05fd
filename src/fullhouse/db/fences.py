"""The fence of a session in a fleet: a lock of the slot that it stands on, which it takes as its first statement."""

from typing import Any

from fullhouse.db.contracts import SlotTakenError
from fullhouse.fleet import mysql, postgresql

_FENCES = {"mysql": mysql.fence, "postgresql": postgresql.fence}
_SECOND = {"mysql": 1, "postgresql": 1000}  # in the units of the servers' limits


class Fence:
    """Of one session. idle_limit_s: after which its server ends it when idle, known once it is taken; None: never."""

    idle_limit_s: float | None = None

    def __init__(self, vendor: str, user: str, slot: int) -> None:
        self.vendor = vendor
        self.user = user
        self.slot = slot

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """OPTIONS by which the server notices a host that was cut off."""
        if self.vendor != "postgresql":
            return given
        return {**given, "options": f"{postgresql.SESSION_OPTIONS} {given.get('options', '')}".strip()}

    def take(self, connection: Any) -> None:
        """By the first statement on the driver's connection. Raises SlotTakenError."""
        with connection.cursor() as cursor:
            cursor.execute(_FENCES[self.vendor](self.user, self.slot))
            is_free, limit = cursor.fetchone()
        if not is_free:
            raise SlotTakenError(f"Another session of {self.user!r} stands on slot {self.slot} of the fleet.")
        self.idle_limit_s = float(limit) / _SECOND[self.vendor] or None

    @property
    def key(self) -> int:
        """Of PostgreSQL's lock."""
        return postgresql.key(self.user, "b")

    @property
    def reset(self) -> str:
        """PostgreSQL's statements that make the session like new, and keep the fence."""
        return postgresql.reset(self.user, self.slot)
