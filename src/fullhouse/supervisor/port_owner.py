"""Which process listens on a TCP port of this host, from /proc."""

import os
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in the kernel's include/net/tcp_states.h


def owner_of_port(port: int, proc: Path = Path("/proc")) -> str:
    """ "pid 4711 (python manage.py runserver)"; empty where this user may not know."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    for folder in sorted(proc.glob("[0-9]*"), key=lambda folder: int(folder.name)):  # parents before children
        with suppress(OSError):  # another user's process, or one that has just ended
            if sockets.intersection(os.readlink(link) for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return f"pid {folder.name} ({' '.join(words).strip()[:120]})"
    return ""


def _inodes(port: int, proc: Path) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(words[9])
    return found
