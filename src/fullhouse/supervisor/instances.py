"""Which supervisors run, by project and port: a lock that the kernel holds for each, and what it wrote beside it.

A supervisor that is gone, however it ended, holds no lock, so nothing here can be stale.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullhouse.errors import AlreadyRunningError, NotRunningError

_LOOK_S = 0.001
_SLUG_LENGTH = 40  # the path of a Unix socket has 107 bytes in all


@dataclass(frozen=True)
class Instance:
    """A running supervisor. facts: what it wrote: project, port, pid, words, folder, environment, log."""

    lock: Path
    facts: Mapping[str, Any]

    @property
    def control(self) -> Path:
        return self.lock.with_suffix(".control")

    @property
    def board(self) -> Path:
        return self.lock.with_suffix(".board")

    def runs(self) -> bool:
        """Whether it still holds its lock."""
        return _is_held(self.lock)


def port_of(address: str) -> str:
    """What names an address: its port, or the hash of a Unix socket's path."""
    if address.startswith("unix:"):
        return hashlib.sha256(address.encode()).hexdigest()[:8]
    return address.rpartition(":")[2]


def claim(folder: Path, project: str, port: str, facts: Mapping[str, Any]) -> tuple[Instance, int]:
    """Become the supervisor of this project and port, as long as the returned descriptor stays open.

    Raises AlreadyRunningError.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", project.lower())[:_SLUG_LENGTH]
    digest = hashlib.sha256(project.encode()).hexdigest()[:6]
    path = folder / f"{slug}-{digest}-{port}.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            raise AlreadyRunningError(f"{project} is already running on {port}: see fullhouse status {project}.")
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # its last holder removed it between our two calls
    _remove_dumps(path)
    facts = {"project": project, "port": port, "pid": os.getpid(), **facts}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(facts).encode())
    return Instance(path, facts), descriptor


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had. A command that looks whether it is held shares it for a moment, which passes."""
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_LOOK_S)


def release(instance: Instance, descriptor: int) -> None:
    """Remove the files, and then give the lock up."""
    _remove_dumps(instance.lock)
    for path in (instance.board, instance.control, instance.lock):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _remove_dumps(lock: Path) -> None:
    """Those that nobody has fetched."""
    for path in lock.parent.glob(f"{lock.stem}.dump-*"):
        path.unlink(missing_ok=True)


def find(folder: Path, project: str, port: str | None) -> Instance:
    """The one that runs. Raises NotRunningError: none does, or several and no port was given."""
    found = [one for one in running(folder) if one.facts["project"] == project and port in (None, one.facts["port"])]
    where = f" on {port}" if port else ""
    if not found:
        raise NotRunningError(f"{project} is not running{where}. Start it with fullhouse start {project}.")
    if len(found) > 1:
        ports = ", ".join(str(one.facts["port"]) for one in found)
        raise NotRunningError(f"{project} is running {len(found)} times, on {ports}: name one by its port.")
    return found[0]


def running(folder: Path) -> list[Instance]:
    """All that run, by name."""
    found: list[Instance] = []
    for path in sorted(folder.glob("*.lock")):
        try:
            facts = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # it is just starting, or just gone
        if _is_held(path):
            found.append(Instance(path, facts))
    return found


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
