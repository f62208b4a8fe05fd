"""What the processors that this process may run on have stood idle."""

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_STAT = Path("/proc/stat")


def allowed() -> list[int]:
    """Their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def idle_s() -> float:
    """Seconds since the start of the system, of all of them together, in steps of a tick; 0 where it is not told."""
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return 0.0
    names = {f"cpu{number}" for number in allowed()}
    return sum(int(line.split(None, 5)[4]) for line in lines if line.partition(" ")[0] in names) * _TICK_S
