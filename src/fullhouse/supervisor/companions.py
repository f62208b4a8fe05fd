"""What the supervisor does next about companion processes. No process and no clock in here, as in `policy`.

A program runs `count` times; each run has a seat, known by the program's name and a number from 1. A reload ends the
process in a seat, and starts its successor once it is gone: there are never two of one, so a scheduler schedules once,
and the plan counts them once. Before that a check has to end well, which looks for migrations that are not applied: it
is repeated until it does, and what runs goes on meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

from fullhouse.supervisor.crashes import Crashes
from fullhouse.supervisor.policy import Report


@dataclass(frozen=True)
class Program:
    """What runs. words: the command. environ: variables beyond the supervisor's own. connections: of its fair share."""

    name: str
    words: Sequence[str]
    environ: dict[str, str]
    count: int
    connections: int
    stop_signal: str
    graceful_timeout: float


class State(StrEnum):
    RUNNING = "running"
    DRAINING = "draining"
    WAITING = "waiting"


@dataclass
class Seat:
    """wanted: what is to run here; None: nothing any more. deadline: when to end what drains, or start what waits."""

    name: str
    number: int
    wanted: Program | None
    state: State = State.WAITING
    since: float = 0.0
    deadline: float = inf
    crashes: Crashes = field(default_factory=Crashes)

    @property
    def title(self) -> str:
        """For people: the name, and the number where there are several."""
        return f"{self.name} {self.number}" if self.wanted is not None and self.wanted.count > 1 else self.name


@dataclass(frozen=True)
class Start:
    """Start this program in this seat."""

    seat: Seat
    program: Program


@dataclass(frozen=True)
class Drain:
    """Tell the process in this seat to finish its work and to end."""

    seat: Seat


@dataclass(frozen=True)
class Kill:
    """End the process in this seat, and all that it has started, at once."""

    seat: Seat


Action = Start | Drain | Kill | Report


class Companions:
    """Decides. Every method takes the time (monotonic seconds) and returns what is to be done."""

    def __init__(self) -> None:
        self._seats: dict[tuple[str, int], Seat] = {}
        self._check: Seat | None = None
        self._next: Sequence[Program] = ()  # what is to run once the check has ended well
        self._stopping = False

    @property
    def seats(self) -> Sequence[Seat]:
        """Those of the check, while it lasts, and of all programs."""
        return [*([self._check] if self._check else []), *self._seats.values()]

    @property
    def next_time(self) -> float:
        """When `tick` is due; infinity where nothing is awaited."""
        return min((seat.deadline for seat in self.seats), default=inf)

    def run(self, programs: Sequence[Program], check: Program | None, now: float) -> list[Action]:
        """Run these, anew where they run already, and nothing else, once `check` has ended with 0."""
        if self._stopping:
            return []
        self._next = programs
        if check is None or not programs:
            return self._replace_all(now)
        if self._check is None:
            self._check = Seat(check.name, 1, check)
            return self._start(self._check, check, now)
        return self._replace(self._check, check, now)

    def _replace_all(self, now: float) -> list[Action]:
        programs, self._next = self._next, ()
        wanted = {(one.name, number): one for one in programs for number in range(1, one.count + 1)}
        actions: list[Action] = []
        for key, seat in list(self._seats.items()):
            actions += self._replace(seat, wanted.pop(key, None), now)
        for (name, number), program in wanted.items():
            seat = self._seats[name, number] = Seat(name, number, program)
            actions += self._start(seat, program, now)
        return actions

    def stop(self, now: float) -> list[Action]:
        """End all. Again: at once."""
        if self._stopping:
            return [Kill(seat) for seat in self.seats]
        self._stopping = True
        return [action for seat in self.seats for action in self._replace(seat, None, now)]

    def ended(self, seat: Seat, how: str, code: int, now: float) -> list[Action]:
        """The process in the seat is gone; `how` it ended, in words and as an exit code."""
        if seat.wanted is None:
            self._remove(seat)
            return []
        if seat is self._check and seat.state is State.RUNNING and code == 0:
            self._remove(seat)
            return self._replace_all(now)
        if seat.state is State.DRAINING:
            seat.crashes = Crashes()
            return self._start(seat, seat.wanted, now)
        crashes = seat.crashes
        crashes.forget_if_stable(now - seat.since)
        crashes.add()
        seat.state, seat.since, seat.deadline = State.WAITING, now, now + crashes.delay_s
        text = f"{seat.title} ended by itself: {how}.{crashes.loop} It is started again {crashes.when}."
        if seat is self._check:
            names = ", ".join(one.name for one in self._next)
            text = f"{names} wait for migrations to be applied ({how}): run manage.py migrate."
            text += f" Looking again {crashes.when}."
        return [Report(text)]

    def tick(self, now: float) -> list[Action]:
        """Do what is due: start what waits, end what does not drain."""
        actions: list[Action] = []
        for seat in self.seats:
            if seat.deadline > now:
                continue
            seat.deadline = inf
            if seat.state is State.WAITING and seat.wanted is not None:
                actions += self._start(seat, seat.wanted, now)
            else:
                text = f"{seat.title} did not end within {now - seat.since:.0f} s of its stop signal and was killed"
                actions += [Report(text), Kill(seat)]
        return actions

    def _start(self, seat: Seat, program: Program, now: float) -> list[Action]:
        seat.state, seat.since, seat.deadline = State.RUNNING, now, inf
        return [Start(seat, program)]

    def _replace(self, seat: Seat, program: Program | None, now: float) -> list[Action]:
        """End what runs in the seat; `program` comes after it, if any."""
        runs, seat.wanted = seat.wanted, program
        if seat.state is State.WAITING:
            seat.crashes = Crashes()
            if program is not None:
                return self._start(seat, program, now)
            self._remove(seat)
        elif seat.state is State.RUNNING:
            patience = runs.graceful_timeout if runs is not None else 0.0
            seat.state, seat.since, seat.deadline = State.DRAINING, now, now + patience
            return [Drain(seat)]
        return []

    def _remove(self, seat: Seat) -> None:
        if seat is self._check:
            self._check = None
        else:
            del self._seats[seat.name, seat.number]

    def as_dicts(self, now: float) -> list[dict[str, Any]]:
        """For `fullhouse status`; times in seconds."""
        return [
            {
                "name": seat.name,
                "number": seat.number,
                "state": seat.state,
                "since_s": round(now - seat.since, 1),
                "crashes": seat.crashes.count,
            }
            for seat in self.seats
        ]
