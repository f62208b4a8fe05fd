"""What a fork does not take along, or shares with the process that forks: threads, sockets and database connections."""

import os
import stat
import threading
from contextlib import suppress

from fullhouse.db import pools


def threads_and_sockets() -> set[str]:
    """Those of this process, named for people."""
    found = {f"the thread {thread.name!r}" for thread in threading.enumerate()}
    with suppress(OSError):  # no /proc
        others = len(os.listdir("/proc/self/task")) - len(found)
        if others > 0:
            found.add("a thread of a library" if others == 1 else f"{others} threads of libraries")
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode):
                    found.add(f"an open socket (descriptor {descriptor})")
    return found


def close_connections() -> set[str]:
    """Close the database connections that this process has opened; their aliases, named for people."""
    from django.db import connections

    opened = {pool.name for pool in pools.statistics() if pool.total}
    opened |= {made.alias for made in connections.all(initialized_only=True) if made.connection is not None}
    connections.close_all()
    pools.close_all()
    return {f"a connection to the database {alias!r}" for alias in opened}
