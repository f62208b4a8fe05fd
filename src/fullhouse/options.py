"""The option table as command-line arguments: for `fullhouse …` and for `manage.py serve` alike."""

import argparse
from collections.abc import Iterator
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.settings import OPTIONS, Option, Settings, from_text, layered

SOURCE = "command line"


def add_options(parser: argparse.ArgumentParser) -> None:
    """One argument per option, in the table's groups. A value that was not given is absent from the namespace."""
    groups: dict[str, Any] = {}
    for option in OPTIONS.values():
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(option.group))
        group.add_argument(*_flags(option), **_argument(option))


def _flags(option: Option) -> list[str]:
    short = {"bind": "-b", "workers": "-w"}.get(option.name)
    return [short, option.flag] if short else [option.flag]


def _argument(option: Option) -> dict[str, Any]:
    shared = {"dest": option.name, "default": argparse.SUPPRESS, "help": option.help.replace("%", "%%")}
    if option.kind.is_flag:
        return {**shared, "action": argparse.BooleanOptionalAction}
    if option.kind.repeatable:
        return {**shared, "action": "append", "metavar": option.name.upper()}
    return {**shared, "metavar": option.name.upper()}


def from_arguments(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """`settings` with what the command line gave laid over it. Raises ConfigurationError."""
    values: dict[str, Any] = {}
    for name, given in vars(arguments).items():
        if name not in OPTIONS:
            continue
        if isinstance(given, list):
            values[name] = _gathered(name, given)
        else:
            values[name] = given if isinstance(given, bool) else from_text(name, given, OPTIONS[name].flag)
    return layered(settings, values, {name: OPTIONS[name].flag for name in values})


def _gathered(name: str, texts: list[str]) -> Any:
    """What a repeated argument says in all: longer lists, or merged pairs."""
    parts = [from_text(name, text, OPTIONS[name].flag) for text in texts]
    if isinstance(parts[0], dict):
        return {key: value for part in parts for key, value in part.items()}
    return tuple(item for part in parts for item in part)


def as_arguments(arguments: argparse.Namespace) -> Iterator[str]:
    """The words that give the same options again: what `manage.py serve` hands to `fullhouse serve`."""
    for name, given in vars(arguments).items():
        option = OPTIONS.get(name)
        if option is None:
            continue
        if isinstance(given, bool):
            yield option.flag if given else option.flag.replace("--", "--no-", 1)
        else:
            for text in given if isinstance(given, list) else [given]:
                if not isinstance(text, str):
                    raise ConfigurationError(f"{option.flag} must be given as text, not {text!r}.")
                yield f"{option.flag}={text}"
