"""What a user has written for gunicorn itself, GUNICORN_CMD_ARGS and gunicorn.conf.py, as options of ours."""

import argparse
import runpy
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gunicorn.config import Config

from fullhouse.errors import ConfigurationError, described
from fullhouse.settings.layers import from_text, layered
from fullhouse.settings.table import OPTIONS, Settings

# Our option for each setting of gunicorn that has one.
OURS = {option.gunicorn: option.name for option in OPTIONS.values() if option.gunicorn}

CONFIG_FILE = "gunicorn.conf.py"
PLANNED = ("workers", "threads", "worker_class", "worker_connections")


def from_gunicorn_file(settings: Settings, folder: Path) -> Settings:
    """`settings` with the gunicorn.conf.py of the folder laid over it, if there is one, as gunicorn reads it.

    Names that are no settings of gunicorn are the file's own. Raises ConfigurationError, for what the plan decides too.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return settings
    given = settings_in(path)
    for name in PLANNED:
        if name in given:
            remedy = f", or set FULLHOUSE[{OURS[name]!r}] to fix it" if name in OURS else ""
            raise ConfigurationError(f"{CONFIG_FILE} sets {name}, which the plan decides.\nRemove it{remedy}.")
    return _laid_over(settings, given, CONFIG_FILE)


def settings_in(path: Path) -> dict[str, Any]:
    """What a configuration file sets of gunicorn's settings. Raises ConfigurationError."""
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{path.name} cannot be read: {described(error)}") from error
    return {name: value for name, value in names.items() if name in Config().settings}


def from_gunicorn_cmd_args(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """`settings` with GUNICORN_CMD_ARGS laid over it: it keeps its meaning, and the plan takes it in.

    Raises ConfigurationError.
    """
    if not environ.get("GUNICORN_CMD_ARGS"):
        return settings
    parser = Config().parser()
    parser.exit_on_error = False
    try:
        namespace, unknown = parser.parse_known_args(shlex.split(environ["GUNICORN_CMD_ARGS"]))
    except (argparse.ArgumentError, ValueError) as error:  # ValueError: an open quote
        raise ConfigurationError(f"GUNICORN_CMD_ARGS: {error}.") from error
    if unknown:
        raise ConfigurationError(f"GUNICORN_CMD_ARGS: gunicorn has no option {unknown[0]}.")
    words = vars(namespace)
    given = {name: value for name, value in words.items() if value is not None and name not in ("args", "config")}
    if words.get("config"):
        raise ConfigurationError(
            f"GUNICORN_CMD_ARGS names the configuration file {words['config']}, which would hide the plan.\n"
            "Name it gunicorn.conf.py, put its settings into FULLHOUSE['gunicorn'], or start gunicorn yourself with -c."
        )
    return _laid_over(settings, given, "GUNICORN_CMD_ARGS")


def _laid_over(settings: Settings, given: Mapping[str, Any], said_by: str) -> Settings:
    ours = {OURS[name]: _native(name, value, said_by) for name, value in given.items() if name in OURS}
    theirs = {name: value for name, value in given.items() if name not in OURS}
    if theirs:
        ours["gunicorn"] = {**settings.gunicorn, **theirs}
    return layered(settings, ours, said_by)


def _native(name: str, value: Any, said_by: str) -> Any:
    """gunicorn takes texts where our options are numbers, lists or pairs."""
    if name == "raw_env" and not isinstance(value, str):
        value = shlex.join(value)
    return from_text(OURS[name], value, said_by) if isinstance(value, str) else value
