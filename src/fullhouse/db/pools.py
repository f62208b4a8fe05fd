"""The pools of this process, one for each alias, each on the host's slots of its server and user.

`_lock` guards `_pools`. A pool is made at its first use, in the process that uses it, and never under another lock.
"""

import threading
from typing import TYPE_CHECKING, Any

from fullhouse.db.driver import DjangoDriver
from fullhouse.db.slots import HostSlots
from fullhouse.pool.core import Pool

if TYPE_CHECKING:
    from fullhouse.db.pooled import Pooled

_lock = threading.Lock()
_pools: dict[tuple[str, ...], Pool[Any]] = {}


def pool_of(wrapper: "Pooled") -> Pool[Any]:
    """The pool of the wrapper's alias and settings. Raises ConfigurationError for a runtime folder that is not ours."""
    key = _key(wrapper)
    pool = _pools.get(key)
    if pool is None:
        with _lock:
            pool = _pools.get(key)
            if pool is None:
                pool = _pools[key] = _make_pool(wrapper)
    return pool


def close_pool_of(wrapper: "Pooled") -> None:
    """Close and forget the pool; the next use makes a new one."""
    with _lock:
        pool = _pools.pop(_key(wrapper), None)
    if pool is not None:
        pool.close()


def _key(wrapper: "Pooled") -> tuple[str, ...]:
    """Another alias, database or option is another pool."""
    return (wrapper.alias, wrapper.settings_key)


def _make_pool(wrapper: "Pooled") -> Pool[Any]:
    slots = HostSlots(wrapper.alias, wrapper.vendor, wrapper.settings_dict)
    driver = DjangoDriver(wrapper, slots)
    return Pool(driver, slots, wrapper.pool_settings.pool, name=wrapper.alias)
