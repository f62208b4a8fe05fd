"""How much memory this process uses."""

import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Bytes of physical memory; where there is no /proc, the most that were ever used."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
