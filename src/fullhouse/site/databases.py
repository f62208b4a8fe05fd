"""The databases of the project: asked for their limits before it is served, and given their slots.

Works on Django's settings alone: the project's apps are never loaded in the process that plans.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from fullhouse.budget.slots import SlotFile
from fullhouse.db import host_slots, keepers, pools, running
from fullhouse.db.driver import CONNECT_TIMEOUT_S
from fullhouse.db.exhausted import AnsweringExhausted
from fullhouse.db.pooled import Pooled
from fullhouse.errors import ConfigurationError, DatabaseError, described
from fullhouse.fleet import report
from fullhouse.plan import limits
from fullhouse.plan.limits import Limit
from fullhouse.plan.plan import Plan
from fullhouse.pool import forks
from fullhouse.settings.table import Settings
from fullhouse.site.error_log import show_unseen_errors

NO_DATABASE = "django.db.backends.dummy"
PSYCOPG_POOL_SIZE = 4  # psycopg_pool's min_size, and without a max_size its size


@dataclass(frozen=True)
class Asked:
    """What is known of the databases: the limit of each server, and why others could not be asked, by alias."""

    limits: list[Limit]
    unknown: Mapping[str, DatabaseError]


def ask_limits(settings: Settings) -> Asked:
    """The limit of every database server behind `DATABASES`; none for SQLite.

    Opens one connection for each alias, one after the other, and closes it. Where the limit is given, nothing is
    asked, and a project on SQLite is planned as if its database had that limit. Raises DatabaseError for an alias
    that is required.
    """
    networked = [each for each in _connections(settings) if each.vendor != "sqlite" and not _is_dummy(each)]
    if settings.max_connections is not None and not networked:
        limit = limits.given([DEFAULT_DB_ALIAS], settings.max_connections, settings.sources["max_connections"])
        return Asked([limit], {})
    found: dict[str, Limit] = {}
    unknown: dict[str, DatabaseError] = {}
    if settings.is_fleet:
        _refuse_long_connects(networked)
    for connection in networked:
        try:
            found[connection.alias] = _limit_of(connection, settings)
        except DatabaseError as error:
            if connection.alias in settings.required:
                raise
            unknown[connection.alias] = error
    by_address = {_address(connections[alias]): limit for alias, limit in found.items()}
    for alias in unknown:
        if (known := by_address.get(_address(connections[alias]))) is not None:
            found[alias] = replace(known, aliases=(alias,))  # the server answers others, and they share its sessions
    by_server: dict[tuple[str, ...], list[Limit]] = {}
    for alias, limit in found.items():
        vendor = connections[alias].vendor
        by_server.setdefault((vendor, limit.identity) if limit.identity else _address(connections[alias]), []).append(
            limit
        )
    return Asked([_of_one_server(server[0], limits_of) for server, limits_of in by_server.items()], unknown)


def _refuse_long_connects(networked: Sequence["BaseDatabaseWrapper"]) -> None:
    """In a fleet, the permission to connect must not outlive the keeper's session on the server."""
    for connection in networked:
        timeout_s = connection.settings_dict["OPTIONS"].get("connect_timeout", CONNECT_TIMEOUT_S)
        if float(timeout_s) > CONNECT_TIMEOUT_S:
            raise ConfigurationError(
                f"DATABASES[{connection.alias!r}]: OPTIONS['connect_timeout'] is {timeout_s} s, and in a fleet a "
                f"connect may take {CONNECT_TIMEOUT_S} s at most: lower it, or remove it."
            )


def ports(limit: Limit) -> Iterator[tuple[str, str, str]]:
    """Each alias over TCP, the port that its settings name, and the one that its server says it listens on, if it does.

    They differ where something stands in between.
    """
    if limit.listens_on is None:
        return
    for alias in limit.aliases:
        _, host, port = _address(connections[alias])
        if not host.startswith("/"):
            yield alias, port, limit.listens_on


def longest_lifetime_s(limit: Limit) -> float | None:
    """How long the pools on a server keep a connection at most; None: for ever, or there is none."""
    wrappers: list[Any] = [connections[alias] for alias in limit.pooled]
    lifetimes = [wrapper.pool_settings.pool.max_lifetime_s for wrapper in wrappers]
    return None if None in lifetimes else max(lifetimes, default=None)


def drivers() -> list[str]:
    """The modules of the drivers that the aliases use, as they call themselves: MySQLdb, psycopg, sqlite3, pymysql."""
    modules = [getattr(connection, "Database", None) for connection in connections.all()]
    return sorted({module.__name__.partition(".")[0] for module in modules if module is not None})


def accounts() -> dict[str, tuple[str, str, str, str, str]]:
    """By alias: the database's name, the user, the vendor, the server's host as it is written, and its port."""
    return {each.alias: _account(each) for each in connections.all() if not _is_dummy(each)}


def _account(connection: "BaseDatabaseWrapper") -> tuple[str, str, str, str, str]:
    entry = connection.settings_dict
    vendor, host, port = _address(connection)
    written = str((entry["OPTIONS"] or {}).get("host") or entry["HOST"] or host)  # localhost may be ::1 elsewhere
    return str(entry["NAME"] or ""), str(entry["USER"] or ""), vendor, written, port


def has_database() -> bool:
    """Whether the default alias, which migrations are for, is a database at all."""
    return not _is_dummy(connections[DEFAULT_DB_ALIAS])


def _address(connection: "BaseDatabaseWrapper") -> tuple[str, str, str]:
    return connection.vendor, *limits.server_address(connection.vendor, connection.settings_dict)


def _limit_of(connection: "BaseDatabaseWrapper", settings: Settings) -> Limit:
    vendor = connection.vendor
    if settings.max_connections is not None:
        return limits.given([connection.alias], settings.max_connections, settings.sources["max_connections"])
    if vendor not in limits.ASK:
        raise ConfigurationError(
            f"The limit of database {connection.alias!r} ({connection.settings_dict['ENGINE']}) is not known.\n"
            "Give it with --max-connections."
        )
    _, host, port = _address(connection)
    return _ask(connection, f"{host}:{port}" if not host.startswith("/") else host)


def _of_one_server(vendor: str, found: Sequence[Limit]) -> Limit:
    return replace(
        limits.merged(found),
        pooled=_pooled(found),
        users=len({_slot_path(alias) for alias in _pooled(found)}) or 1,
        needs_session_to_cancel=vendor == "mysql" and bool(_pooled(found)),
        pool_sizes=_pool_sizes(found),
    )


def _is_dummy(connection: "BaseDatabaseWrapper") -> bool:
    return bool(connection.settings_dict["ENGINE"] == NO_DATABASE)


def _pooled(found: Sequence[Limit]) -> tuple[str, ...]:
    """The aliases among `found` whose engine is ours."""
    aliases = [alias for limit in found for alias in limit.aliases]
    return tuple(alias for alias in aliases if isinstance(connections[alias], Pooled))


def _pool_sizes(found: Sequence[Limit]) -> tuple[int, ...]:
    """Connections that each pool of Django's own may hold in one process."""
    aliases = [alias for limit in found for alias in limit.aliases]
    sizes = [_size_of_own_pool(connections[alias]) for alias in aliases if not isinstance(connections[alias], Pooled)]
    return tuple(size for size in sizes if size is not None)


def _size_of_own_pool(connection: "BaseDatabaseWrapper") -> int | None:
    """The most connections of a pool of Django's own (psycopg_pool); None: the alias has none.

    Raises ConfigurationError where psycopg_pool is missing, or the pool is given without numbers.
    """
    options = connection.settings_dict["OPTIONS"].get("pool")
    if not options or connection.vendor != "postgresql":
        return None
    where = f"DATABASES[{connection.alias!r}]: OPTIONS['pool']"
    if find_spec("psycopg_pool") is None:
        raise ConfigurationError(
            f"{where} asks for Django's own pool, and psycopg_pool is not installed.\n"
            "Run: pip install 'psycopg[pool]', or use the ENGINE fullhouse.db.postgresql, which brings its pool."
        )
    given = options if isinstance(options, Mapping) else {}
    least = given.get("min_size", PSYCOPG_POOL_SIZE)
    size = least if given.get("max_size") is None else given["max_size"]
    if not isinstance(size, int) or size < 1:
        raise ConfigurationError(f"{where}: max_size is {size!r}; give a whole number of at least 1.")
    return size


def _slot_path(alias: str) -> Path:
    connection = connections[alias]
    return host_slots.path_of(connection.vendor, connection.settings_dict)


def publish(planned: Plan, settings: Settings) -> None:
    """Put the plan into force for the pools of this host's processes: in the master, before it forks the workers."""
    for path, budget in allot(planned, settings).items():
        put_into_force(path, budget)
    start_keepers(planned)
    forbid_opening()


def forbid_opening() -> None:
    """From now on this process, the master, opens no pooled connection, even if it preloads the application."""
    forks.forbid_opening("it forks the workers, and each of them opens its own")


@dataclass(frozen=True)
class Budget:
    """slots: that the processes of this host share; in a fleet of at most most_hosts, those of all."""

    slots: int
    most_hosts: int | None


def put_into_force(path: Path, budget: Budget) -> None:
    """Set the budget of a slot file."""
    SlotFile.open(path, budget.slots, budget.most_hosts)


def start_keepers(planned: Plan) -> None:
    """In a fleet, so that the slots are there when the first worker is."""
    for server in planned.servers:
        if server.most_hosts is not None:
            for path in {_slot_path(alias) for alias in server.limit.pooled}:
                keepers.start(host_slots.keeper_alias(path))


def fleet_trouble(alias: str) -> str | None:
    """Why this host's keeper lends no slots: empty where it does, or has just begun; None: there is no fleet."""
    path = _slot_path(alias)
    if not SlotFile.open(path).grants.is_fleet:
        return None
    found = report.read(path)
    return found.trouble if found is not None else ""


def aliases_by_slot_file(planned: Plan) -> dict[Path, list[str]]:
    """Those that share the slots of one file: of one user on one server."""
    found: dict[Path, list[str]] = {}
    for server in planned.servers:
        for alias in server.limit.pooled:
            found.setdefault(_slot_path(alias), []).append(alias)
    return found


def allot(planned: Plan, settings: Settings) -> dict[Path, Budget]:
    """Put into force what the plan gives the workers of this master, and return the host's budget of each slot file."""
    host_slots.plan_later_with(settings)
    budgets: dict[Path, Budget] = {}
    for server in planned.servers:
        for alias in server.limit.pooled:
            host_slots.allot(alias, server.fair_share)
            budgets[_slot_path(alias)] = Budget(server.slots, server.most_hosts)
    return budgets


@dataclass(frozen=True)
class DatabaseHooks:
    """What a worker gets to know of the databases: see `supervisor.gunicorn_settings.DatabaseHooks`."""

    around: Callable[[Any], Any] = AnsweringExhausted
    is_held_up: Callable[[], bool] = pools.has_waiting
    queries: Any = running
    tell_waits: Callable[[Callable[[], object]], None] = running.tell_waits
    thread_ends: Callable[[], object] = connections.close_all  # of this thread: those of others are theirs
    show_errors: Callable[[Any], None] = show_unseen_errors


def _connections(settings: Settings) -> list["BaseDatabaseWrapper"]:
    """One unopened connection for each alias.

    Raises ConfigurationError where a driver is missing for one, or a required alias is none.
    """
    try:
        made = list(connections.all())
    except Exception as error:  # importing an engine runs code of others
        raise ConfigurationError(
            f"DATABASES cannot be used: {described(error)}\n"
            "Install the driver with one of the extras: pip install 'fullhouse[mysql]', [pymysql] or [postgresql]."
        ) from error
    aliases = [connection.alias for connection in made]
    for alias in settings.required:
        if alias not in aliases:
            raise ConfigurationError(f"required names {alias!r}, and DATABASES has {', '.join(aliases)}.")
    return made


def _ask(connection: "BaseDatabaseWrapper", address: str) -> Limit:
    if not isinstance(connection, Pooled):
        _size_of_own_pool(connection)  # refuses what cannot be used
        # A copy, without a pool of Django's own: it would open all of its connections for this one.
        options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
        unpooled = type(connection)({**connection.settings_dict, "OPTIONS": options}, connection.alias)
        return _ask_over(unpooled, address)
    with host_slots.slot_held(connection.vendor, connection.settings_dict):
        return _ask_over(connection.unpooled(), address)


def _ask_over(connection: "BaseDatabaseWrapper", address: str) -> Limit:
    database = connection.settings_dict
    if connection.vendor in limits.ASK:
        database["OPTIONS"].setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    try:
        with warnings.catch_warnings():
            # Django discourages queries before the apps are loaded, which this process never does.
            warnings.filterwarnings("ignore", "Accessing the database during app initialization", RuntimeWarning)
            with connection.cursor() as cursor:
                return limits.ASK[connection.vendor](cursor, connection.alias, address)
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        raise ConfigurationError(f"Database {connection.alias!r} is misconfigured: {described(error)}") from error
    except Exception as error:  # a driver may raise its own, such as PyMySQL for a package that it lacks
        raise DatabaseError(
            f"Database {connection.alias!r} at {address} (user {database.get('USER')!r}, name "
            f"{database.get('NAME')!r}) cannot be asked for its limits: {described(error)}\n{_remedy(error)}"
        ) from error
    finally:
        connection.close()


def _remedy(error: Exception) -> str:
    if "cryptography" in str(error):  # PyMySQL's, for MySQL's default authentication without TLS
        return "Run: pip install cryptography. Or connect over TLS or the server's Unix socket, which need none."
    return "Start the server or correct DATABASES; with --max-connections the plan needs no server."
