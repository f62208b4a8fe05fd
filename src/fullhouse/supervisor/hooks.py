"""gunicorn's hooks in a supervised generation: they report to the supervisor what happens, and keep crash loops slow.

The hooks of the user's own gunicorn settings are called after ours. The hooks of the master run in its main thread; a
worker finds the streak of crashes as it was at its fork.
"""

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fullhouse.errors import FullhouseError
from fullhouse.supervisor.gunicorn_settings import both
from fullhouse.supervisor.lifeline import Lifeline
from fullhouse.supervisor.reports import send
from fullhouse.telemetry.board import Writer
from fullhouse.telemetry.recorder import Recorded, Recorder
from fullhouse.telemetry.rows import Database
from fullhouse.telemetry.tally import Tally
from fullhouse.telemetry.times import ROUTE, Times, own
from fullhouse.worker import Worker
from fullhouse.worker.dump import dump
from fullhouse.worker.memory import resident_bytes
from fullhouse.worker.stuck import NoQueries

# A worker that ends sooner after its start has crashed, whatever the reason.
SHORT_LIFE_S = 5.0
# Seconds that the next worker waits after so many short lives in a row.
PAUSES_S = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0)
_BEAT_S = 0.5
_LOOK_EVERY_S = 0.01

MakeReady = Callable[[Callable[..., Any]], None]


class Hooks:
    """pipe: of the reports. make_ready: makes the loaded application ready to serve; raises FullhouseError.

    board: the stats board, in which each worker has a row. databases: looks at the pools of a worker.
    """

    def __init__(
        self,
        pipe: int,
        lifeline: Lifeline,
        make_ready: MakeReady,
        board: Path,
        generation: int,
        databases: Callable[[], Sequence[Database]],
    ) -> None:
        self._pipe = pipe
        self._lifeline = lifeline
        self._make_ready = make_ready
        self._board = board
        self._generation = generation
        self._databases = databases
        self._streak = 0
        self._born: dict[int, float] = {}
        self._foreign = ForeignTally()
        self._is_open: Callable[[], bool] = lambda: True
        self._tell_end: Callable[[str], object] = bool
        self._recorder: Recorder | None = None

    def added_to(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """gunicorn's settings `values` with these hooks before the user's own."""
        ours: dict[str, Callable[..., None]] = {
            "on_starting": self._on_starting,
            "pre_fork": self._pre_fork,
            "post_fork": self._post_fork,
            "post_worker_init": self._post_worker_init,
            "worker_abort": self._worker_abort,
            "worker_exit": self._worker_exit,
            "child_exit": self._child_exit,
        }
        if not _is_ours(values["worker_class"]):
            ours |= {"pre_request": self._foreign.pre_request, "post_request": self._foreign.post_request}
        return {**values, **{name: both(hook, values.get(name)) for name, hook in ours.items()}}

    def _on_starting(self, server: Any) -> None:
        # As under systemd: the sockets are another's, and gunicorn leaves the files of Unix sockets alone.
        server.systemd = True

    def _pre_fork(self, _server: Any, worker: Any) -> None:
        self._born[worker.age] = time.monotonic()

    def _post_fork(self, _server: Any, worker: Any) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(
                signum, signal.SIG_DFL
            )  # the master's handlers would lose it until gunicorn sets the worker's
        self._lifeline.hold_worker()
        self._tell_board(worker)
        end = time.monotonic() + PAUSES_S[min(self._streak, len(PAUSES_S) - 1)]
        while (left := end - time.monotonic()) > 0:
            worker.notify()
            time.sleep(min(left, _BEAT_S))

    def _post_worker_init(self, worker: Any) -> None:
        self._lifeline.hold_again()
        try:
            self._make_ready(worker.wsgi)
        except FullhouseError as error:
            report_failure(self._pipe, error)
        else:
            send(self._pipe, "ready", pid=worker.pid)
        # Until all workers are ready, the generation may be discarded, with all that it has accepted.
        while worker.alive and not self._is_open():
            worker.notify()
            time.sleep(_LOOK_EVERY_S)

    def _tell_board(self, worker: Any) -> None:
        row = Writer(self._board)
        self._is_open = lambda: row.opened_generation >= self._generation
        tally, dump = self._foreign.tally, dump_of_others
        if isinstance(worker, Worker):
            tally, dump = worker.tally, worker.dump
            worker.site_is_stopping = lambda: row.site_is_stopping
            worker.tell_end = row.tell_end
        self._tell_end = row.tell_end
        recorded = Recorded(self._generation, worker.cfg.threads, self._databases, dump, resident_bytes)
        self._recorder = Recorder(row, recorded, tally, worker.log)
        self._recorder.start()

    def _worker_abort(self, _worker: Any) -> None:
        self._tell_end("timeout")

    def _worker_exit(self, _server: Any, _worker: Any) -> None:
        """In the worker, as its process ends: its last figures, and why it ends, where nothing has told it before."""
        if self._recorder is None:
            return
        end = sys.exc_info()[1]
        if isinstance(end, SystemExit) and not end.code:
            self._tell_end("stopped")
        self._recorder.record_guarded()

    def _child_exit(self, _server: Any, worker: Any) -> None:
        life = time.monotonic() - self._born.pop(worker.age)
        self._streak = self._streak + 1 if life < SHORT_LIFE_S else 0
        send(self._pipe, "exit", pid=worker.pid, life=round(life, 3), streak=self._streak)


def dump_of_others() -> str:
    """What the threads of a worker of gunicorn's own are at: it does not tell their requests."""
    return dump((), NoQueries(), time.monotonic())


class ForeignTally:
    """Counts the requests of a worker of gunicorn's own, by its hooks. `_lock` guards the tally: threads call them."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._lock = threading.Lock()
        self._request = threading.local()

    def pre_request(self, _worker: Any, request: Any) -> None:
        self._request.began_s = time.monotonic()
        own.times = Times(request.method, 0.0)
        with self._lock:
            self.tally.busy += 1

    def post_request(self, _worker: Any, _request: Any, environ: Any, response: Any) -> None:
        times = own.times
        times.total_s = time.monotonic() - self._request.began_s
        times.route, times.status = environ.get(ROUTE, ""), response.status_code
        with self._lock:
            self.tally.busy -= 1
            self.tally.count(times.total_s, failed=times.status >= 500, times=times)


def _is_ours(worker_class: Any) -> bool:
    return isinstance(worker_class, type) and issubclass(worker_class, Worker)


def report_failure(pipe: int, error: FullhouseError, *, in_log: bool = False) -> None:
    """Tell the supervisor why this generation is not fit to serve, with the traceback of the cause.

    in_log: whether this process writes it into the log itself.
    """
    cause = error.__cause__
    trace = "".join(traceback.format_exception(cause)) if cause is not None else ""
    send(pipe, "failed", text=str(error), traceback=trace, code=error.exit_code, in_log=in_log)
