"""Writes a worker's row of the stats board, twice a second.

A thread of its own, so that the row is fresh under every kind of worker. It only reads what others write.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from fullhouse.telemetry.board import Counters, Database, Row, Writer
from fullhouse.telemetry.tally import Tally

_PERIOD_S = 0.5
# The rate is that of the last ten seconds.
_RATE_SAMPLES = 20


class Recorder:
    """identity: pid, generation and threads of the worker. databases: looks at its pools. log: where a failure goes."""

    def __init__(
        self,
        writer: Writer,
        identity: tuple[int, int, int],
        tally: Tally,
        databases: Callable[[], Sequence[Database]],
        log: Any,
    ) -> None:
        self._writer = writer
        self._identity = identity
        self._tally = tally
        self._databases = databases
        self._log = log
        self._failed = False
        self._samples: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES)

    def start(self) -> None:
        """Write the row from now on, until the process ends."""
        self.record(time.monotonic())
        threading.Thread(target=self._run, name="fullhouse-board", daemon=True).start()

    def record(self, now: float) -> None:
        """Write the row as things are `now`, in monotonic seconds."""
        tally = self._tally
        self._samples.append((now, tally.requests))
        since, before = self._samples[0]
        pid, generation, threads = self._identity
        counters = Counters(
            pid=pid,
            generation=generation,
            threads=threads,
            busy=tally.busy,
            queued=tally.queued,
            oldest_wait_ms=round(tally.oldest_wait_s * 1000),
            requests=tally.requests,
            errors=tally.errors,
            shed=tally.shed,
            requests_per_s=(tally.requests - before) / (now - since) if now > since else 0.0,
        )
        self._writer.write(Row(counters, tuple(tally.latency), tuple(self._databases())))

    def _run(self) -> None:
        while True:
            time.sleep(_PERIOD_S)
            self.record_guarded()

    def record_guarded(self) -> None:
        """A row that cannot be written is logged, once in a row, and tried again: the figures must not freeze."""
        try:
            self.record(time.monotonic())
        except Exception:
            if not self._failed:
                self._log.exception("Cannot write the figures of this worker; trying again")
            self._failed = True
        else:
            self._failed = False
