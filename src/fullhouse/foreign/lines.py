"""A line of another server's configuration, and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# No option can set it: the settings module that it names is where options are read from.
SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


class Fate(StrEnum):
    OWNED = "owned by the plan"
    PASSED = "passed through"
    NEEDLESS = "no longer needed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Line:
    """text: as it stands there. remark: why, or what to do. options: for the FULLHOUSE dict, which say the same."""

    text: str
    fate: Fate
    remark: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file or a variable. is_read: whether fullhouse reads it itself, so that nothing has to be written anew."""

    name: str
    lines: tuple[Line, ...]
    is_read: bool = False


def owned(text: str, option: str) -> Line:
    """What the plan computes. option: fixes it by hand."""
    return Line(text, Fate.OWNED, f"{option} fixes it by hand")


def passed(text: str, options: Mapping[str, Any], remark: str = "") -> Line:
    """What options of ours say, too."""
    return Line(text, Fate.PASSED, remark or ", ".join(options), options)


def merged(lines: tuple[Line, ...]) -> dict[str, Any]:
    """The options of all lines: lists grow, dicts are joined, else the last one wins."""
    options: dict[str, Any] = {}
    for line in lines:
        for name, value in line.options.items():
            before = options.get(name)
            if isinstance(value, list) and isinstance(before, list):
                value = before + value
            elif isinstance(value, Mapping) and isinstance(before, Mapping):
                value = {**before, **value}
            options[name] = value
    return options
