"""The pools of this process, one for each alias, each on the host's slots of its server and user.

`_lock` guards `_pools`. A pool is made at its first use, in the process that uses it, and never under another lock.
"""

import atexit
import os
import threading
from typing import Any

from fullhouse.db.contracts import Backend
from fullhouse.db.driver import DjangoDriver
from fullhouse.db.host_slots import HostSlots
from fullhouse.pool.core import Pool
from fullhouse.pool.statistics import PoolStatistics

_lock = threading.Lock()
_pools: dict[tuple[str, str], tuple[Pool[Any], HostSlots, tuple[str, ...]]] = {}


def _renew_lock() -> None:
    """In the child of a fork: a thread that is not there any more may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def pool_of(wrapper: Backend, made_from: tuple[Any, ...]) -> Pool[Any]:
    """The pool of the wrapper's alias for connections that are made from these settings.

    Raises ConfigurationError for a runtime folder that is not ours.
    """
    key = _key(wrapper, made_from)
    if key not in _pools:
        wrapper.get_connection_params()  # Django refuses what it cannot connect with
    with _lock:
        if key not in _pools:
            _pools[key] = _make_pool(wrapper)
        return _pools[key][0]


def close_pools_on(wrapper: Backend) -> None:
    """Close and forget this process's pools on the wrapper's database, of any alias; the next use makes new ones."""
    database = _database(wrapper)
    with _lock:
        found = [key for key, (_pool, _slots, there) in _pools.items() if there == database]
        made = [_pools.pop(key) for key in found]
    for pool, slots, _database_of_pool in made:
        pool.close()
        if not slots.held:
            slots.leave()


def statistics() -> list[PoolStatistics]:
    """A snapshot of each pool of this process."""
    return [pool.statistics() for pool, *_ in list(_pools.values())]


def has_waiting() -> bool:
    """Whether requests of this process wait for a connection."""
    return any(pool.waiting for pool, *_ in list(_pools.values()))


@atexit.register
def close_all() -> None:
    """Say goodbye to the servers. At the end of the process, or before it becomes another."""
    while _pools:
        _, (pool, *_) = _pools.popitem()
        pool.close()


def _key(wrapper: Backend, made_from: tuple[Any, ...]) -> tuple[str, str]:
    """Another alias, database or option is another pool."""
    return wrapper.alias, repr(made_from)


def _database(wrapper: Backend) -> tuple[str, ...]:
    """What a DROP DATABASE concerns."""
    return (wrapper.vendor, *(str(wrapper.settings_dict[name]) for name in ("HOST", "PORT", "NAME")))


def _make_pool(wrapper: Backend) -> tuple[Pool[Any], HostSlots, tuple[str, ...]]:
    slots = HostSlots(wrapper.alias, wrapper.vendor, wrapper.settings_dict)
    driver = DjangoDriver(wrapper, slots)
    return Pool(driver, slots, wrapper.pool_settings.pool, name=wrapper.alias), slots, _database(wrapper)
