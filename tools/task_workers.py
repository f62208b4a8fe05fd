"""Run tasks under the systems that people use, with Django's engine and with ours, and count the database's sessions.

    python tools/task_workers.py                          # all of them
    python tools/task_workers.py rq dramatiq --database mysql

24 tasks run at once, each with a transaction of 50 ms, on a server of the database that lets 20 sessions in. The table
says how many tasks failed, and how many sessions the site had at once. Then 1,000 tasks are ended in the middle: their
process is killed, where one runs each task, else an exception ends them. Afterwards as many sessions as before must
be at work. Fails where a task fails with our engine, a session is one too many, or some are lost.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import PACKAGES
from overlay import overlay
from private_redis import ask, private_redis
from private_servers import PrivateServer
from sessions import MAKERS, Sessions, count, entry, observer_of, watched

TOOLS = Path(__file__).resolve().parent
SOURCE = TOOLS.parent / "src"
MOST_SESSIONS, AT_ONCE, TASKS, ENDED = 20, 24, 960, 1000
STOP_TIMEOUT_S, TASKS_TIMEOUT_S, ENQUEUE_TIMEOUT_S = 30.0, 240.0, 120.0
ALMOST = 0.8  # of the sessions that were at work before: a sample may miss some, and a lost one is lost for good


@dataclass(frozen=True)
class System:
    """words: of its worker, after python. needs: its requirements. copies: workers that are started.

    ended: the task that is ended in the middle; die, where its process is one that the system replaces.
    """

    module: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    ended: str
    copies: int = 1


_CELERY = (
    "-m",
    "celery",
    "--app=task_workers_site:celery",
    "worker",
    "--loglevel=CRITICAL",
    f"--concurrency={AT_ONCE}",
)
_CELERY_NEEDS = ("celery==5.6.3", "redis")
SYSTEMS = {
    "celery prefork": System("celery", (*_CELERY, "--pool=prefork"), _CELERY_NEEDS, "die"),
    "celery threads": System("celery", (*_CELERY, "--pool=threads"), _CELERY_NEEDS, "fail"),
    "celery gevent": System("celery", (*_CELERY, "--pool=gevent"), (*_CELERY_NEEDS, "gevent"), "fail"),
    "dramatiq": System(
        "dramatiq",
        ("-m", "dramatiq", "task_workers_site", "--processes=2", f"--threads={AT_ONCE // 2}"),
        ("dramatiq", "redis"),
        "fail",
    ),
    "rq": System(
        "rq",
        # Django is loaded once, and forked for each task.
        ("-c", "import task_workers_site; from rq.cli import main; main()", "worker", "--quiet"),
        ("rq", "redis"),
        "die",
        copies=AT_ONCE,
    ),
    "huey threads": System(
        "huey", ("-m", "huey.bin.huey_consumer", "task_workers_site.huey", f"-w{AT_ONCE}"), ("huey", "redis"), "fail"
    ),
    "huey processes": System(
        "huey",
        ("-m", "huey.bin.huey_consumer", "task_workers_site.huey", f"-w{AT_ONCE}", "--worker-type=process"),
        ("huey", "redis"),
        "fail",
    ),
    "django-q2": System("q2", ("-m", "django", "qcluster"), ("django-q2", "redis", "setuptools"), "fail"),
    "django tasks": System(
        "tasks", ("-m", "django", "db_worker", "--interval=0.5", "--verbosity=0"), ("redis",), "fail", copies=AT_ONCE
    ),
}


@dataclass
class Seen:
    """done, failed: tasks. sessions: the most at once."""

    done: int
    failed: int
    sessions: Sessions


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the sessions of a site's task workers.")
    parser.add_argument("systems", nargs="*", choices=[[], *SYSTEMS], metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--database", choices=MAKERS, default="postgresql")
    parser.add_argument("--engine", choices=PACKAGES, help="this one only")
    arguments = parser.parse_args()
    good = True
    print(f"{arguments.database} lets {MOST_SESSIONS} sessions in; {AT_ONCE} tasks at once, {TASKS} in all")
    print(f"{'':16}{'engine':8}  done  failed  sessions  once {ENDED} were ended: failed  sessions at work")
    for name in arguments.systems or SYSTEMS:
        for whose in [arguments.engine] if arguments.engine else PACKAGES:
            seen, after = _measure(SYSTEMS[name], name, whose, arguments.database)
            before = f"{seen.done:6}{seen.failed:8}{seen.sessions.most:10}"
            print(f"{name:16}{whose:8}{before}{after.failed:29}{after.sessions.at_work:18}", flush=True)
            if whose == "ours":
                good = good and seen.done == after.done == TASKS and not seen.failed + after.failed
                good = good and max(seen.sessions.most, after.sessions.most) < MOST_SESSIONS
                good = good and after.sessions.at_work > ALMOST * seen.sessions.at_work > 0
    return 0 if good else 1


def _measure(system: System, name: str, whose: str, database: str) -> tuple[Seen, Seen]:
    """Before and after tasks have been ended in the middle."""
    python = overlay("-".join(re.findall(r"\w+", name)), list(system.needs))
    with (
        MAKERS[database](max_connections=MOST_SESSIONS) as private,
        private_redis() as address,
        observer_of(private) as observer,
    ):
        queue = Queue(system, python, address, entry(whose, private))
        queue.prepare()
        with queue.workers(private.folder):
            seen = _run(queue, private, observer)
            queue.put(system.ended, ENDED)
            _wait(lambda: queue.counted("died") >= ENDED, f"{ENDED} tasks were ended", queue)
            _wait(lambda: not count(private, observer)[1], "their statements were over", queue)
            return seen, _run(queue, private, observer)


def _run(queue: "Queue", private: PrivateServer, observer: Any) -> Seen:
    queue.forget()
    with watched(private, observer) as sessions:
        queue.put("work", TASKS)
        _wait(lambda: queue.counted("done") + queue.counted("failed") >= TASKS, "the tasks were done", queue)
    return Seen(queue.counted("done"), queue.counted("failed"), sessions)


class Queue:
    """A system's queue in Redis, and its workers."""

    def __init__(self, system: System, python: Path, address: tuple[str, int], database: dict[str, Any]) -> None:
        self._system = system
        self._python = str(python)
        self._address = address
        url = f"redis://{address[0]}:{address[1]}/0"
        self._environment = {
            **os.environ,
            "TASK_WORKERS_DATABASE": json.dumps(database),
            "TASK_WORKERS_REDIS": url,
            "TASK_WORKERS_SYSTEM": system.module,
            "TASK_WORKERS": str(AT_ONCE),
            "RQ_REDIS_URL": url,
            "DJANGO_SETTINGS_MODULE": "task_workers_site",
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TOOLS)]),
        }

    def prepare(self) -> None:
        self._call("-m", "django", "migrate", "--verbosity=0")

    def put(self, task: str, number: int) -> None:
        """Put the task into the queue, so many times."""
        self._call(str(TOOLS / "task_workers_site.py"), self._system.module, task, str(number))

    def _call(self, *words: str) -> None:
        subprocess.run([self._python, *words], env=self._environment, check=True, timeout=ENQUEUE_TIMEOUT_S)

    @contextlib.contextmanager
    def workers(self, folder: Path) -> Iterator[None]:
        """Those that take from it; what they print is in `folder`/workers.log."""
        self._log = folder / "workers.log"
        with self._log.open("wb") as log:
            command = [self._python, *self._system.words]
            options: dict[str, Any] = {"env": self._environment, "cwd": folder, "stdout": log, "stderr": log}
            running = [subprocess.Popen(command, **options, start_new_session=True) for _ in range(self._system.copies)]
            try:
                yield
            finally:
                for process in running:
                    process.terminate()
                for process in running:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(STOP_TIMEOUT_S)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait(STOP_TIMEOUT_S)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def counted(self, what: str) -> int:
        return int(ask(self._address, "GET", what) or 0)

    def forget(self) -> None:
        ask(self._address, "DEL", "done", "failed")


def _wait(condition: Callable[[], bool], what: str, queue: Queue) -> None:
    deadline = time.monotonic() + TASKS_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {TASKS_TIMEOUT_S:g} s in vain until {what}\n{queue.said()}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
