"""The Django project that is served: found, its settings read, its databases asked. The commands' door to Django."""

import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullhouse.errors import ApplicationError, ConfigurationError, DatabaseError
from fullhouse.plan import limits
from fullhouse.plan.limits import Limit
from fullhouse.plan.planner import Plan
from fullhouse.pool import guard
from fullhouse.settings import NO_PAIRS, Settings, nearest

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"
NO_DATABASE = "django.db.backends.dummy"


@dataclass(frozen=True)
class Project:
    """A Django project by name, with the module of its settings (imported by `find`, without its apps)."""

    name: str
    settings_module: str

    @property
    def options(self) -> Mapping[str, Any]:
        """The FULLHOUSE dict of its settings. Raises ConfigurationError where it is no dict."""
        from django.conf import settings

        options = getattr(settings, "FULLHOUSE", {})
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"{self.settings_module}: FULLHOUSE must be a dict, not {type(options).__name__}.")
        return options

    @property
    def application(self) -> str:
        """Dotted path of its WSGI application, as WSGI_APPLICATION says, else `NAME.wsgi.application`."""
        from django.conf import settings

        return settings.WSGI_APPLICATION or f"{self.name}.wsgi.application"

    def load_application(self) -> Callable[..., Any]:
        """Import the WSGI application, which sets Django up with all its apps. Raises ApplicationError."""
        from django.utils.module_loading import import_string

        try:
            application: Callable[..., Any] = import_string(self.application)
        except (Exception, SystemExit) as error:
            raise ApplicationError(
                f"{self.application} does not load: {_said(error)}\n"
                f"Fix it ({_place(error)}), or see the whole traceback with --traceback."
            ) from error
        return application


def find(name: str | None, python_path: Sequence[str] = (), env: Mapping[str, str] = NO_PAIRS) -> Project:
    """The project `name`, or the one that DJANGO_SETTINGS_MODULE names; its settings are imported.

    They see the folders of `python_path` and the variables of `env`, as the workers will. `mysite` means
    `mysite.settings`, unless DJANGO_SETTINGS_MODULE names another module of `mysite`. Raises ConfigurationError.
    """
    os.environ.update(env)
    for folder in reversed([*python_path, os.getcwd()]):
        if os.path.abspath(folder) not in sys.path:
            sys.path.insert(0, os.path.abspath(folder))
    from_environment = os.environ.get(SETTINGS_VARIABLE, "")
    if name is None:
        if not from_environment:
            raise ConfigurationError(f"Which project? Name it, or set {SETTINGS_VARIABLE}.{_projects_here()}")
        before, found, _ = from_environment.partition(".settings")
        name = before if found else from_environment.split(".")[0]
    elif not from_environment:
        from_environment = f"{name}.settings"
    elif not from_environment.startswith(f"{name}."):
        raise ConfigurationError(
            f"The project is {name}, but {SETTINGS_VARIABLE} is {from_environment}.\nUnset one of the two."
        )
    _import_settings(name, from_environment)
    return Project(name, from_environment)


def module_named_by(application: str | None) -> str | None:
    """The project of `mysite.wsgi:application`, where DJANGO_SETTINGS_MODULE does not say it already."""
    if os.environ.get(SETTINGS_VARIABLE) or application is None:
        return None
    return application.partition(":")[0].rpartition(".")[0] or None


def _import_settings(name: str, module: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(
            f"{name!r} is no name of a Django project: give it as in Python, mysite for mysite.settings."
            f"{_projects_here(name)}"
        )
    if not _exists(module):
        raise ConfigurationError(
            f"There is no Django project {name!r} here: {module} is not found from {os.getcwd()}.{_projects_here(name)}"
        )
    os.environ[SETTINGS_VARIABLE] = module
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        settings.DATABASES  # noqa: B018 - the first access imports the module
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"{module} is refused by Django: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{module} does not import: {_said(error)}\n"
            f"Fix it ({_place(error)}), or see the whole traceback with --traceback."
        ) from error


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            return False
        raise ConfigurationError(f"{module} does not import: {_said(error)} ({_place(error)})") from error
    except Exception as error:
        raise ConfigurationError(f"{module} does not import: {_said(error)} ({_place(error)})") from error


def _projects_here(wanted: str = "") -> str:
    """A hint: the projects in this folder, or in the folders right below it."""
    found = sorted(path.parent.name for path in Path.cwd().glob("*/settings.py"))
    below = sorted(path.parent.parent.name for path in Path.cwd().glob("*/*/settings.py"))
    if found:
        return nearest(wanted, found) or f" Found here: {', '.join(found)}."
    if below:
        return f"\nThere is a project in the folder {below[0]}: change into it first."
    return "\nChange into the folder that holds manage.py, or add it with --python-path."


def ask_limits(project: Project, settings: Settings) -> list[Limit]:
    """The limit of every database server behind `DATABASES`; none for SQLite.

    Opens one connection for each alias, one after the other, and closes it. Where the limit is given, nothing is
    asked, and a project on SQLite is planned as if its database had that limit. Raises DatabaseError.
    """
    from django.db import DEFAULT_DB_ALIAS, connections

    by_server: dict[tuple[str, str, str], list[Limit]] = {}
    for connection in connections.all():
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
        by_server.setdefault((vendor, host, port), []).append(limit)
    if settings.max_connections is not None and not by_server:
        return [limits.given([DEFAULT_DB_ALIAS], settings.max_connections, settings.sources["max_connections"])]
    return [
        replace(limits.merged(found), pooled=_pooled(found), users=len({_user(alias) for alias in _pooled(found)}) or 1)
        for found in by_server.values()
    ]


def _pooled(found: Sequence[Limit]) -> tuple[str, ...]:
    """The aliases among `found` whose engine is ours."""
    from django.db import connections

    from fullhouse.db.pooled import Pooled

    aliases = [alias for limit in found for alias in limit.aliases]
    return tuple(alias for alias in aliases if isinstance(connections[alias], Pooled))


def _user(alias: str) -> str:
    from django.db import connections

    return str(connections[alias].settings_dict["USER"])


def publish(planned: Plan) -> None:
    """Put the plan into force for the pools of this host's processes: in the master, before it forks the workers.

    From then on the master itself opens no pooled connection, even if it preloads the application.
    """
    from django.db import connections

    from fullhouse.db import slots

    guard.forbid_opening("it forks the workers, and each of them opens its own")
    for server in planned.servers:
        for alias in server.limit.pooled:
            connection = connections[alias]
            slots.publish(alias, connection.vendor, connection.settings_dict, server.slots, server.fair_share)


def _ask(connection: "BaseDatabaseWrapper", address: str) -> Limit:
    from django.core.exceptions import ImproperlyConfigured
    from django.db.utils import Error

    from fullhouse.db.pooled import Pooled

    database = connection.settings_dict
    if isinstance(connection, Pooled):
        connection = connection.unpooled()
    try:
        with _before_apps(), connection.cursor() as cursor:
            return limits.ASK[connection.vendor](cursor, connection.alias, address)
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"Database {connection.alias!r}: {error}") from error
    except Error as error:
        raise DatabaseError(
            f"Database {connection.alias!r} at {address} (user {database.get('USER')!r}, name "
            f"{database.get('NAME')!r}) cannot be asked for its limits: {_said(error)}\n"
            "Start it or correct DATABASES; --max-connections plans without asking."
        ) from error
    finally:
        connection.close()


@contextmanager
def _before_apps() -> Iterator[None]:
    """Django warns of queries before its apps are loaded; no app's tables are queried here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="django.db")
        yield


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


def _place(error: BaseException) -> str:
    """`file, line N`: where the error came up, in the user's code where there is some."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    here = os.getcwd()
    own = [frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"
