"""Pools and fork: which process may open connections, and what a child does with what it inherited.

A module of its own because it is about all pools of the process. Around a fork every pool's lock is held, so
that the child sees a whole state; there each pool gets new locks and abandons the parent's connections. A
connection that a background thread is opening at that very moment is lost to the child without being closed,
as it should be.
"""

import logging
import os
import threading
import weakref
from typing import Protocol

from fullhouse.pool.exceptions import PoolClosed

logger = logging.getLogger("fullhouse.pool")


class Forkable(Protocol):
    """What a pool does around a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_pools: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []
_forks = threading.Lock()  # guards _held, from before a fork until after it
_forbidden: tuple[int, str] | None = None


def forbid_opening(reason: str) -> None:
    """Let no pool of this process open a connection: a preloading master would leak it into every worker.

    `reason` completes "This process must not open connections: …". Children forked from this process may open
    them.
    """
    global _forbidden
    _forbidden = (os.getpid(), reason)


def refuse_where_forbidden(pool_name: str) -> None:
    """Raise PoolClosed in a process that must not open connections."""
    if _forbidden is not None and _forbidden[0] == os.getpid():
        raise PoolClosed(
            f"Pool {pool_name!r}: process {os.getpid()} must not open connections: {_forbidden[1]}.\n"
            "Query the database in the workers, not while the application is loaded."
        )


def watch_forks(pool: Forkable) -> None:
    """Keep the pool safe when this process forks, for as long as it lives."""
    _pools.add(pool)


def _before() -> None:
    _forks.acquire()
    _held[:] = list(_pools)
    for pool in _held:
        pool.before_fork()


def _in_parent() -> None:
    for pool in _held:
        pool.after_fork_in_parent()
    _held.clear()
    _forks.release()


def _in_child() -> None:
    global _forks
    for pool in _held:
        try:
            pool.after_fork_in_child()
        except Exception:
            logger.exception("A pool could not forget its parent's connections.")
    _held.clear()
    _forks = threading.Lock()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
