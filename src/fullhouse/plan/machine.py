"""What this machine really gives the process: cores, memory, open files; containers counted in."""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# cgroup v1 writes "no limit" as the largest page-aligned number; any real limit is far below.
CGROUP_V1_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Machine:
    """cores: processor cores, with the fraction a quota leaves. memory: bytes. open_files: per process.

    worker_memory: bytes that a worker of this site takes, where that was measured. The `_from` texts say where each
    number came from.
    """

    cores: float
    memory: int
    open_files: int
    cores_from: str = "given"
    memory_from: str = "given"
    open_files_from: str = "given"
    worker_memory: int | None = None


def look(root: Path = Path("/")) -> Machine:
    """This machine, as the process may use it. `root` holds `proc/` and `sys/` (tests pass another)."""
    cores, cores_from = _cores(root)
    memory, memory_from = _memory(root)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = soft if soft != resource.RLIM_INFINITY else 1 << 20
    return Machine(cores, memory, open_files, cores_from, memory_from, "ulimit -n")


def _cores(root: Path) -> tuple[float, str]:
    if hasattr(os, "sched_getaffinity"):
        cores, why = float(len(os.sched_getaffinity(0))), "scheduler affinity"
    else:
        cores, why = float(os.cpu_count() or 1), "processor count"
    quota = min(_cpu_quotas(root), default=cores)
    return (quota, "cgroup quota") if quota < cores else (cores, why)


def _memory(root: Path) -> tuple[int, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = min(_memory_limits(root), default=memory)
    return (limit, "cgroup limit") if limit < memory else (memory, "physical memory")


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Every quota in force, in cores: v2 `cpu.max` is "QUOTA PERIOD", v1 has a file for each."""
    for folder in _cgroup_folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            yield int(quota) / int(period)


def is_in_memory(folder: Path, root: Path = Path("/")) -> bool:
    """Whether a folder's file system is a tmpfs, so that files in it use the machine's memory."""
    folder = folder.resolve()
    mounts = [line.split() for line in _read(root / "proc/self/mountinfo").splitlines()]
    found = [fields for fields in mounts if folder.is_relative_to(fields[4])]
    if not found:
        return False
    covering = max(reversed(found), key=lambda fields: len(fields[4]))  # of two on one folder, the later one
    return covering[covering.index("-") + 1] == "tmpfs"


def _memory_limits(root: Path) -> Iterator[int]:
    for folder in _cgroup_folders(root, "memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdecimal() and int(limit) < CGROUP_V1_UNLIMITED:
            yield int(limit)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders whose limits bind this process: its own cgroup and every ancestor, v2 and v1.

    `/proc/self/cgroup` has lines "ID:CONTROLLERS:PATH"; v2 is the line with no controllers.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controllers
            if not base.is_dir():
                base = root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = base / path.lstrip("/")
        # In a container the path may be the host's, which does not exist below the container's own root.
        yield from [folder, *(parent for parent in folder.parents if parent.is_relative_to(base))]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
