"""The front process: carries out what `Policy` decides, and reports to it what the processes, signals and callers do.

One thread. It owns the listening sockets, the write end of the death pipe, and one report pipe for each generation.
Whatever ends it ends all its processes: the kernel sees to that where it cannot do so itself.
"""

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from fullhouse.budget.slots import SlotFile
from fullhouse.supervisor import processes, systemd
from fullhouse.supervisor.companion_processes import CompanionProcesses
from fullhouse.supervisor.companions import Program
from fullhouse.supervisor.logfile import LogFile
from fullhouse.supervisor.policy import (
    NOT_UP,
    Action,
    Answer,
    Caller,
    Drain,
    Finish,
    Kill,
    Opened,
    Policy,
    Report,
    Spawn,
    State,
    Unready,
)
from fullhouse.supervisor.reports import Reports
from fullhouse.telemetry import board
from fullhouse.telemetry.rows import Row

# A second later the kernel has ended every process that was signalled.
_LAST_WORD_S = 2.0
SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD),
)


@dataclass(frozen=True)
class Launch:
    """How a generation is started. command: the words before its order. words: of `fullhouse serve`.

    board: path of the stats board, made by the supervisor. observer: the program that looks at the site, if any, and
    the descriptors that it gets.
    """

    command: Sequence[str]
    words: Sequence[str]
    listeners: Sequence[int]
    board: Path
    observer: Sequence[Program]
    observer_descriptors: Sequence[int]


@dataclass(frozen=True)
class Member:
    """The processes of one generation, as the supervisor holds them."""

    master: int
    reports: Reports


class Supervisor:
    """Serves until a signal or a caller ends it. `run` returns the exit code."""

    def __init__(self, launch: Launch, policy: Policy) -> None:
        self._launch = launch
        self._policy = policy
        self._members: dict[int, Member] = {}
        self._budgets: dict[int, dict[str, Any]] = {}  # slots and aliases by slot file, of plans that are not in force
        self._slot_files: dict[str, list[str]] = {}  # the aliases of each, by the plan that is
        self._programs: dict[int, Any] = {}  # companions and their check, of generations that have not opened
        self._started = time.monotonic()
        self._exit_code: int | None = None
        self.selector = selectors.DefaultSelector()
        board.create(launch.board)
        self._board = board.Notice(launch.board)
        self._lifeline, self._lifeline_held = os.pipe()
        beside = (self.selector, self._lifeline, self._write, _report)
        self._companions = CompanionProcesses(*beside)
        self._observer = CompanionProcesses(*beside, launch.observer_descriptors)
        self._beside = (self._companions, self._observer)
        self._log: LogFile | None = None
        self._log_pipe = -1
        self._output: int | None = None  # what replaces the standard output and error of the generations
        self._systemd = systemd.Notifier(os.environ)
        self._reopen_later: set[int] = set()  # generations that must reopen their logs while they started

    def run(self) -> int:
        processes.adopt_orphans()
        self._listen_to_signals()
        try:
            self._do(self._policy.start(time.monotonic()))
            self._observer.run([asdict(one) for one in self._launch.observer], None)
            while self._exit_code is None or not self._companions.all_gone:
                self._step()
            return self._exit_code
        finally:
            for member in self._members.values():
                processes.kill_group(member.master, signal.SIGKILL)
            for beside in self._beside:
                beside.kill()
            processes.kill_descendants(_LAST_WORD_S)
            self._copy_output()

    def reload(self, caller: Caller | None = None) -> None:
        """Replace the generation by one with the code of now; `caller` hears how it went."""
        self._do(self._policy.reload(time.monotonic(), caller))

    def handle(self, request: Mapping[str, Any], client: Caller) -> None:
        """Do what a client of the control socket wants."""
        match request.get("verb"):
            case "reload":
                self.reload(client)
            case "stop":
                client.answer({"ok": True})
                self.stop()
            case "status":
                client.answer({"ok": True, "status": self.status()})
            case "dump":
                number = self._board.ask_dump()
                workers = {pid: str(board.dump_path(self._launch.board, number, pid)) for pid in self._workers()}
                client.answer({"ok": True, "workers": workers})
            case verb:
                client.answer({"ok": False, "message": f"There is no verb {verb!r}."})

    def log_to(self, log: LogFile) -> None:
        """Copy all that the generations write into `log`, and until the first one serves to where we write, too."""
        self._log = log
        self._log_pipe, self._output = os.pipe()
        os.set_blocking(self._log_pipe, False)
        self.selector.register(self._log_pipe, selectors.EVENT_READ, self._copy_output)

    def _copy_output(self) -> None:
        if self._log is None:
            return
        with suppress(BlockingIOError):
            self._write(os.read(self._log_pipe, 1 << 16))

    def _write(self, data: bytes) -> None:
        """Write into the log; and until the first generation serves to where we write, too."""
        if self._log is not None:
            self._log.write(data)
        if self._log is None or not self._log.takes_output:
            say(data)

    def stop(self) -> None:
        """Drain and leave. A second call ends everything at once."""
        self._systemd.stopping()
        self._companions.stop()
        self._do(self._policy.stop(time.monotonic()))

    def status(self) -> dict[str, Any]:
        """What runs, for `fullhouse status`; times in seconds."""
        now = time.monotonic()
        rows = {row.gauges.pid: row for row in self._board.rows() if row.lives}
        return {
            "pid": os.getpid(),
            "uptime_s": round(now - self._started, 1),
            "stopping": self._policy.stopping,
            "crashes": self._policy.crashes.count,
            "last_failure": self._policy.last_failure,
            "processes": self._companions.status(),
            "slot_files": self._slot_files,
            "generations": [
                {
                    "number": one.number,
                    "state": one.state,
                    "since_s": round(now - one.since, 1),
                    "master": self._members[one.number].master,
                    "workers": [_as_dict(rows[pid]) for pid in sorted(one.ready) if pid in rows],
                    "planned": one.planned,
                }
                for one in self._policy.generations
            ],
        }

    def _step(self) -> None:
        due = min(self._policy.next_time, *(beside.next_time for beside in self._beside))
        wait = min(due - time.monotonic(), self._systemd.watchdog_s or inf)
        for callback in callbacks(self.selector, None if wait == inf else max(0.0, wait)):
            callback()
        now = time.monotonic()
        self._systemd.alive(now)
        self._do(self._policy.tick(now))
        for beside in self._beside:
            beside.tick()

    def _listen_to_signals(self) -> None:
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        for signum in SIGNALS:
            signal.signal(signum, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # as they were while this process became the supervisor
        self.selector.register(woken, selectors.EVENT_READ, lambda: self._on_signals(os.read(woken, 4096)))

    def _on_signals(self, signals: bytes) -> None:
        for signum in dict.fromkeys(signals):
            if signum == signal.SIGCHLD:
                self._reap()
            elif signum == signal.SIGHUP:
                self.reload()
            elif signum == signal.SIGUSR1:
                self._reopen_logs()
            elif signum == signal.SIGUSR2:
                self._board.ask_dump(in_log=True)
            else:
                self.stop()
                if signum == signal.SIGQUIT:
                    self.stop()

    def _reopen_logs(self) -> None:
        """Pass USR1 on. It would end a generation that starts, whose gunicorn has no handler yet: that one waits."""
        if self._log is not None:
            self._log.reopen()
        for one in self._policy.generations:
            if one.state is State.STARTING:
                self._reopen_later.add(one.number)
            else:
                self._signal(self._members[one.number], signal.SIGUSR1)

    def _reap(self) -> None:
        ended = dict(processes.reap_nowait())
        for beside in self._beside:
            beside.reap(ended)
        for number, member in list(self._members.items()):
            if member.master not in ended:
                continue
            processes.kill_group(member.master, signal.SIGKILL)
            self._read(number)
            self._forget_pipe(member)
            member.reports.close()
            del self._members[number]
            self._budgets.pop(number, None)
            self._programs.pop(number, None)
            status = ended[member.master]
            code = os.waitstatus_to_exitcode(status)
            self._do(
                self._policy.gone(number, processes.ending(status), time.monotonic(), code if code > 0 else NOT_UP)
            )

    def _read(self, number: int) -> None:
        """Pass on the reports of the generation's processes. Once the pipe has ended, only its master is awaited."""
        member = self._members[number]
        reports = member.reports.read()
        if reports is None:
            self._forget_pipe(member)
            return
        for report in reports:
            now = time.monotonic()
            match report["event"]:
                case "planned":
                    self._policy.planned(number, report["workers"])
                    self._budgets[number] = report["budgets"]
                    self._programs[number] = report["programs"], report["migration_check"]
                case "ready":
                    self._do(self._policy.worker_ready(number, report["pid"], now))
                case "failed":
                    text = "\n".join(filter(None, [report["text"], report["traceback"].rstrip()]))
                    self._do(self._policy.failed(number, text, report["code"], now, in_log=report["in_log"]))
                case "exit":
                    self._do(self._policy.worker_ended(number, report["pid"], report["life"], report["streak"], now))

    def _forget_pipe(self, member: Member) -> None:
        if member.reports.pipe in self.selector.get_map():
            self.selector.unregister(member.reports.pipe)

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(number):
                    self._spawn(number)
                case Drain(number):
                    self._signal(self._members[number], signal.SIGTERM)
                case Kill(number):
                    processes.kill_group(self._members[number].master, signal.SIGKILL)
                case Answer(callers, failure):
                    for caller in callers:
                        caller.answer({"ok": failure is None, "message": failure or "The new generation serves."})
                case Unready():
                    self._board.tell_stopping()
                case Opened(number):
                    self._open(number)
                case Report(text):
                    _report(text)
                case Finish(code):
                    self._exit_code = code

    def _open(self, number: int) -> None:
        self._board.tell_opened(number)
        self._publish(number)
        if self._log is not None and not self._log.takes_output:
            self._log.take_output()
        if number in self._reopen_later:
            self._reopen_later.remove(number)
            self._signal(self._members[number], signal.SIGUSR1)
        self._companions.run(*self._programs.pop(number))
        self._systemd.ready()

    def _spawn(self, number: int) -> None:
        """Start a generation. Where the system does not let us, it is one that failed to start."""
        try:
            member = self._member(number)
        except OSError as error:
            self._do(self._policy.gone(number, f"it cannot be started, {error}", time.monotonic()))
            return
        self._members[number] = member
        self.selector.register(member.reports.pipe, selectors.EVENT_READ, lambda: self._read(number))

    def _member(self, number: int) -> Member:
        read, write = os.pipe()
        order = {
            "words": list(self._launch.words),
            "listeners": list(self._launch.listeners),
            "reports": write,
            "lifeline": self._lifeline,
            "supervisor": os.getpid(),
            "board": str(self._launch.board),
            "generation": number,
            "alone": len(self._policy.generations) == 1,
            "worker_memory": self._worker_memory(),
        }
        environ = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        words = [*self._launch.command, json.dumps(order)]
        try:
            master = processes.spawn(words, environ, [*self._launch.listeners, write, self._lifeline], self._output)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        return Member(master, Reports(read))

    def _worker_memory(self) -> int | None:
        """Bytes of the largest worker that serves; None before the first one."""
        return max(map(processes.memory_bytes, self._workers()), default=0) or None

    def _workers(self) -> list[int]:
        """The processes that serve, of all generations."""
        return [pid for one in self._policy.generations for pid in sorted(one.ready)]

    def _publish(self, number: int) -> None:
        """Put the generation's plan into force on this host, once: from now on it is the one that counts."""
        budgets = self._budgets.pop(number, {})
        for path, budget in budgets.items():
            SlotFile.open(Path(path), budget["slots"], budget["most_hosts"])
        self._slot_files = {path: budget["aliases"] for path, budget in budgets.items()}

    @staticmethod
    def _signal(member: Member, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(member.master, signum)


def callbacks(selector: selectors.BaseSelector, wait_s: float | None) -> Iterator[Callable[[], None]]:
    """What is registered for all that is ready now.

    Left out is what a callback before it has unregistered, although its descriptor may be another's by now.
    """
    for key, _ in selector.select(wait_s):
        if selector.get_map().get(key.fd) is key:
            yield key.data


def say(line: bytes) -> None:
    """Write to standard error, the log of the supervisor. A full disk or a closed pipe costs lines, never the site."""
    with suppress(OSError):
        os.write(2, line)


def _report(text: str) -> None:
    say(f"fullhouse: {text}\n".encode(errors="replace"))


def _as_dict(row: Row) -> dict[str, Any]:
    """A worker for `fullhouse status`. worker: the number that its successor will have, too."""
    databases = [{"alias": one.alias, **asdict(one.gauges), **asdict(one.totals)} for one in row.databases]
    totals = {"requests": row.totals.requests, "errors": row.totals.errors, "shed": sum(row.totals.shed)}
    return {"worker": row.number, **asdict(row.gauges), **totals, "databases": databases}
