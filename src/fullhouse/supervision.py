"""The supervisor, in a fresh interpreter: `python -m fullhouse.supervision ORDER`, which `fullhouse serve` becomes.

To plan takes Django, gunicorn and the project's settings, and their memory would be kept for as long as the site is
served. The process, its number, its sockets and its lock remain the same.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fullhouse.supervisor import instances
from fullhouse.supervisor.companions import Program
from fullhouse.supervisor.control import ControlServer
from fullhouse.supervisor.instances import Instance
from fullhouse.supervisor.logfile import LogFile
from fullhouse.supervisor.policy import Policy
from fullhouse.supervisor.processes import name_process
from fullhouse.supervisor.supervisor import SIGNALS, Launch, Supervisor


@dataclass(frozen=True)
class Order:
    """What is supervised. name: for ps. words: of `fullhouse serve`. listeners, lock: descriptors; so is observe: the
    socket of the live page, if there is to be one.

    lock_path, facts: of the instance whose lock is held. opened: files of Unix sockets, to be removed at the end, as
    is the pid_file. log: a path. The times are in seconds.
    """

    name: str
    words: list[str]
    listeners: list[int]
    lock: int
    lock_path: str
    facts: Mapping[str, Any]
    opened: list[str]
    pid_file: str | None
    log: str | None
    boot_timeout: float
    graceful_timeout: float
    stop_delay: float
    observe: list[int]

    @property
    def descriptors(self) -> list[int]:
        return [*self.listeners, self.lock, *self.observe]


def become_supervisor(order: Order) -> None:
    """Replace this process by the supervisor; returns only by raising OSError.

    Signals that come meanwhile wait until it listens to them.
    """
    for descriptor in order.descriptors:
        os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    words = [sys.executable, "-m", __name__, json.dumps(asdict(order))]
    os.execv(sys.executable, words)  # noqa: S606 - a path of our own


def main(order: Order) -> int:
    """Serve until asked to stop. Returns the exit code."""
    for descriptor in order.descriptors:
        os.set_inheritable(descriptor, False)
    name_process(order.name)
    instance = Instance(Path(order.lock_path), order.facts)
    try:
        launch = Launch(
            ["-m", "fullhouse.generation"],
            order.words,
            order.listeners,
            instance.board,
            [_observer(order, listener) for listener in order.observe],
            order.observe,
        )
        supervisor = Supervisor(launch, Policy(order.boot_timeout, order.graceful_timeout, order.stop_delay))
        if order.log is not None:
            supervisor.log_to(LogFile(Path(order.log)))
        with closing(ControlServer(instance.control, supervisor.selector, supervisor.handle)):
            return supervisor.run()
    finally:
        instances.release(instance, order.lock)
        for path in order.opened:
            with suppress(FileNotFoundError):
                os.unlink(path)
        if order.pid_file is not None:
            with suppress(FileNotFoundError, ValueError):
                if int(Path(order.pid_file).read_text()) == os.getpid():
                    os.unlink(order.pid_file)


def _observer(order: Order, listener: int) -> Program:
    about = {"listener": listener, "lock_path": order.lock_path, "facts": dict(order.facts)}
    words = [sys.executable, "-m", "fullhouse.observation", json.dumps(about)]
    return Program("observer", words, {}, 1, 0, "TERM", 1.0)


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1]))))
