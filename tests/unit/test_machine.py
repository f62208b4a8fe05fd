"""What a container leaves of the machine, read from trees like the kernel's."""

import os
from pathlib import Path

import pytest

from fullhouse.plan.machine import is_in_memory, look

MIB = 1 << 20
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root: no cgroup at all."""
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


V2 = "sys/fs/cgroup"
V1_CPU = "sys/fs/cgroup/cpu,cpuacct"
V1_MEMORY = "sys/fs/cgroup/memory"

QUOTAS = {
    "v2": ({"proc/self/cgroup": "0::/site", f"{V2}/site/cpu.max": "10000 100000"}, 0.1),
    "v2, a fraction of an odd period": ({"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "12500 50000"}, 0.25),
    "v2, the parent is tighter": (
        {
            "proc/self/cgroup": "0::/pod/site",
            f"{V2}/pod/site/cpu.max": "50000 100000",
            f"{V2}/pod/cpu.max": "30000 100000",
            f"{V2}/cpu.max": "max 100000",
        },
        0.3,
    ),
    "v2, the child is tighter": (
        {
            "proc/self/cgroup": "0::/pod/site",
            f"{V2}/pod/site/cpu.max": "20000 100000",
            f"{V2}/pod/cpu.max": "30000 100000",
        },
        0.2,
    ),
    "v2 in a container that shows the host's path": (
        {"proc/self/cgroup": "0::/system.slice/docker-1.scope", f"{V2}/cpu.max": "40000 100000"},
        0.4,
    ),
    "v2 in a namespace that starts below": (
        {"proc/self/cgroup": "0::/../../other", f"{V2}/cpu.max": "40000 100000"},
        0.4,
    ),
    "v1": (
        {
            "proc/self/cgroup": "4:memory:/site\n3:cpu,cpuacct:/site",
            f"{V1_CPU}/site/cpu.cfs_quota_us": "60000",
            f"{V1_CPU}/site/cpu.cfs_period_us": "100000",
            f"{V1_CPU}/cpu.cfs_quota_us": "-1",
            f"{V1_CPU}/cpu.cfs_period_us": "100000",
        },
        0.6,
    ),
    "v1 where the controllers have folders of their own": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "70000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        0.7,
    ),
}


@pytest.mark.parametrize(("files", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_a_quota_bounds_the_cores(root: Path, files: dict[str, str], cores: float) -> None:
    write(root, files)
    machine = look(root)
    assert machine.cores == pytest.approx(cores)
    assert machine.cores_from == "cgroup quota"


UNBOUND = {
    "no cgroup": {},
    "v2 without a limit": {"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "max 100000", f"{V2}/memory.max": "max"},
    "v2 above the machine": {
        "proc/self/cgroup": "0::/",
        f"{V2}/cpu.max": "900000000 100000",
        f"{V2}/memory.max": str(1 << 59),
    },
    "v1 without a limit": {
        "proc/self/cgroup": "2:cpu:/\n1:memory:/",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        f"{V1_MEMORY}/memory.limit_in_bytes": "9223372036854771712",
    },
    "other controllers": {"proc/self/cgroup": "5:pids:/\n1:name=systemd:/"},
}


@pytest.mark.parametrize("files", UNBOUND.values(), ids=UNBOUND)
def test_without_a_limit_the_whole_machine_counts(root: Path, files: dict[str, str]) -> None:
    write(root, files)
    machine = look(root)
    assert machine.cores == CORES
    assert machine.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_from == "physical memory"
    assert machine.open_files >= 64


MEMORY = {
    "v2": {"proc/self/cgroup": "0::/site", f"{V2}/site/memory.max": str(64 * MIB), f"{V2}/memory.max": "max"},
    "v2, the parent is tighter": {
        "proc/self/cgroup": "0::/pod/site",
        f"{V2}/pod/site/memory.max": str(80 * MIB),
        f"{V2}/pod/memory.max": str(64 * MIB),
    },
    "v1": {"proc/self/cgroup": "4:memory:/site", f"{V1_MEMORY}/site/memory.limit_in_bytes": str(64 * MIB)},
    "v1 in a container that shows the host's path": {
        "proc/self/cgroup": "4:memory:/docker/1",
        f"{V1_MEMORY}/memory.limit_in_bytes": str(64 * MIB),
    },
}


@pytest.mark.parametrize("files", MEMORY.values(), ids=MEMORY)
def test_a_limit_bounds_the_memory(root: Path, files: dict[str, str]) -> None:
    write(root, files)
    machine = look(root)
    assert (machine.memory, machine.memory_from) == (64 * MIB, "cgroup limit")


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /mnt/a rw,nosuid shared:2 master:1 - tmpfs tmpfs rw,size=1g
24 22 0:22 / /mnt/b rw - tmpfs tmpfs rw
25 22 0:23 / /mnt/b rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"), [("/mnt/a/x", True), ("/mnt/ax", False), ("/mnt/b", False), ("/srv", False)]
)
def test_a_folder_in_memory_is_known(root: Path, folder: str, expected: bool) -> None:
    write(root, {"proc/self/mountinfo": MOUNTS})
    assert is_in_memory(Path(folder), root) is expected


def test_without_mountinfo_no_folder_is_in_memory(root: Path) -> None:
    assert not is_in_memory(Path("/mnt/a"), root)
