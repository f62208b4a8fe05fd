"""Processes as the kernel sees them: which ends with which, which adopts orphans, which are left.

The only module that uses prctl.

On macOS there is neither PDEATHSIG nor a subreaper: the death pipes of `lifeline.py` do their work there.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from setproctitle import setproctitle

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent` ends; leave at once if it has ended already.

    The kernel forgets it at a fork and at a change of user, and watches the thread that forked: a parent that spawns
    from its main thread is watched as a whole.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def name_process(name: str) -> None:
    """Let ps and top show this process as the supervisor of `name`, in the style of gunicorn's own processes."""
    setproctitle(f"fullhouse: supervisor [{name}]")


def spawn(words: Sequence[str], environ: Mapping[str, str], inherited: Iterable[int], output: int | None) -> int:
    """Start a fresh interpreter with these words, in a process group of its own, and return its pid.

    It gets the descriptors `inherited`, and `output` in place of standard output and error. To be called from the
    main thread alone: no other spawn may see the descriptors while they are inheritable.
    """
    inherited = list(inherited)
    actions = [] if output is None else [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *words],
            environ,
            file_actions=actions,
            setpgroup=0,
            setsigmask=[],
            setsigdef=[
                *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
                *(signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2),
            ],
        )
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)


def reap_nowait() -> list[tuple[int, int]]:
    """(pid, wait status) of every child, adopted ones among them, that has ended since."""
    ended: list[tuple[int, int]] = []
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    return ended


def ending(status: int) -> str:
    """How a process ended, in words: "exit code 3", "killed by SIGKILL"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # Python names the first and the last of the real-time signals only
        return f"killed by signal {-code}"


def memory_bytes(pid: int) -> int:
    """The physical memory of a process, what it shares with others in parts (PSS); 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def kill_group(group: int, signum: int) -> None:
    """Signal all processes of a group; one that is gone is no error."""
    with suppress(ProcessLookupError):
        os.killpg(group, signum)


def kill_descendants(deadline_s: float) -> None:
    """End and reap everything below this process, orphans that it adopted as well."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        reap_nowait()
        below = _descendants(os.getpid())
        if not below:
            return
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name in parentheses may hold anything; the parent is the second word after it.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    ahead = [root]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found
