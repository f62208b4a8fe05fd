"""Writes a worker's row of the stats board, twice a second, and what its threads are at when somebody asks.

A thread of its own, so that the row is fresh under every kind of worker. It only reads what others write.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fullhouse.telemetry.board import Counters, Database, Row, Writer, dump_path
from fullhouse.telemetry.tally import Tally

_PERIOD_S = 0.5
# The rate is that of the last ten seconds.
_RATE_SAMPLES = 20


class Recorder:
    """identity: pid, generation and threads of the worker. databases: looks at its pools.

    dump: what its threads are at. log: the worker's.
    """

    def __init__(
        self,
        writer: Writer,
        identity: tuple[int, int, int],
        tally: Tally,
        databases: Callable[[], Sequence[Database]],
        dump: Callable[[], str],
        log: Any,
    ) -> None:
        self._writer = writer
        self._identity = identity
        self._tally = tally
        self._databases = databases
        self._dump = dump
        self._dumped = writer.dumps_wanted
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
            self.answer_dump()

    def answer_dump(self) -> None:
        """Write a dump, if one was asked for since the last time. One that cannot be written is logged."""
        before, wanted = self._dumped, self._writer.dumps_wanted
        self._dumped = wanted
        try:
            if wanted[0] != before[0]:
                self._write_dump(dump_path(self._writer.path, wanted[0], self._identity[0]))
            if wanted[1] != before[1]:
                self._log.warning("The threads of this worker:\n%s", self._dump())
        except Exception:
            self._log.exception("Cannot tell what the threads of this worker are at")

    def _write_dump(self, path: Path) -> None:
        """At once: who waits for the file must not find half of it."""
        draft = path.with_suffix(".draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(self._dump())
        draft.rename(path)

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
