"""The companion processes of a project, as programs that the supervisor can start in the project's folder."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fullhouse.errors import ConfigurationError
from fullhouse.settings.companions import Companion
from fullhouse.settings.table import Settings
from fullhouse.supervisor.companions import Program

_PYTHON = ("python", "python3")
CHECK_TIMEOUT_S = 5.0  # of one that is replaced by the next reload


def programs(companions: Sequence[Companion], settings: Settings, settings_module: str) -> list[Program]:
    """One for each companion, with the variables that its project needs.

    Raises ConfigurationError where a command is not there.
    """
    environ = _environ(settings, settings_module)
    return [
        Program(
            one.name,
            _found(one),
            environ,
            one.count,
            one.connections,
            one.stop_signal,
            one.graceful_timeout,
        )
        for one in companions
    ]


def migration_check(settings: Settings, settings_module: str) -> Program:
    """A program that ends with 0 if all migrations are applied."""
    words = [sys.executable, "-m", "django", "migrate", "--check", "--verbosity=0"]
    return Program("migration check", words, _environ(settings, settings_module), 1, 1, "KILL", CHECK_TIMEOUT_S)


def _environ(settings: Settings, settings_module: str) -> dict[str, str]:
    """The variables that a program of the project needs beyond those of the supervisor."""
    environ = {"DJANGO_SETTINGS_MODULE": settings_module, **settings.env}
    if settings.python_path:
        folders = [*map(os.path.abspath, settings.python_path), os.environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    if "PYTHONUNBUFFERED" not in os.environ:
        environ["PYTHONUNBUFFERED"] = "1"  # what it prints comes into the log at once
    return environ


def _found(companion: Companion) -> list[str]:
    """The words of its command, which begin with the path of a program: manage.py runs in our Python."""
    first, *rest = companion.command
    if first in _PYTHON:
        return [sys.executable, *rest]
    if first.endswith(".py"):
        if not Path(first).is_file():
            raise _missing(companion, f"file {first} in {os.getcwd()}")
        return [sys.executable, first, *rest]
    # The programs of the virtual environment come first, as in a shell that has activated it.
    path = shutil.which(first, path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
    if path is None:
        raise _missing(companion, f"program {first} in {os.path.dirname(sys.executable)} or on PATH")
    return [path, *rest]


def _missing(companion: Companion, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"processes[{companion.name!r}]: there is no {what}.\nCorrect its command, or install it."
    )
