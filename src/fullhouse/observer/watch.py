"""Looks at the site once a second, in a thread of its own, and keeps what HTTP clients ask for.

`_lock` guards what is kept; no client ever makes anybody look, but for `/metrics`, which reads the board at most twice
a second.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fullhouse.errors import FullhouseError
from fullhouse.observer.figures import figures
from fullhouse.observer.history import History
from fullhouse.observer.look import Look, Looker
from fullhouse.telemetry.rows import END_REASONS

EVERY_S = 1.0
# Rates and percentiles are those of so many seconds.
WINDOW_S = 10
_FRESH_S = 0.5

Exposition = Callable[[Look, str], tuple[bytes, str]]


class Watch:
    """name: of the site, for people. exposition: makes `/metrics`; None where the library is not installed."""

    def __init__(self, looker: Looker, name: str, exposition: Exposition | None) -> None:
        self._looker = looker
        self.name = name
        self._exposition = exposition
        self._lock = threading.Lock()
        self._looks: deque[Look] = deque(maxlen=WINDOW_S + 1)
        self._history = History()
        self._state = b"{}"
        self._trouble: str | None = None
        self._metrics: dict[str, tuple[float, tuple[bytes, str]]] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            self.look()
            due = max(due + EVERY_S, time.monotonic())
            time.sleep(due - time.monotonic())

    def look(self) -> None:
        """Look once. A supervisor that does not answer is told to clients, and asked again."""
        try:
            found = self._looker.look()
        except (FullhouseError, OSError, ValueError) as error:
            self._trouble = str(error)
            return
        with self._lock:
            self._trouble = None
            self._looks.append(found)
            now = figures(self._looks[0], found)
            ends = dict(zip(END_REASONS, found.total.totals.ends, strict=True))
            self._history.add(figures(self._looks[-2], found) if len(self._looks) > 1 else now, ends)
            self._state = json.dumps({"site": self.name, "worker_ends": ends, **now}).encode()

    def state(self) -> bytes:
        """JSON: the figures of the last look."""
        trouble = self._trouble
        return json.dumps({"site": self.name, "trouble": trouble}).encode() if trouble else self._state

    def history(self, query: str) -> bytes:
        """JSON: what was, in the last ten minutes, or with `span=coarse` in the last eight hours."""
        with self._lock:
            return json.dumps(self._history.as_dict(coarse=query == "span=coarse")).encode()

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        """The body and content type of `/metrics`; None before the first look, and without the library."""
        with self._lock:
            if self._exposition is None or not self._looks:
                return None
            made_at, made = self._metrics.get(accept, (0.0, (b"", "")))
            now = time.monotonic()
            if now - made_at > _FRESH_S:
                made = self._exposition(self._fresh(), accept)
                self._metrics = {accept: (now, made)}
            return made

    def latest(self) -> Look | None:
        """With the board as it is now; None before the first look, and while the supervisor does not answer."""
        with self._lock:
            return None if self._trouble or not self._looks else self._fresh()

    def _fresh(self) -> Look:
        return replace(self._looks[-1], rows=self._looker.rows())


def site_name(facts: Mapping[str, Any]) -> str:
    return f"{facts['project']} on {facts['port']}"
