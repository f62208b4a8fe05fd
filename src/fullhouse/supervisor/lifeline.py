"""How a generation's processes learn that those above them are gone: the kernel's signal first, a death pipe second.

A death pipe is one that no process writes to: its reader sees the end once the last holder of the write end has died.
The supervisor holds one for all its generations, and each master one for its workers.
"""

import os
import select
import threading
from dataclasses import dataclass

from fullhouse.supervisor.processes import die_with_parent


@dataclass(frozen=True)
class Lifeline:
    """Made in the master, before it forks. supervisor: read end of its pipe. master_*: the master's own."""

    supervisor: int
    master_read: int
    master_write: int
    master: int

    @classmethod
    def make(cls, supervisor: int) -> "Lifeline":
        read, write = os.pipe()
        return cls(supervisor, read, write, os.getpid())

    def hold_worker(self) -> None:
        """In a fork of the master: die with it, and with the supervisor. Starts a thread that waits for that."""
        os.close(self.master_write)
        die_with_parent(self.master)
        threading.Thread(target=self._wait_end, name="fullhouse-lifeline", daemon=True).start()

    def hold_again(self) -> None:
        """In a worker that may have changed its user since, which makes the kernel forget."""
        die_with_parent(self.master)

    def _wait_end(self) -> None:
        try:
            poll = select.poll()
            poll.register(self.supervisor, select.POLLIN)
            poll.register(self.master_read, select.POLLIN)
            poll.poll()
        finally:  # a worker that can no longer be ended must not stay either
            os._exit(1)
