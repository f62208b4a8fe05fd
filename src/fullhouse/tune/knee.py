"""Which rate to offer next, and where the knee is. Pure: the caller offers the load.

First the rate is doubled until a step is bad; then the knee is looked for between the last good step and the first bad
one, by halving. A step is bad that answers less than was offered, or whose slowest answers take several times as long
as those of the first step: then a queue grows, and every further request only waits longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_RATE = 4.0
HIGHEST_RATE = 20_000.0
REFINEMENTS = 4
# Of what is offered, a good step answers at least so much in time.
_ANSWERED = 0.97
# A p99 so many times the unloaded one, and so much above it, is a queue and not chance.
_SLOWER_TIMES, _SLOWER_S = 4.0, 0.05


@dataclass(frozen=True)
class Step:
    """offered, answered: requests per second; answered counts those with a status of 2xx or 3xx. p50_s, p99_s: from
    when a request was due; infinity where none was answered. late_s: the longest that the load itself was late."""

    offered: float
    answered: float
    p50_s: float
    p99_s: float
    late_s: float = 0.0


class Search:
    """The steps so far, and what follows from them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, step: Step) -> None:
        self.steps.append(step)

    def is_good(self, step: Step) -> bool:
        first = self.steps[0]
        bound_s = max(_SLOWER_TIMES * first.p99_s, first.p99_s + _SLOWER_S)
        return step.answered >= _ANSWERED * step.offered and step.p99_s <= bound_s

    @property
    def knee(self) -> Step | None:
        """The good step with the highest rate, below which none is bad; None where the first is bad."""
        bad = self._lowest_bad()
        good = [step for step in self.steps if self.is_good(step) and (bad is None or step.offered < bad.offered)]
        return max(good, key=lambda step: step.offered, default=None)

    @property
    def next_rate(self) -> float | None:
        """None: the knee is found, or the load cannot be raised any more."""
        if not self.steps:
            return FIRST_RATE
        bad, knee = self._lowest_bad(), self.knee
        if knee is None:
            return None
        if bad is None:
            return 2 * knee.offered if 2 * knee.offered <= HIGHEST_RATE else None
        doublings = sum(
            1 for one, two in zip(self.steps, self.steps[1:], strict=False) if two.offered == 2 * one.offered
        )
        if len(self.steps) - 1 - doublings >= REFINEMENTS:
            return None
        return round((knee.offered + bad.offered) / 2, 1)

    def _lowest_bad(self) -> Step | None:
        return min((step for step in self.steps if not self.is_good(step)), key=lambda step: step.offered, default=None)


@dataclass(frozen=True)
class Use:
    """What was used while the load was highest. cpu: of each worker's interpreter, 0 to 1; idle: of the processors.

    threads: busy ones, of those that there are. connection, statements: of the time that requests took in threads, the
    shares that they waited for connections, and were in statements. cores, workers: how many there are; each: threads
    of a worker.
    """

    cpu: float
    idle: float
    threads: float
    connection: float
    statements: float
    cores: float
    workers: int
    each: int


@dataclass(frozen=True)
class Verdict:
    """saturated: interpreter, processor, pool, database, threads or nothing. options: what to set, by name."""

    saturated: str
    why: str
    options: dict[str, int]


def verdict(use: Use) -> Verdict:
    """What holds the site at its knee. The first that explains it: a full pool, for one, makes threads wait, too."""
    if use.idle < 0.1 and use.cpu * use.workers >= 0.5 * use.cores:
        return Verdict(
            "processor", f"the processors are idle for {use.idle:.0%} of the time: only more or faster ones help", {}
        )
    if use.cpu > 0.8:
        more = max(use.workers + 1, round(use.cores))
        return Verdict(
            "interpreter",
            f"each worker computes for {use.cpu:.0%} of the time, and the processors are idle for {use.idle:.0%}",
            {"workers": more},
        )
    if use.connection > 0.2:
        return Verdict(
            "pool",
            f"requests wait for database connections for {use.connection:.0%} of their time: raise the server's limit, "
            "or shorten transactions",
            {},
        )
    if use.statements > 0.6:
        return Verdict(
            "database", f"requests are in statements for {use.statements:.0%} of their time: look at the queries", {}
        )
    if use.threads > 0.9:
        return Verdict(
            "threads",
            f"{use.threads:.0%} of the threads are busy and little is computed: requests wait for something else",
            {"threads": 2 * use.each},
        )
    return Verdict(
        "nothing", "nothing that is measured is used up: another program's processor time, or the load itself", {}
    )


def told(steps: Sequence[Step], width: int) -> list[str]:
    """A line for each step, by rate: bars for what was answered, and for the time that 99 % of it took at most."""
    ordered = sorted(steps, key=lambda step: step.offered)
    most = max((step.answered for step in ordered), default=1.0) or 1.0
    slowest_s = max((step.p99_s for step in ordered if step.p99_s < float("inf")), default=1.0) or 1.0
    room = max(8, (width - 46) // 2)
    lines = [f"{'offered/s':>10} {'answered/s':>10} {'':{room}} {'50 %':>9} {'99 %':>9}"]
    for step in ordered:
        answered = "#" * round(room * step.answered / most)
        late = "#" * round(room * min(1.0, step.p99_s / slowest_s))
        times = f"{_seconds(step.p50_s):>9} {_seconds(step.p99_s):>9}"
        lines.append(f"{step.offered:10,.0f} {step.answered:10,.1f} {answered:{room}} {times} {late}")
    return lines


def _seconds(value: float) -> str:
    if value == float("inf"):
        return "none"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
