"""gunicorn's settings: from a configuration file, from GUNICORN_CMD_ARGS, or from the words of a command."""

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gunicorn.config import Config

from fullhouse.foreign.lines import Fate, Line, Source, owned, passed
from fullhouse.settings.layers import from_text
from fullhouse.supervisor.gunicorn_args import OURS, PLANNED, settings_in

_NEEDLESS = {
    "daemon": "fullhouse start serves in the background",
    "config": "its lines follow",
    "wsgi_app": "the project is named on the command line",
    "check_config": "fullhouse plan checks",
    "print_config": "fullhouse plan prints",
    "control_socket": "commands reach the supervisor over a socket of its own",
    "control_socket_disable": "commands reach the supervisor over a socket of its own",
    "control_socket_mode": "commands reach the supervisor over a socket of its own",
    "reuse_port": "the supervisor holds the socket through every reload",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$(\w+)")
# Their workers run many requests in one thread, to which Django gives one connection of each database.
_ONE_THREAD = ("gevent", "eventlet", "tornado", "uvicorn", "aiohttp")


def from_file(path: Path, *, is_read: bool = False) -> Source:
    """A configuration file, which is run as gunicorn runs it. Raises ConfigurationError."""
    given = settings_in(path)
    return Source(
        path.name, tuple(_line(f"{name} = {_shown(value)}", name, value) for name, value in given.items()), is_read
    )


def from_words(words: Sequence[str]) -> list[Line]:
    """The words that follow `gunicorn` in a command, those of the shell's variables filled in that are known."""
    parser = Config().parser()
    parser.exit_on_error = False
    try:
        namespace, unknown = parser.parse_known_args([_VARIABLE.sub(_filled_in, word) for word in words])
    except argparse.ArgumentError as error:
        return [Line(shlex.join(words), Fate.REFUSED, f"gunicorn refuses it, too: {error}")]
    lines = [Line(word, Fate.REFUSED, "gunicorn has no such option") for word in unknown]
    for name, value in vars(namespace).items():
        if name == "args":
            lines += [Line(word, Fate.NEEDLESS, "the project is named on the command line") for word in value]
        elif value is not None and name in Config().settings:
            lines.append(_line(_as_words(name, value), name, value))
    return lines


def _filled_in(found: re.Match[str]) -> str:
    """The variable's value, or the default that stands there; a variable of which nothing is known stays."""
    return os.environ.get(found[1] or found[3]) or found[2] or found[0]


def _line(text: str, name: str, value: Any) -> Line:
    if name == "worker_class":
        return _worker_class(text, value)
    if name == "worker_connections":
        return Line(text, Fate.OWNED, "what the open files of the machine allow")
    if name in PLANNED:
        return owned(text, OURS[name])
    if name in _NEEDLESS:
        return Line(text, Fate.NEEDLESS, _NEEDLESS[name])
    if name in ("user", "group"):
        return Line(text, Fate.REFUSED, "start fullhouse as that user: the whole site shares one budget")
    if callable(value):
        return Line(text, Fate.PASSED, "a hook of gunicorn; keep it in gunicorn.conf.py")
    if "$" in str(value):
        return _with_variable(text, name, str(value))
    if name in OURS:
        return passed(text, {OURS[name]: _native(name, value)})
    return passed(text, {"gunicorn": {name: value}}, "gunicorn's own setting")


def _with_variable(text: str, name: str, value: str) -> Line:
    """What the shell would fill in. Platforms give the port so, which the server knows."""
    if name == "bind" and "PORT" in value:
        return Line(text, Fate.NEEDLESS, "PORT in the environment sets bind")
    return Line(text, Fate.REFUSED, "its value is a variable of the shell: set the option by hand")


def _worker_class(text: str, value: Any) -> Line:
    name = str(value)
    if any(one in name for one in _ONE_THREAD):
        return Line(
            text, Fate.REFUSED, "it runs many requests in one thread, and Django's connections belong to threads"
        )
    if name in ("sync", "gthread"):
        return Line(text, Fate.OWNED, "fullhouse's own worker; worker_class = 'gthread' keeps gunicorn's")
    return passed(text, {"worker_class": name}, "a subclass of fullhouse.worker.Worker, gthread or sync")


def _native(name: str, value: Any) -> Any:
    """As the FULLHOUSE dict has it."""
    if name == "raw_env":
        return dict(word.partition("=")[::2] for word in ([value] if isinstance(value, str) else value))
    if name == "bind":
        return [value] if isinstance(value, str) else list(value)
    return from_text(OURS[name], value, name) if isinstance(value, str) else value


def _as_words(name: str, value: Any) -> str:
    flag = Config().settings[name].cli[-1]
    return (
        flag
        if value is True
        else f"{flag}={shlex.quote(str(value) if not isinstance(value, list) else ','.join(value))}"
    )


def _shown(value: Any) -> str:
    return f"{value.__name__}()" if callable(value) and hasattr(value, "__name__") else repr(value)
