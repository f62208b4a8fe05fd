"""The option table as command-line arguments: for `fullhouse …` and for `manage.py serve` alike."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.settings.layers import from_text, layered
from fullhouse.settings.table import OPTIONS, Option, Settings


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
    argument = {"dest": option.name, "default": argparse.SUPPRESS, "help": _help(option).replace("%", "%%")}
    if option.kind.is_flag:
        return {**argument, "action": argparse.BooleanOptionalAction}
    argument["metavar"] = option.kind.metavar
    if option.kind.repeatable:
        argument["action"] = "append"
    return argument


def _help(option: Option) -> str:
    """The option's help with its default, where that is a plain value and the text does not say it."""
    default = ", ".join(option.default) if isinstance(option.default, tuple) else option.default
    more = " May be given several times." if option.kind.repeatable else ""
    if not isinstance(default, str | int | float) or option.kind.is_flag or default == "":
        return option.help + more
    return f"{option.help}{more} Default: {default}."


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
    if isinstance(parts[0], Mapping):
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
