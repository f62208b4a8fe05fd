"""The layers over the defaults: each lays its values over what is there, checked, and remembers who said so.

A later layer wins:

    defaults < gunicorn.conf.py < FULLHOUSE dict < GUNICORN_CMD_ARGS < environment < command line
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.settings.table import ENVIRONMENT_PREFIX, OPTIONS, Settings

# Tells a companion process its part of the slots: the pid of the supervisor, which is its parent, and a number.
COMPANION_SHARE = "FULLHOUSE_COMPANION_SHARE"
# These share the prefix and are no options: the demo site's, the folder that is needed before any option is read, and
# what the supervisor tells a companion.
FOREIGN_PREFIXES = ("FULLHOUSE_DEMO_", "FULLHOUSE_RUNTIME_FOLDER", COMPANION_SHARE)


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?` for a misspelt name, or nothing where no known name is near."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]}?" if matches else ""


def layered(settings: Settings, values: Mapping[str, Any], source: str | Mapping[str, str]) -> Settings:
    """`settings` with `values` laid over it, checked.

    Args:
        values: native values by option name; text for anything is accepted only by `from_environment`.
        source: who says so, for errors and the plan; or one such text for each name.
    Raises:
        ConfigurationError: an unknown name or an impossible value.
    """
    checked: dict[str, Any] = {}
    sources = dict(settings.sources)
    for name, value in values.items():
        said_by = source if isinstance(source, str) else source[name]
        option = OPTIONS.get(name)
        if option is None:
            raise ConfigurationError(f"{said_by}: unknown option {name!r}.{nearest(name, OPTIONS)}")
        try:
            checked[name] = None if value is None and option.default is None else option.kind.check(value)
        except (ValueError, OverflowError):
            raise ConfigurationError(f"{said_by}: {name} must be {option.kind.description}, not {value!r}.") from None
        sources[name] = said_by
    return replace(settings, **checked, sources=MappingProxyType(sources))


def from_text(name: str, text: str, said_by: str) -> Any:
    """The value of option `name` that `text` stands for. Raises ConfigurationError."""
    option = OPTIONS[name]
    try:
        return option.kind.from_text(text)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{said_by}: {name} must be {option.kind.description}, not {text!r}.") from None


def from_environment(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """`settings` with PORT, WEB_CONCURRENCY and then the FULLHOUSE_* variables laid over it."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if environ.get("PORT"):
        values["bind"] = from_text("bind", f"0.0.0.0:{environ['PORT']}", "PORT")
        sources["bind"] = "PORT"
    if environ.get("WEB_CONCURRENCY"):
        values["workers"] = from_text("workers", environ["WEB_CONCURRENCY"], "WEB_CONCURRENCY")
        sources["workers"] = "WEB_CONCURRENCY"
    by_variable = {option.variable: option for option in OPTIONS.values()}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(FOREIGN_PREFIXES):
            continue
        if variable not in by_variable:
            raise ConfigurationError(
                f"environment: no option has the variable {variable}.{nearest(variable, by_variable)}"
            )
        name = by_variable[variable].name
        values[name], sources[name] = from_text(name, text, variable), variable
    return layered(settings, values, sources)
