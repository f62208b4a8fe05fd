"""Writes a worker's row of the stats board, twice a second, and what its threads are at when somebody asks.

A thread of its own, so that the row is fresh under every kind of worker. It only reads what others write. `_lock`
guards the row: the worker's last words are written by the thread that ends it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullhouse.telemetry.board import Writer, dump_path
from fullhouse.telemetry.rows import Database, Gauges, Row, Totals, merged
from fullhouse.telemetry.tally import Tally

_PERIOD_S = 0.5
# The rate and the peak are those of the last ten seconds.
_SAMPLES = 20


@dataclass(frozen=True)
class Recorded:
    """What is known of the worker. dump: what its threads are at. databases: looks at its pools; memory: in bytes."""

    generation: int
    threads: int
    databases: Callable[[], Sequence[Database]]
    dump: Callable[[], str]
    memory: Callable[[], int]


class Recorder:
    """log: the worker's."""

    def __init__(self, writer: Writer, worker: Recorded, tally: Tally, log: Any) -> None:
        self._writer = writer
        self._worker = worker
        self._tally = tally
        self._dumped = writer.dumps_wanted
        self._log = log
        self._lock = threading.Lock()
        self._failed = False
        self._began = round(time.time())
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=_SAMPLES)
        before = writer.before
        self._before = before.totals
        self._databases_before = before.databases
        tally.waits.add(before.waits)
        tally.series.update(before.series)

    def start(self) -> None:
        """Write the row from now on, until the process ends."""
        self.record(time.monotonic())
        threading.Thread(target=self._run, name="fullhouse-board", daemon=True).start()

    def record(self, now: float) -> None:
        """Write the row as things are `now`, in monotonic seconds."""
        with self._lock:
            self._writer.write(
                Row(
                    self._gauges(now),
                    self._totals(),
                    self._tally.waits,
                    merged([*self._worker.databases(), *self._databases_before]),
                    dict(self._tally.series),
                )
            )

    def _gauges(self, now: float) -> Gauges:
        tally = self._tally
        self._samples.append((now, tally.requests, tally.take_peak()))
        since, before, _ = self._samples[0]
        return Gauges(
            pid=os.getpid(),
            generation=self._worker.generation,
            began=self._began,
            threads=self._worker.threads,
            busy=tally.busy,
            queued=tally.queued,
            peak_queued=max(peak for _, _, peak in self._samples),
            oldest_wait_ms=round(tally.oldest_wait_s * 1000),
            memory=self._worker.memory(),
            requests_per_s=(tally.requests - before) / (now - since) if now > since else 0.0,
        )

    def _totals(self) -> Totals:
        tally, before = self._tally, self._before
        return Totals(
            before.requests + tally.requests,
            before.errors + tally.errors,
            before.cpu_ms + round(time.process_time() * 1000),
            tuple(map(sum, zip(before.shed, tally.shed.values(), strict=True))),
            before.ends,
        )

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
                self._write_dump(dump_path(self._writer.path, wanted[0], os.getpid()))
            if wanted[1] != before[1]:
                self._log.warning("The threads of this worker:\n%s", self._worker.dump())
        except Exception:
            self._log.exception("Cannot tell what the threads of this worker are at")

    def _write_dump(self, path: Path) -> None:
        """At once: who waits for the file must not find half of it."""
        draft = path.with_suffix(".draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(self._worker.dump())
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
