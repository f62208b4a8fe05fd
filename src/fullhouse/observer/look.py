"""All that can be seen of a running site at one moment: the board, the supervisor's answer, the slots by holder."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fullhouse.budget.holders import holders_of
from fullhouse.fleet import report
from fullhouse.fleet.report import FleetReport
from fullhouse.supervisor.control import ask
from fullhouse.supervisor.instances import Instance
from fullhouse.telemetry.board import Board
from fullhouse.telemetry.rows import Database, Row, merged, summed

# How long the supervisor may take to answer.
PATIENCE_S = 5.0
_LONGEST_TITLE = 60
_LONGEST_ANCESTRY = 20


@dataclass(frozen=True)
class Holder:
    """A process with slots. kind: worker, companion, fleet (other hosts, and no host) or other; title: for people.
    generation: of a worker, else 0."""

    pid: int
    slots: int
    kind: str
    title: str
    generation: int = 0


@dataclass(frozen=True)
class Budget:
    """The slots that the aliases of one database user share, and who has them, the most first. fleet: of the hosts that
    share them; None: they are this host's alone."""

    aliases: Sequence[str]
    slots: int
    holders: Sequence[Holder]
    fleet: FleetReport | None = None


@dataclass(frozen=True)
class Look:
    """at: seconds since 1970; clock: monotonic. status: the supervisor's, see `fullhouse status --format json`."""

    at: float
    clock: float
    status: Mapping[str, Any]
    rows: Sequence[Row]
    budgets: Sequence[Budget]

    @cached_property
    def workers(self) -> list[Row]:
        """Those that live."""
        return [row for row in self.rows if row.lives]

    @cached_property
    def total(self) -> Row:
        """All rows together."""
        return summed(self.rows)

    @cached_property
    def pools(self) -> tuple[Database, ...]:
        """Those of the workers that live, by alias."""
        return merged(one for row in self.workers for one in row.databases)


class Looker:
    """Looks at one running supervisor. Its files are opened once; `close` when it is done."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._board = Board(instance.board)

    def look(self) -> Look:
        """Raises NotRunningError where the supervisor has ended, or does not answer."""
        status = ask(self._instance.control, {"verb": "status"}, PATIENCE_S)["status"]
        rows = self.rows()
        budgets = budgets_of(status, rows)
        return Look(time.time(), time.monotonic(), status, rows, budgets)

    def rows(self) -> list[Row]:
        """Of the board alone, for which nobody is asked."""
        return list(self._board.rows())

    def close(self) -> None:
        self._board.close()


def budgets_of(status: Mapping[str, Any], rows: Sequence[Row]) -> list[Budget]:
    """The slots by holder. Costs some system calls for each process that has any."""
    known = {row.gauges.pid: row for row in rows if row.lives}
    companions = {one["pid"]: _companion(one) for one in status["processes"] if one["pid"]}
    found: list[Budget] = []
    for path, aliases in status["slot_files"].items():
        with suppress(OSError):
            held = holders_of(Path(path))
            fleet = report.read(Path(path))
            holders = [_holder(pid, slots, known, companions, fleet) for pid, slots in held.slots.items()]
            found.append(Budget(aliases, held.budget, sorted(holders, key=lambda one: (-one.slots, one.title)), fleet))
    return found


def _companion(one: Mapping[str, Any]) -> str:
    return f"{one['name']} {one['number']}"


def _holder(
    pid: int, slots: int, workers: Mapping[int, Row], companions: Mapping[int, str], fleet: FleetReport | None
) -> Holder:
    if fleet is not None and pid == fleet.pid:
        return Holder(pid, slots, "fleet", "not this host's")
    if pid in workers:
        row = workers[pid]
        return Holder(pid, slots, "worker", f"worker {row.number}", row.gauges.generation)
    ancestor = pid
    for _ in range(_LONGEST_ANCESTRY):
        if ancestor in companions:
            return Holder(pid, slots, "companion", companions[ancestor])
        ancestor = _parent(ancestor)
        if ancestor <= 1:
            break
    return Holder(pid, slots, "other", _command(pid))


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _command(pid: int) -> str:
    """The words that it was started with, without the interpreter."""
    words: list[str] = []
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    if words and Path(words[0]).name.startswith("python"):
        words = words[1:]
    title = " ".join(filter(None, [Path(words[0]).name, *words[1:]] if words else []))
    title = "".join(letter if letter.isprintable() else "?" for letter in title)
    return title if 0 < len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…" if title else "a process"
