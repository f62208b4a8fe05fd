"""The databases of the project: asked for their limits before it is served, and given their slots.

Works on Django's settings alone: the project's apps are never loaded in the process that plans.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from fullhouse.budget.slots import SlotFile
from fullhouse.db import pools, running, slots
from fullhouse.db.exhausted import AnsweringExhausted
from fullhouse.db.pooled import Pooled
from fullhouse.error_log import show_unseen_errors
from fullhouse.errors import ConfigurationError, DatabaseError, described
from fullhouse.plan import limits
from fullhouse.plan.limits import Limit
from fullhouse.plan.planner import Plan
from fullhouse.pool import guard
from fullhouse.settings import Settings

NO_DATABASE = "django.db.backends.dummy"
PSYCOPG_POOL_SIZE = 4  # psycopg_pool's min_size, and without a max_size its size


def ask_limits(settings: Settings) -> list[Limit]:
    """The limit of every database server behind `DATABASES`; none for SQLite.

    Opens one connection for each alias, one after the other, and closes it. Where the limit is given, nothing is
    asked, and a project on SQLite is planned as if its database had that limit. Raises DatabaseError.
    """
    by_server: dict[tuple[str, ...], list[Limit]] = {}
    for connection in _connections():
        if connection.vendor == "sqlite" or connection.settings_dict["ENGINE"] == NO_DATABASE:
            continue
        vendor = connection.vendor
        host, port = limits.server_address(vendor, connection.settings_dict)
        if settings.max_connections is not None:
            said_by = settings.sources["max_connections"]
            limit = limits.given([connection.alias], settings.max_connections, said_by)
        elif vendor not in limits.ASK:
            raise ConfigurationError(
                f"The limit of database {connection.alias!r} ({connection.settings_dict['ENGINE']}) cannot be asked.\n"
                "Give it with --max-connections."
            )
        else:
            limit = _ask(connection, f"{host}:{port}" if not host.startswith("/") else host)
        server = (vendor, limit.identity) if limit.identity else (vendor, host, port)
        by_server.setdefault(server, []).append(limit)
    if settings.max_connections is not None and not by_server:
        return [limits.given([DEFAULT_DB_ALIAS], settings.max_connections, settings.sources["max_connections"])]
    return [
        replace(
            limits.merged(found),
            pooled=_pooled(found),
            users=len({_slot_path(alias) for alias in _pooled(found)}) or 1,
            needs_session_to_cancel=server[0] == "mysql" and bool(_pooled(found)),
            pool_sizes=_pool_sizes(found),
        )
        for server, found in by_server.items()
    ]


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
    return slots.path_of(connection.vendor, connection.settings_dict)


def publish(planned: Plan) -> None:
    """Put the plan into force for the pools of this host's processes: in the master, before it forks the workers."""
    put_into_force(allot(planned))


def put_into_force(budgets: Mapping[Path, int]) -> None:
    """Set the number of slots that the processes of this host share, by slot file."""
    for path, budget in budgets.items():
        SlotFile.open(path, budget)


def allot(planned: Plan) -> dict[Path, int]:
    """Put into force what the plan gives the workers of this master, and return the host's budget of each slot file.

    From then on the master itself opens no pooled connection, even if it preloads the application.
    """
    guard.forbid_opening("it forks the workers, and each of them opens its own")
    budgets: dict[Path, int] = {}
    for server in planned.servers:
        for alias in server.limit.pooled:
            slots.allot(alias, server.fair_share)
            budgets[_slot_path(alias)] = server.slots
    return budgets


@dataclass(frozen=True)
class Equipment:
    """What a worker gets to know of the databases: see `supervisor.gunicorn_settings.Equipment`."""

    around: Callable[[Any], Any] = AnsweringExhausted
    is_held_up: Callable[[], bool] = pools.anybody_waits
    queries: Any = running
    thread_ends: Callable[[], object] = connections.close_all  # of this thread: those of others are theirs
    show_errors: Callable[[Any], None] = show_unseen_errors


def _connections() -> list["BaseDatabaseWrapper"]:
    """One unopened connection for each alias. Raises ConfigurationError, where a driver is missing for one."""
    try:
        return list(connections.all())
    except Exception as error:  # importing an engine runs code of others
        raise ConfigurationError(
            f"DATABASES cannot be used: {described(error)}\n"
            "Drivers come with the extras: pip install 'fullhouse[mysql]', [pymysql] or [postgresql]."
        ) from error


def _ask(connection: "BaseDatabaseWrapper", address: str) -> Limit:
    if not isinstance(connection, Pooled):
        _size_of_own_pool(connection)  # refuses what cannot be used
        # A copy, without a pool of Django's own: it would open all of its connections for this one.
        options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
        return _ask_over(type(connection)({**connection.settings_dict, "OPTIONS": options}, connection.alias), address)
    with slots.slot_held(connection.vendor, connection.settings_dict):
        return _ask_over(connection.unpooled(), address)


def _ask_over(connection: "BaseDatabaseWrapper", address: str) -> Limit:
    database = connection.settings_dict
    try:
        with warnings.catch_warnings():
            # Django discourages queries before the apps are loaded, which this process never does.
            warnings.filterwarnings("ignore", "Accessing the database during app initialization", RuntimeWarning)
            with connection.cursor() as cursor:
                return limits.ASK[connection.vendor](cursor, connection.alias, address)
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        raise ConfigurationError(f"Database {connection.alias!r} is configured wrongly: {described(error)}") from error
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
    return "Start it or correct DATABASES; --max-connections plans without asking."
