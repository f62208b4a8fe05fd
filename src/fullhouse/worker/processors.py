"""What the processors that this process may run on have stood idle."""

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_STAT = Path("/proc/stat")


def idle_s() -> float:
    """Seconds since the start of the system, of all of them together, in steps of a tick; 0 where it is not told."""
    try:
        lines = _STAT.read_text().splitlines()
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return 0.0
    return sum(int(line.split(None, 5)[4]) for line in lines if line.partition(" ")[0] in allowed) * _TICK_S
