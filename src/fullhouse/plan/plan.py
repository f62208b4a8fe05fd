"""A plan as data: what was decided for the workers and for each database server, and how each number came about."""

from dataclasses import dataclass

from fullhouse.plan.limits import Limit
from fullhouse.plan.machine import Machine
from fullhouse.settings.companions import Companion

# A reload of gunicorn starts the new workers before the old ones have left.
GENERATIONS = 2


@dataclass(frozen=True)
class Step:
    """One line of the plan: the number, and how it came about."""

    name: str
    value: int | float | str
    why: str


@dataclass(frozen=True)
class ServerPlan:
    """One database server's part of the plan.

    reserve: sessions left to others. budget: sessions this host may use; in a fleet, all hosts together, and most_hosts
    says how many may be. connections: sessions that the plan can hold
    at once in the worst case. slots: the part of them that the pools of each database user share. fair_share: slots
    that one worker's pool of one alias can always get. companions: (name, sessions kept for it) of each one; their
    pools may always have `shared_with_companions` of the slots.
    """

    limit: Limit
    reserve: int
    budget: int
    most_hosts: int | None = None
    connections: int = 0
    slots: int = 0
    fair_share: int = 0
    companions: tuple[tuple[str, int], ...] = ()
    shared_with_companions: int = 0

    @property
    def for_companions(self) -> int:
        """Sessions of the budget that are kept for companions."""
        return sum(sessions for _, sessions in self.companions)

    @property
    def for_web(self) -> int:
        """Sessions of the budget that are left to the web workers."""
        return max(0, self.budget - self.for_companions)

    @property
    def per_thread(self) -> int:
        """Sessions that one thread holds with Django's own engines: one for each alias, twice during a reload."""
        return self.limit.stock * GENERATIONS

    @property
    def per_worker(self) -> int:
        """Sessions that pools of Django's own hold for each worker, twice during a reload."""
        return sum(self.limit.pool_sizes) * GENERATIONS

    def for_threads(self, workers: int) -> int | None:
        """Threads of this host that the budget carries beside so many workers; None: any number, as every alias is
        pooled.

        Where some aliases are pooled and some are not, the budget is split between the two by their numbers.
        """
        if self.per_thread == 0:
            return None
        left = max(0, self.for_web - workers * self.per_worker)
        return left * self.limit.stock // (self.limit.stock + len(self.limit.pooled)) // self.per_thread


@dataclass(frozen=True)
class Plan:
    """workers × threads, the pool of each worker (connections it may hold, over all aliases), and the evidence.

    transfer_memory: bytes that each worker may keep of requests and responses on their way. companions: the programs
    that run beside the workers.
    """

    sizing: str
    workers: int
    threads: int
    pool: int
    transfer_memory: int
    machine: Machine
    servers: tuple[ServerPlan, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    companions: tuple[Companion, ...] = ()

    @property
    def requests(self) -> int:
        """Requests that run at once."""
        return self.workers * self.threads
