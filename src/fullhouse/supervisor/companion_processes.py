"""The companion processes themselves: started, signalled and reaped as `companions.Companions` decides.

Runs in the supervisor's thread. What a process writes goes to the supervisor's log line by line, with its name before.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fullhouse.settings.layers import COMPANION_SHARE
from fullhouse.supervisor import processes, systemd
from fullhouse.supervisor.companions import Action, Companions, Drain, Kill, Program, Seat, Start
from fullhouse.supervisor.policy import Report

# A line that is longer is written in parts.
LONGEST_LINE = 16384


@dataclass
class Running:
    """A process in a seat. stop_signal: of the program that it runs. rest: what it wrote after its last line end."""

    pid: int
    seat: Seat
    prefix: bytes
    stop_signal: signal.Signals
    output: int
    rest: bytes = b""


class CompanionProcesses:
    """lifeline: read end of a pipe that ends with the supervisor. write: takes whole lines for the log.

    report: takes one text of the supervisor's own. inherited: descriptors that every process gets.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        lifeline: int,
        write: Callable[[bytes], None],
        report: Callable[[str], None],
        inherited: Sequence[int] = (),
    ) -> None:
        self._selector = selector
        self._lifeline = lifeline
        self._write = write
        self._report = report
        self._inherited = inherited
        self._policy = Companions()
        self._running: dict[int, Running] = {}

    @property
    def next_time(self) -> float:
        return self._policy.next_time

    @property
    def all_gone(self) -> bool:
        return not self._policy.seats

    def run(self, programs: Sequence[Mapping[str, Any]], check: Mapping[str, Any] | None) -> None:
        """Run these, anew where they run already, and nothing else, once `check` has ended with 0."""
        wanted = [Program(**one) for one in programs]
        self._do(self._policy.run(wanted, Program(**check) if check else None, time.monotonic()))

    def stop(self) -> None:
        """End all. Again: at once."""
        self._do(self._policy.stop(time.monotonic()))

    def tick(self) -> None:
        self._do(self._policy.tick(time.monotonic()))

    def kill(self) -> None:
        """End all at once, with what they have started. For the end of the supervisor."""
        for running in self._running.values():
            processes.kill_group(running.pid, signal.SIGKILL)

    def reap(self, ended: Mapping[int, int]) -> None:
        """ended: wait statuses by pid, of any process."""
        for pid in ended.keys() & self._running.keys():
            running = self._running.pop(pid)
            processes.kill_group(pid, signal.SIGKILL)  # what it has started ends with it
            if running.output in self._selector.get_map():
                self._read(running)
            self._flush(running)
            if running.output in self._selector.get_map():
                self._selector.unregister(running.output)
            os.close(running.output)
            code = os.waitstatus_to_exitcode(ended[pid])
            self._do(self._policy.ended(running.seat, processes.ending(ended[pid]), code, time.monotonic()))

    def status(self) -> list[dict[str, Any]]:
        """For `fullhouse status`."""
        pids = {(one.seat.name, one.seat.number): one.pid for one in self._running.values()}
        return [
            {**row, "pid": pids.get((row["name"], row["number"]))} for row in self._policy.as_dicts(time.monotonic())
        ]

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(seat, program):
                    self._start(seat, program)
                case Drain(seat):
                    running = self._in(seat)
                    with suppress(ProcessLookupError):
                        os.kill(running.pid, running.stop_signal)
                case Kill(seat):
                    processes.kill_group(self._in(seat).pid, signal.SIGKILL)
                case Report(text):
                    self._report(text)

    def _in(self, seat: Seat) -> Running:
        return next(one for one in self._running.values() if one.seat is seat)

    def _start(self, seat: Seat, program: Program) -> None:
        """Start it. Where the system does not let us, it is one that has ended."""
        read, write = os.pipe()
        supervisor = os.getpid()
        environ = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        environ |= {**program.environ, COMPANION_SHARE: f"{supervisor}:{program.connections}"}
        words = ["-m", "fullhouse.companion", str(supervisor), str(self._lifeline), *program.words]
        try:
            pid = processes.spawn(words, environ, [self._lifeline, *self._inherited], write)
        except OSError as error:
            os.close(read)
            self._do(self._policy.ended(seat, f"it cannot be started, {error}", 1, time.monotonic()))
            return
        finally:
            os.close(write)
        os.set_blocking(read, False)
        running = Running(pid, seat, f"[{seat.title}] ".encode(), signal.Signals[f"SIG{program.stop_signal}"], read)
        self._running[pid] = running
        self._selector.register(read, selectors.EVENT_READ, lambda: self._read(running))

    def _read(self, running: Running) -> None:
        """Pass its output on, as far as lines are whole."""
        try:
            data = os.read(running.output, 1 << 16)
        except BlockingIOError:
            return
        if not data:  # it has closed its output, which it may do long before it ends
            self._selector.unregister(running.output)
        *lines, running.rest = (running.rest + data).split(b"\n")
        if lines:
            self._write(b"".join(running.prefix + line + b"\n" for line in lines))
        if len(running.rest) > LONGEST_LINE or not data:
            self._flush(running)

    def _flush(self, running: Running) -> None:
        if running.rest:
            self._write(running.prefix + running.rest + b"\n")
            running.rest = b""
