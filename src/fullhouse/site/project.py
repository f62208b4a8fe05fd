"""The Django project that is served: found, its settings read, its databases asked. The commands' way to Django."""

import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullhouse.errors import ApplicationError, ConfigurationError, described
from fullhouse.settings.layers import nearest
from fullhouse.settings.table import NO_PAIRS
from fullhouse.site import wsgi_module

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"
CONFIGURATION_VARIABLE = "DJANGO_CONFIGURATION"  # django-configurations'
DJANGOS_APPLICATION = "django.core.wsgi.get_wsgi_application()"
# How wsgi.py and manage.py name the settings, as startproject writes it, or by assignment.
_NAMED_SETTINGS = re.compile(
    rf"""environ(?:\.setdefault\(\s*|\[)["']{SETTINGS_VARIABLE}["'](?:\s*,|\]\s*=)\s*["']([\w.]+)["']"""
)


@dataclass(frozen=True)
class Project:
    """A Django project by name, with the module of its settings (imported by `find`, without its apps)."""

    name: str
    settings_module: str

    @property
    def django(self) -> Any:
        """Django's settings."""
        from django.conf import settings

        return settings

    @property
    def options(self) -> Mapping[str, Any]:
        """The FULLHOUSE dict of its settings. Raises ConfigurationError where it is no dict."""
        options = getattr(self.django, "FULLHOUSE", {})
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"{self.settings_module}: FULLHOUSE must be a dict, not {type(options).__name__}.")
        return options

    @property
    def application(self) -> str:
        """Dotted path of its WSGI application: as WSGI_APPLICATION says, else `NAME.wsgi.application` where that is,
        else Django's own, as for `runserver`.
        """
        if self.django.WSGI_APPLICATION:
            return str(self.django.WSGI_APPLICATION)
        return f"{self.name}.wsgi.application" if _exists(f"{self.name}.wsgi") else DJANGOS_APPLICATION

    def load_application(self) -> Callable[..., Any]:
        """Import the WSGI application, which sets Django up with all its apps. Raises ApplicationError."""
        from django.core.wsgi import get_wsgi_application
        from django.utils.module_loading import import_string

        path = self.application
        try:
            application: Callable[..., Any] = (
                get_wsgi_application() if path == DJANGOS_APPLICATION else import_string(path)
            )
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not error.code:
                raise  # a signal ends this worker while it loads
            raise ApplicationError(
                f"{path} does not load: {described(error)}\n"
                f"Fix it ({_place(error)}), or add --traceback for the full traceback."
            ) from error
        return application

    @staticmethod
    def load_what_requests_need() -> None:
        """Import what Django would import for the first request: the views and the template engines.

        What is wrong with them is for that request to tell.
        """
        from django.template import engines
        from django.urls import get_resolver

        for load in (lambda: get_resolver().reverse_dict, engines.all):
            with suppress(Exception):
                load()


def find(name: str | None, python_path: Sequence[str] = (), env: Mapping[str, str] = NO_PAIRS) -> Project:
    """The project `name`, or the one that DJANGO_SETTINGS_MODULE names; its settings are imported.

    They see the folders of `python_path` and the variables of `env`, as the workers will. Where DJANGO_SETTINGS_MODULE
    does not say it, the settings are those that the project's wsgi.py or manage.py names, else `mysite.settings`.
    Raises ConfigurationError.
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
        from_environment = _settings_named_by(name) or f"{name}.settings"
    elif name == from_environment:  # the settings themselves, given as the project
        name = from_environment.partition(".settings")[0]
    elif not from_environment.startswith(f"{name}."):
        raise ConfigurationError(
            f"The project is {name}, but {SETTINGS_VARIABLE} is {from_environment}.\nUnset one of the two."
        )
    set_up = wsgi_module.learn(name, python_path)
    if set_up is not None:
        os.environ.update(set_up.environ)
        from_environment = os.environ.get(SETTINGS_VARIABLE, from_environment)
    _import_settings(name, from_environment)
    if set_up is not None:
        _require_same(name, from_environment, set_up)
    return Project(name, from_environment)


def _require_same(name: str, module: str, set_up: wsgi_module.SetUp) -> None:
    """What wsgi.py would serve with other settings is not planned with these."""
    here = wsgi_module.settings_in_force()
    for fact, there in set_up.settings.items():
        if here.get(fact) != there:
            raise ConfigurationError(
                f"{name}/wsgi.py sets the project up otherwise: {fact} is {there} there, and {here.get(fact)} in "
                f"{module} alone.\nMove what it does into the settings, or set it in the environment."
            )


def _settings_named_by(project: str) -> str | None:
    """The settings module that the project's wsgi.py, or manage.py beside it, sets where nothing else does."""
    for path in (Path(*project.split("."), "wsgi.py"), Path("manage.py")):
        with suppress(OSError, ValueError):
            found = _NAMED_SETTINGS.search(path.read_text())
            if found and (path.name == "wsgi.py" or found[1].startswith(f"{project}.")):
                return found[1]
    return None


def module_named_by(application: str | None) -> str | None:
    """The project of `mysite.wsgi:application`, where DJANGO_SETTINGS_MODULE does not say it already."""
    if os.environ.get(SETTINGS_VARIABLE) or application is None:
        return None
    return application.partition(":")[0].rpartition(".")[0] or None


def _import_settings(name: str, module: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(
            f"{name!r} is not a project name: give a Python name, such as mysite for mysite.settings."
            f"{_projects_here(name)}"
        )
    if not _exists(module):
        raise ConfigurationError(
            f"No Django project {name!r} here: cannot import {module} from {os.getcwd()}.{_projects_here(name)}"
        )
    os.environ[SETTINGS_VARIABLE] = module
    if os.environ.get(CONFIGURATION_VARIABLE):
        _install_configurations()
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        settings.DATABASES  # noqa: B018 - the first access imports the module
        _require_site(module, settings)
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"{module} is refused by Django: {error}") from error
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{module} does not import: {described(error)}\n"
            f"Fix it ({_place(error)}), or add --traceback for the full traceback."
        ) from error


def _install_configurations() -> None:
    """Have django-configurations make settings of the class that DJANGO_CONFIGURATION names."""
    try:
        from configurations import importer  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigurationError(
            f"{CONFIGURATION_VARIABLE} is set, and django-configurations is not installed here: {described(error)}."
        ) from error
    importer.install()


def _require_site(module: str, settings: Any) -> None:
    """An empty package, say, is a module too: it would be served, and each page be an error."""
    if getattr(settings, "ROOT_URLCONF", None):
        return
    package = importlib.util.find_spec(module)
    folders = (package.submodule_search_locations if package else None) or []
    inside = sorted({f"{module}.{found.name}" for found in pkgutil.iter_modules(list(folders))})
    modules = f" Modules in it: {', '.join(inside)}." if inside else ""
    raise ConfigurationError(
        f"{module} has no ROOT_URLCONF, so it is not the settings module of a site.{modules}\n"
        f"Name the right ones in {SETTINGS_VARIABLE}."
    )


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
