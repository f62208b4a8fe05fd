"""The companion processes of a site, such as task workers, as `FULLHOUSE["processes"]` describes them."""

import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.settings.kinds import Kind, positive_number, whole_number
from fullhouse.settings.layers import nearest
from fullhouse.settings.table import Settings

_NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
# What the plan calls the other parts of a budget.
_TAKEN = ("web", "reserve")


@dataclass(frozen=True)
class Companion:
    """A program that runs beside the web workers. command: its words.

    count: how many of it run. connections: sessions of each database alias that each of them may always have.
    stop_signal: name of the signal on which it finishes its work and ends. graceful_timeout: seconds that it may take.
    """

    name: str
    command: tuple[str, ...]
    count: int
    connections: int
    stop_signal: str
    graceful_timeout: float


def companions(settings: Settings) -> tuple[Companion, ...]:
    """The companions that the settings name. Raises ConfigurationError."""
    said_by = settings.sources.get("processes", "processes")
    return tuple(_companion(name, given, settings, said_by) for name, given in settings.processes.items())


def _companion(name: str, given: Any, settings: Settings, said_by: str) -> Companion:
    where = f"{said_by}: processes[{name!r}]"
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise ConfigurationError(
            f"{where}: a name has letters, digits, - and _, and is not {' or '.join(_TAKEN)}.\nGive it another name."
        )
    values = given if isinstance(given, Mapping) else {"command": given}
    for option in values:
        if option not in _KINDS:
            raise ConfigurationError(f"{where} has no option {option!r}.{nearest(str(option), _KINDS)}")
    defaults = {"count": 1, "connections": 1, "stop_signal": "TERM", "graceful_timeout": settings.graceful_timeout}
    read: dict[str, Any] = {}
    for option, kind in _KINDS.items():
        value = values.get(option, defaults.get(option))
        try:
            read[option] = kind.check(value)
        except ValueError:
            raise ConfigurationError(f"{where}: {option} must be {kind.description}, not {value!r}.") from None
    return Companion(name, **read)


def _words(value: object) -> tuple[str, ...]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(value)
    return tuple(words)


def _signal_name(value: object) -> str:
    if not isinstance(value, str) or f"SIG{value.upper().removeprefix('SIG')}" not in signal.Signals.__members__:
        raise ValueError(value)
    return value.upper().removeprefix("SIG")


_KINDS = {
    "command": Kind("a command in one text, or its words in a list", _words, _words, "COMMAND"),
    "count": whole_number(1),
    "connections": whole_number(0),
    "stop_signal": Kind("the name of a signal, such as TERM or INT", _signal_name, _signal_name, "SIGNAL"),
    "graceful_timeout": positive_number(),
}
