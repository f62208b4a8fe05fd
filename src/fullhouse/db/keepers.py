"""Sees to it that this host has a keeper where its slots are those of a fleet.

A keeper is a process of its own for each slot file, so that no request and no reload disturbs it. Whatever process
needs a slot and sees no keeper starts one; of several, one stays. It ends when no process of the host has a pool any
more. `_lock` guards when this process has started one last.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fullhouse.budget.grants import Grants

# Between two starts by one process: longer than a start takes.
EVERY_S = 2.0
_START_S = 30.0

logger = logging.getLogger("fullhouse.pool")

_FORKED = """
import os, runpy
if os.fork():
    os._exit(0)
runpy.run_module("fullhouse.keeping", run_name="__main__")
"""

_lock = threading.Lock()
_started: dict[str, float] = {}


def ensure(grants: Grants, alias_of: Callable[[], str]) -> None:
    """Have a keeper started, unless one lives. Returns at once. alias_of: whose database it asks."""
    if grants.has_keeper:
        return
    with _lock:
        now, alias = time.monotonic(), alias_of()
        if now - _started.get(alias, -EVERY_S) < EVERY_S:
            return
        _started[alias] = now
    threading.Thread(target=start, args=(alias,), name="fullhouse-keeper-start", daemon=True).start()


def start(alias: str) -> None:
    """Start one, which ends at once where there is one. It is nobody's child: what is started here forks and ends."""
    words = [_python(), "-c", _FORKED, json.dumps({"alias": alias})]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        # It speaks to the log alone: who reads the output of a command until its end would wait for the keeper's.
        nothing = subprocess.DEVNULL
        with subprocess.Popen(words, env=environment, stdin=nothing, stdout=nothing, start_new_session=True) as process:
            process.wait(_START_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("The keeper of %r could not be started, and is tried again: %s", alias, error)


def _python() -> str:
    """The interpreter, where another program has loaded it, as uWSGI does."""
    if Path(sys.executable).name.startswith("python"):
        return sys.executable
    return str(Path(sys.prefix, "bin", "python3"))


def _forget_parent() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)
