"""What the machine and its user allow, against what the options ask for. `look` asks the system; the rules are pure."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from fullhouse.doctor.finding import Finding
from fullhouse.plan.machine import is_in_memory
from fullhouse.plan.sizing import WORKER_MEMORY

FEW_CLIENTS = 1000
_MUCH_SWAP = 0.1
_LITTLE_ROOM = 1 << 30


@dataclass(frozen=True)
class Machine:
    """somaxconn: the longest backlog that the kernel grants; None where it does not say. In bytes: swap in use and in
    all, room in the folder of temporary files. heartbeats_on_disk: whether gunicorn's files of heartbeats are."""

    somaxconn: int | None
    swap_used: int
    swap_total: int
    temporary_room: int
    heartbeats_on_disk: bool


def look(heartbeats: str | None, root: Path = Path("/")) -> Machine:
    """heartbeats: gunicorn's worker_tmp_dir; None: the folder of temporary files."""
    somaxconn = None
    with suppress(OSError, ValueError):
        somaxconn = int((root / "proc/sys/net/core/somaxconn").read_text())
    swap: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.startswith("Swap"):
                swap[name] = int(value.split()[0]) * 1024
    total = swap.get("SwapTotal", 0)
    return Machine(
        somaxconn,
        total - swap.get("SwapFree", total),
        total,
        shutil.disk_usage(gettempdir()).free,
        not is_in_memory(Path(heartbeats or gettempdir()), root),
    )


def of_machine(machine: Machine, backlog: int) -> Iterator[Finding]:
    if machine.somaxconn is not None and machine.somaxconn < backlog:
        yield Finding(
            "W201",
            f"backlog is {backlog}, and the kernel grants {machine.somaxconn} (net.core.somaxconn): in a burst, "
            "further clients are not let in.",
            f"Run sysctl -w net.core.somaxconn={backlog}, and write it into /etc/sysctl.d; or lower backlog.",
        )
    if machine.swap_total and machine.swap_used > _MUCH_SWAP * machine.swap_total:
        yield Finding(
            "W202",
            f"{machine.swap_used >> 20} of {machine.swap_total >> 20} MiB of swap are in use: requests wait for the "
            "disk.",
            "Use fewer workers or less memory beside the site (max_worker_memory replaces workers that grow).",
        )
    if machine.temporary_room < _LITTLE_ROOM:
        yield Finding(
            "W203",
            f"{gettempdir()} has {machine.temporary_room >> 20} MiB left: large bodies and responses go there, and "
            "get 507 where there is no room.",
            "Make room, or set TMPDIR to a folder that has it.",
        )
    if machine.heartbeats_on_disk:
        yield Finding(
            "I204",
            "gunicorn's heartbeats are files on a disk: while that hangs, workers are taken for dead and replaced.",
            'Set FULLHOUSE["gunicorn"] = {"worker_tmp_dir": "/dev/shm"}.',
        )


def of_limits(open_files: int, memory: int, workers: int, threads: int, worker_memory: int | None) -> Iterator[Finding]:
    """open_files: of one process. memory: of the machine or its container, as worker_memory in bytes."""
    clients = open_files // 2
    if clients < FEW_CLIENTS:
        yield Finding(
            "W205",
            f"A process may open {open_files} files: each worker keeps at most {max(threads + 1, clients)} clients "
            "at once.",
            "Raise it: LimitNOFILE=65536 with systemd, ulimit -n 65536 in a shell.",
        )
    each = worker_memory or WORKER_MEMORY
    needed = workers * each
    if needed > memory:
        yield Finding(
            "E206",
            f"{workers} workers of {each >> 20} MiB need {needed >> 20} MiB, and there are "
            f"{memory >> 20}: the kernel will kill some.",
            "Lower workers, or leave it to the plan.",
        )
