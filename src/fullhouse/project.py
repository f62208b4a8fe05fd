"""The Django project that is served: found, its settings read, its databases asked. The commands' door to Django."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullhouse.errors import ApplicationError, ConfigurationError, described
from fullhouse.settings import NO_PAIRS, nearest

if TYPE_CHECKING:
    pass

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


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
            if isinstance(error, SystemExit) and not error.code:
                raise  # a signal ends this worker while it loads
            raise ApplicationError(
                f"{self.application} does not load: {described(error)}\n"
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
            f"{module} does not import: {described(error)}\n"
            f"Fix it ({_place(error)}), or see the whole traceback with --traceback."
        ) from error


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            return False
        raise ConfigurationError(f"{module} does not import: {described(error)} ({_place(error)})") from error
    except Exception as error:
        raise ConfigurationError(f"{module} does not import: {described(error)} ({_place(error)})") from error


def _projects_here(wanted: str = "") -> str:
    """A hint: the projects in this folder, or in the folders right below it."""
    found = sorted(path.parent.name for path in Path.cwd().glob("*/settings.py"))
    below = sorted(path.parent.parent.name for path in Path.cwd().glob("*/*/settings.py"))
    if found:
        return nearest(wanted, found) or f" Found here: {', '.join(found)}."
    if below:
        return f"\nThere is a project in the folder {below[0]}: change into it first."
    return "\nChange into the folder that holds manage.py, or add it with --python-path."


def _place(error: BaseException) -> str:
    """`file, line N`: where the error came up, in the user's code where there is some."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    here = os.getcwd()
    own = [frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"
