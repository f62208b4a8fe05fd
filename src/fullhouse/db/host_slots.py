"""The host's slots of one alias: where its slot file is, how long it is, and this process's share of it.

`serve` publishes the plan: the length of each slot file, which every process of the site on this host sees, and the
fair share of each alias, which its forked workers inherit. A process that finds no length (`manage.py migrate` on a
host that serves nothing) has one slot, and the first connection on it asks the server and makes the plan. A companion
process is told its share by the supervisor.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullhouse.budget.slots import Share, SlotFile, slot_path
from fullhouse.db import keepers
from fullhouse.db.contracts import Backend
from fullhouse.errors import DatabaseError
from fullhouse.plan import limits, planner
from fullhouse.plan.plan import ServerPlan
from fullhouse.private_folder import runtime_folder
from fullhouse.settings.layers import COMPANION_SHARE, from_environment, layered
from fullhouse.settings.table import Settings

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

# What a plan waits for a slot of a busy host: twice the default deadline of a request.
PLAN_PATIENCE_S = 10.0
_POLL_S = 0.01

# Slots that a worker's pool can always get, by alias. Set before the workers are forked, and never after.
_fair_shares: dict[str, int] = {}

# The settings of the site that is served, set before the workers are forked.
_settings: Settings | None = None
# Slot files whose budget this process has called an old one.
_warned_of: set[Path] = set()

logger = logging.getLogger("fullhouse.pool")


def allot(alias: str, fair_share: int) -> None:
    """Put into force what the plan gives the workers that this process forks."""
    _fair_shares[alias] = fair_share


def path_of(vendor: str, database: Mapping[str, Any]) -> Path:
    """The slot file of a database's server and user. Raises ConfigurationError for a folder that is not ours alone."""
    host, port = limits.server_address(vendor, database)
    return slot_path(runtime_folder(), f"{vendor}-{host}-{port}", str(database["USER"]))


def keeper_alias(path: Path) -> str:
    """The alias whose database the keeper of a slot file asks: the first, so that it is the same on every host."""
    from django.db import connections

    return next(one.alias for one in connections.all() if isinstance(one, Backend) and _is_on(one, path))


def _is_on(backend: Backend, path: Path) -> bool:
    return path_of(backend.vendor, backend.settings_dict) == path


@contextmanager
def slot_held(vendor: str, database: Mapping[str, Any]) -> Iterator[None]:
    """Stand a session that belongs to no pool on a slot.

    Without a plan, there is nothing to hold; nor in a fleet without a keeper, in whose place the session stands.

    Raises DatabaseError: the others did not give one back in time.
    """
    file = SlotFile.open(path_of(vendor, database))
    if file.budget is None or (file.grants.is_fleet and not file.grants.has_keeper):
        yield
        return
    share = file.share("the plan", 1)
    slot = _wait_slot(share)
    try:
        yield
    finally:
        share.release(slot, gone=False)  # closed here by Django, without waiting for the server
        share.leave()


def _wait_slot(share: Share) -> int:
    share.announce_waiting()
    deadline = time.monotonic() + PLAN_PATIENCE_S
    while (slot := share.acquire_nowait()) is None:
        if time.monotonic() > deadline:
            share.leave()
            raise DatabaseError(
                f"All {share.budget} slots of this host were in use for {PLAN_PATIENCE_S:g} s, so the database could "
                "not be asked for its limits.\nTry again, hold connections for a shorter time, or give "
                "--max-connections."
            )
        time.sleep(_POLL_S)
    share.withdraw_waiting()
    return slot


def plan_later_with(settings: Settings) -> None:
    """Have the workers that this process forks plan with these settings where a database could not be asked before."""
    global _settings
    _settings = settings


def options_in_force() -> Settings:
    if _settings is not None:
        return _settings
    from django.conf import settings

    options = layered(Settings(), getattr(settings, "FULLHOUSE", {}), "FULLHOUSE in settings")
    return from_environment(options, os.environ)


def _share_of_companion() -> int | None:
    """Slots that each pool of this process can always get, if the supervisor has started it.

    A process that such a one starts in its turn may have inherited the variable: it gets the usual one slot.
    """
    supervisor, _, connections = os.environ.get(COMPANION_SHARE, "").partition(":")
    return max(1, int(connections)) if supervisor == str(os.getppid()) else None


def plan_over(connection: "BaseDatabaseWrapper", options: Settings) -> ServerPlan:
    """The budget of this host's pools, asked over `connection`. Raises PlanError."""
    host, port = limits.server_address(connection.vendor, connection.settings_dict)
    with connection.cursor() as cursor:
        limit = limits.ASK[connection.vendor](cursor, connection.alias, f"{host}:{port}")
    limit = replace(limit, pooled=(connection.alias,), needs_session_to_cancel=connection.vendor == "mysql")
    return planner.host_budget(options, limit)


class HostSlots:
    """The share of one pool, in the terms that the pool asks for."""

    def __init__(self, alias: str, vendor: str, database: Mapping[str, Any]) -> None:
        self._alias = alias
        self._file = SlotFile.open(path_of(vendor, database))
        self._options = options_in_force() if self.unplanned else Settings()
        if self._options.is_fleet:
            self._file.grants.found(0)  # its keeper makes the plan
        fair_share = _fair_shares.get(alias) or _share_of_companion()
        if fair_share is None and not self.unplanned:
            self._warn_of_old_plan()
        self._share = self._file.share(alias, fair_share or 1)
        self.revoke = self._file.grants.revoke
        self.others_want_idle = self._share.others_want_idle
        self.release = self._share.release
        self.announce_waiting = self._share.announce_waiting
        self.withdraw_waiting = self._share.withdraw_waiting
        self.leave = self._share.leave

    def acquire_nowait(self) -> int | None:
        self._ensure_keeper()
        return self._share.acquire_nowait()

    def must_give_back(self) -> bool:
        self._ensure_keeper()  # this is asked again and again, as long as there are sessions
        return self._share.must_give_back()

    def _ensure_keeper(self) -> None:
        if self.is_fleet:
            keepers.ensure(self._file.grants, lambda: keeper_alias(self._file.path))

    @property
    def is_fleet(self) -> bool:
        """Whether the slots are those of several hosts."""
        return self._file.grants.is_fleet

    @property
    def held(self) -> int:
        return self._share.held

    @property
    def budget(self) -> int:
        return self._share.budget

    @property
    def unplanned(self) -> bool:
        """Whether this host has no plan yet."""
        return self._file.budget is None

    def _warn_of_old_plan(self) -> None:
        """Warn once if the budget may be that of a site which is gone: nothing distinguishes it from an idle one."""
        if self._file.path in _warned_of or self._file.is_used_by_others():
            return
        _warned_of.add(self._file.path)
        logger.warning(
            "Database %r: the budget of %d sessions is from an earlier plan on this host, and no other process is "
            "using it.\nIf that site is gone, delete %s, and the server is asked again.",
            self._alias,
            self._file.budget,
            self._file.path,
        )

    def plan_by(self, connection: "BaseDatabaseWrapper") -> None:
        """Make the plan from what the server says over `connection`: this host's budget becomes the slots."""
        SlotFile.open(self._file.path, plan_over(connection, self._options).budget)
