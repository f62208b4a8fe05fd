"""The first moment of a companion process: `python -m fullhouse.companion SUPERVISOR LIFELINE WORD ...`.

Run by the supervisor, in a process group of its own. It leaves a guard beside itself and becomes the program. The guard
ends the whole group, with all that the program has started, once the program or the supervisor is gone.
"""

import os
import select
import signal
import sys
from contextlib import suppress

from setproctitle import setproctitle

from fullhouse.supervisor.processes import die_with_parent, kill_group

# Where the system has no descriptor for a process, the guard looks so often.
_LOOK_EVERY_MS = 1000


def main(supervisor: int, lifeline: int, words: list[str]) -> int:
    """Become the program. Returns only where that fails, with the exit code that a shell gives.

    lifeline: the read end of a pipe whose write end only the supervisor holds.
    """
    die_with_parent(supervisor)
    os.set_inheritable(lifeline, False)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    _leave_guard(lifeline, nothing)
    try:
        os.execvp(words[0], words)  # noqa: S606 - the user's own command
    except OSError as error:
        print(f"{words[0]} cannot be run: {error.strerror}", file=sys.stderr)
    return 127


def _leave_guard(lifeline: int, nothing: int) -> None:
    """Fork the guard, which is no child of the program: the program may wait for its own children."""
    program = os.getpid()
    descriptor = os.pidfd_open(program) if sys.platform == "linux" else None
    if between := os.fork():
        os.waitpid(between, 0)
        if descriptor is not None:
            os.close(descriptor)
        return
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        for output in (1, 2):
            os.dup2(nothing, output)
        setproctitle(f"fullhouse: guard of {program}")
        _wait_for_an_end(program, descriptor, lifeline)
        kill_group(program, signal.SIGKILL)
    finally:
        os._exit(0)


def _wait_for_an_end(program: int, descriptor: int | None, lifeline: int) -> None:
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if descriptor is not None:
        poll.register(descriptor, select.POLLIN)
    with suppress(ProcessLookupError):
        while not poll.poll(None if descriptor is not None else _LOOK_EVERY_MS):
            os.kill(program, 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
