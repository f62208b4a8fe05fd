"""Another process of the site, for tests: one pool on a slot file, driven call by call over a pipe."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from fullhouse.budget.slots import Share, SlotFile
from fullhouse.record_locks import locked_by_others


class SlotProcess:
    """A new Python process with one `Share`. It ends with the `with` block, or by `kill`.

    now: what its clock of rests says all the time; None: it goes.
    """

    def __init__(self, path: Path, fair_share: int = 1, now: float | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, path, fair_share, now))
        self._process.start()
        theirs.close()

    def __enter__(self) -> "SlotProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pipe.close()
        self._process.join()
        self._process.close()

    def call(self, method: str, *arguments: object) -> object:
        """What `Share.<method>(*arguments)` returns over there."""
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def locks(self) -> list[tuple[int, int]]:
        """First and end of every lock that other processes have on the file, seen from over there."""
        return self.call("locks")

    def kill(self) -> None:
        """SIGKILL; the process is gone when this returns."""
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, path: Path, fair_share: int, now: float | None) -> None:
    file = SlotFile.open(path)
    if now is not None:
        file.resting.clock = lambda: now
    share = file.share("other", fair_share)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        if method == "locks":
            pipe.send(sorted((lock.start, lock.stop) for lock in locked_by_others(file.descriptor, 0, 2**62)))
        else:
            pipe.send(getattr(share, method)(*arguments))


def is_above_fair_share(share: Share) -> bool:
    """Whether its pool borrows: holds more than its share, scaled down as it may be."""
    with share._file.mutex:
        return share.held > share._entitled_locked()
