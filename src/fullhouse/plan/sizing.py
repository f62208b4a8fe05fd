"""How many workers and threads a machine and each budget carry, and the memory for requests on their way."""

from collections.abc import Sequence
from math import ceil

from fullhouse.errors import PlanError
from fullhouse.plan.machine import Machine
from fullhouse.plan.plan import GENERATIONS, ServerPlan, Step
from fullhouse.settings.table import Settings

# What fit counts for a worker, from a Django site with its imports (60 to 110 MiB seen), and for a thread with its
# stack, a request's objects and a result set. A quarter of the memory stays free, and half of that is for requests and
# responses on their way.
WORKER_MEMORY = 128 << 20
THREAD_MEMORY = 8 << 20
MEMORY_SHARE = 0.75
TRANSFER_SHARE = 8
TRANSFER_MEMORY = 64 << 20
# A request in flight may hold its client's socket, a database connection and a file; a worker has files of its own.
FILES_PER_THREAD = 3
FILES_PER_WORKER = 64
# More threads than this on one interpreter spend the core on switching between them.
MAX_THREADS = 128

Figure = tuple[int, str]  # a number, and how it came about


def by_recipe(settings: Settings, machine: Machine, servers: Sequence[ServerPlan]) -> tuple[Figure, Figure]:
    """The classic recipe's workers and threads, each fixed by hand where the settings say so."""
    if settings.workers:
        workers = settings.workers, settings.sources["workers"]
    else:
        workers = int(2 * machine.cores) + 1, f"2 × cores + 1 = 2 × {machine.cores:g} + 1"
    if settings.threads:
        return workers, (settings.threads, settings.sources["threads"])
    if not servers:
        return workers, _machine_threads(machine, workers[0])
    least = min(server.for_web for server in servers)
    threads = int(least / settings.connections_per_thread / workers[0])
    why = f"budget / connections_per_thread / workers = {least} / {settings.connections_per_thread} / {workers[0]}"
    return workers, (threads, why)


def to_fit(settings: Settings, machine: Machine, servers: Sequence[ServerPlan]) -> tuple[Figure, Figure]:
    """One worker for each core, and as many threads as the machine and every server's budget carry."""
    wanted = settings.workers or ceil(machine.cores)
    carried, tightest = min(
        ((fitting, server) for server in servers if (fitting := server.for_threads(wanted)) is not None),
        key=lambda pair: pair[0],
        default=(None, None),
    )
    if settings.workers:
        workers = settings.workers, settings.sources["workers"]
    elif carried is not None and 0 < carried < machine.cores:
        workers = carried, "fewer than cores: the budget allows no more"
    else:
        workers = ceil(machine.cores), "one per core"
    threads = _machine_threads(machine, workers[0])
    if settings.threads:
        threads = settings.threads, settings.sources["threads"]
    elif tightest is not None and carried is not None and carried // workers[0] < threads[0]:
        threads = (
            carried // workers[0],
            f"budget / aliases / {GENERATIONS} for a reload / workers = {tightest.for_web} / "
            f"{tightest.limit.stock} / {GENERATIONS} / {workers[0]}; each thread holds its own connections",
        )
    return workers, threads


def _machine_threads(machine: Machine, workers: int) -> Figure:
    """Threads of each worker that the machine carries, and what bounds them."""
    worker = machine.worker_memory or WORKER_MEMORY
    memory = (machine.memory * MEMORY_SHARE - workers * worker) / (workers * THREAD_MEMORY)
    known = "measured" if machine.worker_memory else "assumed"
    threads, why = min(
        (
            int(memory),
            f"what fits in memory at {_mib(worker)} per worker ({known}) and {_mib(THREAD_MEMORY)} per thread",
        ),
        (
            (machine.open_files - FILES_PER_WORKER) // FILES_PER_THREAD,
            "what the open-file limit allows at 3 per thread",
        ),
        (MAX_THREADS, "the most that one process runs well"),
    )
    return (threads, why) if threads > 0 else (1, "at least one; memory or open files are short")


def transfer_memory(settings: Settings, machine: Machine, workers: int, steps: list[Step]) -> int:
    """Bytes of each worker for requests and responses on their way. Raises PlanError for more than stays free."""
    if settings.transfer_memory is None:
        size = min(TRANSFER_MEMORY, machine.memory // TRANSFER_SHARE // workers)
        why = f"per worker: memory / {TRANSFER_SHARE} / workers, at most {_mib(TRANSFER_MEMORY)}"
    else:
        size, why = settings.transfer_memory, f"per worker: {settings.sources['transfer_memory']}"
        free = int(machine.memory * (1 - MEMORY_SHARE))
        if size * workers > free:
            raise PlanError(
                f"{workers} worker(s) need {_mib(size * workers)} of transfer memory, {_mib(size)} each, "
                f"and the quarter of the memory that is left for it is {_mib(free)}.\n"
                f"Lower transfer_memory to {_mib(free // workers)} (--transfer-memory), or the number of workers."
            )
    steps.append(Step("transfer memory", _mib(size), f"{why}; beyond it, bodies and responses go to files"))
    return size


def memory_for(workers: int, threads: int, worker_memory: int | None = None) -> int:
    """Bytes that a machine needs for so many, with the share that stays free."""
    return ceil(workers * ((worker_memory or WORKER_MEMORY) + threads * THREAD_MEMORY) / MEMORY_SHARE)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
