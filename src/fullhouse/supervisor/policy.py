"""What the supervisor does next: generations start, serve, drain and go. No process, no socket and no clock in here.

The supervisor reports to `Policy` what has happened and when, and carries out the actions that it returns, in order.
At most one generation starts, at most one serves, and any number drain. A generation is one gunicorn master with its
workers, known by its number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from fullhouse.errors import ApplicationError
from fullhouse.supervisor.crashes import CRASH_LOOP, Crashes

# What a generation that fails by itself gets to say so and to end.
LAST_WORD_S = 5.0
NOT_UP = ApplicationError.exit_code
# gunicorn ends its workers itself after graceful_timeout; only a master that hangs comes to this.
DRAIN_MARGIN_S = 5.0

STOPPING = "The server is stopping."


class Caller(Protocol):
    """A client that asked for a reload and waits for the result."""

    def answer(self, reply: Mapping[str, Any]) -> None: ...


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass
class Generation:
    """planned: its workers, None until it has reported them. callers: who wait for its reload.

    failure: why it does not come up, once that is known; it is being ended then.
    """

    number: int
    since: float
    deadline: float
    state: State = State.STARTING
    planned: int | None = None
    ready: set[int] = field(default_factory=set)
    callers: list[Caller] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True)
class Spawn:
    """Start this generation."""

    number: int


@dataclass(frozen=True)
class Drain:
    """Tell it to finish what it has begun, and to end."""

    number: int


@dataclass(frozen=True)
class Kill:
    """End all its processes at once."""

    number: int


@dataclass(frozen=True)
class Answer:
    """Tell these callers of `reload` how it went; `failure` is None where it went well."""

    callers: Sequence[Caller]
    failure: str | None


@dataclass(frozen=True)
class Unready:
    """Have the workers answer probes that the site is stopping."""


@dataclass(frozen=True)
class Opened:
    """The generation serves: new requests are its own from now on."""

    number: int


@dataclass(frozen=True)
class Report:
    """A line for the log."""

    text: str


@dataclass(frozen=True)
class Finish:
    """All generations are gone and none comes: leave with this exit code."""

    code: int


Action = Spawn | Drain | Kill | Answer | Unready | Opened | Report | Finish


class Policy:
    """Decides. Every method takes the time (monotonic seconds) and returns what is to be done."""

    def __init__(self, boot_timeout_s: float, graceful_timeout_s: float, stop_delay_s: float = 0) -> None:
        self._boot_timeout_s = boot_timeout_s
        self._stop_delay_s = stop_delay_s
        self._stop_at = inf  # when a stopping site drains
        self._drain_s = graceful_timeout_s + DRAIN_MARGIN_S
        self._numbers = 0
        self._generations: dict[int, Generation] = {}
        self._waiting: list[Caller] = []  # who asked for a reload that has to wait
        self._wanted = False  # whether any client did
        self._spawn_at = inf  # when a crashed generation is to be replaced
        self._opened_once = False
        self._stopping = False
        self._exit_code = 0
        self.crashes = Crashes()
        self.last_failure: str | None = None

    @property
    def generations(self) -> Sequence[Generation]:
        """Those that are there, oldest first."""
        return list(self._generations.values())

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def next_time(self) -> float:
        """When `tick` is due; infinity where nothing is awaited."""
        return min([self._spawn_at, self._stop_at, *(generation.deadline for generation in self._generations.values())])

    def start(self, now: float) -> list[Action]:
        """Start the first generation."""
        return self._spawn(now)

    def reload(self, now: float, caller: Caller | None = None) -> list[Action]:
        """Start a generation with the code of now. While one starts or drains, this comes right after it, once for all.

        So there are two at the most, as the plan counts them.
        """
        callers = [] if caller is None else [caller]
        if self._stopping:
            return [Answer(callers, STOPPING)]
        self._wanted = True
        self._waiting += callers
        return self._reload_if_wanted(now)

    def stop(self, now: float) -> list[Action]:
        """Be unready, end what starts, drain what serves after the delay, and finish once all is gone.

        Again: end everything at once.
        """
        if self._stopping:
            return [Kill(number) for number in self._generations]
        self._stopping, self._exit_code = True, 0
        self._spawn_at = inf
        actions: list[Action] = [Unready()]
        for generation in self._generations.values():
            if generation.state is State.STARTING:
                generation.deadline = inf
                actions += [Kill(generation.number), *self._answer(generation, STOPPING)]
        waiting, self._waiting = self._waiting, []
        self._stop_at = now + self._stop_delay_s
        return [*actions, Answer(waiting, STOPPING), *self._drain_if_due(now), *self._finish_if_empty()]

    def _drain_if_due(self, now: float) -> list[Action]:
        if self._stop_at > now:
            return []
        self._stop_at = inf
        ready = [one for one in self.generations if one.state is State.READY]
        return [action for one in ready for action in self._drain(one, now)]

    def planned(self, number: int, workers: int) -> None:
        """The generation has reported how many workers it will have."""
        self._generations[number].planned = workers

    def worker_ready(self, number: int, pid: int, now: float) -> list[Action]:
        generation = self._generations[number]
        generation.ready.add(pid)
        if generation.state is not State.STARTING or generation.failure or generation.planned is None or self._stopping:
            return []
        if len(generation.ready) < generation.planned:
            return []
        return self._open(generation, now)

    def failed(self, number: int, failure: str, code: int, now: float, *, in_log: bool = False) -> list[Action]:
        """A process of the generation is not fit to serve. While it starts, that discards the whole of it.

        `code` becomes the exit code, if it is the first generation. `in_log`: the process writes it there itself and
        ends its generation, for which it gets a moment.
        """
        generation = self._generations[number]
        if generation.failure is not None or self._stopping:
            return []
        actions: list[Action] = [] if in_log else [Report(f"generation {number}: {failure}")]
        if generation.state is not State.STARTING:
            return actions
        generation.failure = self.last_failure = failure
        generation.deadline = now + LAST_WORD_S if in_log else inf
        self._exit_code = self._exit_code if self._opened_once else code
        return [*actions, *([] if in_log else [Kill(number)]), *self._answer(generation, failure)]

    def worker_ended(self, number: int, pid: int, life_s: float, streak: int, now: float) -> list[Action]:
        """A worker is gone after `life_s`, the last of `streak` short lives in a row; gunicorn replaces it."""
        generation = self._generations[number]
        generation.ready.discard(pid)
        if generation.state is State.STARTING:
            return self.failed(
                number, f"A worker ended {life_s:g} s after its start, before all were ready.", NOT_UP, now
            )
        if streak < CRASH_LOOP or generation.state is State.DRAINING:
            return []
        return [Report(f"generation {number}: this is a crash loop: {streak} workers in a row ended soon after start.")]

    def gone(self, number: int, how: str, now: float, code: int = NOT_UP) -> list[Action]:
        """No process of the generation is left; `how` its master ended, and the exit code that stands for it."""
        generation = self._generations.pop(number)
        if self._stopping:
            return self._finish_if_empty()
        if generation.state is State.DRAINING:
            return self._reload_if_wanted(now)
        if generation.state is State.READY:
            return self._replace(generation, how, now)
        actions: list[Action] = []
        if generation.failure is None:
            generation.failure = self.last_failure = f"generation {number} failed to start: {how}."
            actions += [Report(generation.failure), *self._answer(generation, generation.failure)]
        if not self._opened_once:
            return [*actions, *self._give_up(generation.failure, code)]
        if self._serving() is None:
            actions += self._schedule(f"generation {number} failed to start.", now)
        else:
            actions.append(Report(f"generation {number} is discarded; {self._serving()} keeps serving."))
        return [*actions, *self._reload_if_wanted(now)]

    def tick(self, now: float) -> list[Action]:
        """Do what is due: discard what does not come up, end what does not drain, replace what crashed."""
        actions: list[Action] = []
        for generation in self.generations:
            if generation.deadline > now:
                continue
            if generation.failure is not None:
                generation.deadline = inf
                actions.append(Kill(generation.number))
            elif generation.state is State.STARTING:
                actions += self.failed(generation.number, self._too_late(generation), NOT_UP, now)
            else:
                generation.deadline = inf
                text = f"generation {generation.number} did not drain within {self._drain_s:g} s and was terminated"
                actions += [Report(text), Kill(generation.number)]
        if self._spawn_at <= now:
            actions += self._spawn(now)
        return actions + self._drain_if_due(now)

    def _too_late(self, generation: Generation) -> str:
        return (
            f"not ready after {self._boot_timeout_s:g} s ({len(generation.ready)} of {generation.planned or '?'} "
            "workers were).\nFind what hangs, or raise boot_timeout."
        )

    def _give_up(self, failure: str, code: int) -> list[Action]:
        """The first generation does not come up: there is nothing to serve with."""
        self._stopping, self._exit_code = True, self._exit_code or code
        waiting, self._waiting = self._waiting, []
        return [Answer(waiting, failure), *self._finish_if_empty()]

    def _spawn(self, now: float) -> list[Action]:
        callers, self._waiting = self._waiting, []
        self._numbers += 1
        self._spawn_at = inf
        self._wanted = False
        generation = Generation(self._numbers, now, now + self._boot_timeout_s, callers=callers)
        self._generations[generation.number] = generation
        return [Spawn(generation.number)]

    def _open(self, generation: Generation, now: float) -> list[Action]:
        actions: list[Action] = [Opened(generation.number)]
        for older in self.generations:
            if older.state is State.READY:
                actions += self._drain(older, now)
        generation.state, generation.since, generation.deadline = State.READY, now, inf
        self._opened_once = True
        self.last_failure = None
        return [*actions, *self._answer(generation, None), *self._reload_if_wanted(now)]

    def _drain(self, generation: Generation, now: float) -> list[Action]:
        generation.state, generation.since, generation.deadline = State.DRAINING, now, now + self._drain_s
        return [Drain(generation.number)]

    def _answer(self, generation: Generation, failure: str | None) -> list[Action]:
        callers, generation.callers = generation.callers, []
        return [Answer(callers, failure)] if callers else []

    def _replace(self, generation: Generation, how: str, now: float) -> list[Action]:
        self.crashes.forget_if_stable(now - generation.since)
        text = f"generation {generation.number} ended unexpectedly: {how}."
        if self._in_state(State.STARTING) is not None:
            return [Report(f"{text} The one that is starting takes its place.")]
        return self._schedule(text, now)

    def _schedule(self, text: str, now: float) -> list[Action]:
        self.crashes.add()
        self._spawn_at = now + self.crashes.delay_s
        return [Report(f"{text}{self.crashes.loop} It is replaced {self.crashes.when}.")]

    def _reload_if_wanted(self, now: float) -> list[Action]:
        waits = self._in_state(State.STARTING) or self._in_state(State.DRAINING)
        return self._spawn(now) if self._wanted and not waits and not self._stopping else []

    def _finish_if_empty(self) -> list[Action]:
        return [] if self._generations else [Finish(self._exit_code)]

    def _in_state(self, state: State) -> Generation | None:
        return next((one for one in self._generations.values() if one.state is state), None)

    def _serving(self) -> int | None:
        serving = self._in_state(State.READY)
        return serving.number if serving else None
