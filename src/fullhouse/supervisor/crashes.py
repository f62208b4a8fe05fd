"""How many times in a row something has ended by itself, and when it starts again."""

BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# Living that long ends a row of crashes.
STABLE_S = 60.0
# So many crashes in a row are a crash loop.
CRASH_LOOP = 3


class Crashes:
    """A row of them. `delay_s` and the texts are those of the crash that was counted last."""

    def __init__(self) -> None:
        self.count = 0
        self.delay_s = 0.0

    def add(self) -> None:
        self.delay_s = BACKOFF_S[min(self.count, len(BACKOFF_S) - 1)]
        self.count += 1

    def forget_if_stable(self, lived_s: float) -> None:
        """End the row, if what has ended now had lived for long."""
        if lived_s >= STABLE_S:
            self.count = 0

    @property
    def loop(self) -> str:
        """A sentence about the crash loop, with a space before it; empty where it is none."""
        return f" This is a crash loop: {self.count} in a row." if self.count >= CRASH_LOOP else ""

    @property
    def when(self) -> str:
        """When it starts again."""
        return f"in {self.delay_s:g} s" if self.delay_s else "now"
