"""The lines of a Procfile: the web server's command, and the processes beside it."""

import re
import shlex
from pathlib import Path

from fullhouse.errors import ConfigurationError
from fullhouse.foreign import gunicorn, uwsgi
from fullhouse.foreign.lines import Fate, Line, Source, passed

_ENTRY = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")
_ASGI = ("uvicorn", "daphne", "hypercorn", "granian")


def from_file(path: Path) -> list[Source]:
    """The file, and the configuration files that its commands name. Raises ConfigurationError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from error
    lines: list[Line] = []
    named: list[Source] = []
    for entry in filter(None, map(_ENTRY.fullmatch, map(str.strip, text.splitlines()))):
        found, sources = _entry(entry[1], entry[2], path)
        lines += found
        named += sources
    return [Source(path.name, tuple(lines)), *named]


def _entry(name: str, command: str, path: Path) -> tuple[list[Line], list[Source]]:
    text = f"{name}: {command}"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {text}: {error}.") from error
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    program = Path(words[0]).name
    if program == "gunicorn":
        served = Line(text, Fate.NEEDLESS, "fullhouse serve takes its place; its options:")
        given = gunicorn.from_words(words[1:])
        return [served, *given], _named_files(words, path.parent)
    if program == "uwsgi":
        files = [path.parent / word for word in words[1:] if word.endswith(".ini")]
        remark = "fullhouse serve takes its place" + ("" if files else "; put its options into a file to see each")
        return [Line(text, Fate.NEEDLESS, remark)], [uwsgi.from_file(file) for file in files]
    if name == "release":
        return [Line(text, Fate.NEEDLESS, "not the server's: run it before fullhouse serve or reload, as before")], []
    if name == "web":
        asgi = "fullhouse serves WSGI; its engines keep the budget under this server, too"
        return [Line(text, Fate.REFUSED, asgi if program in _ASGI else "not a server that is known here")], []
    return [
        passed(text, {"processes": {name: command}}, "processes: it runs beside the web workers, on one budget")
    ], []


def _named_files(words: list[str], folder: Path) -> list[Source]:
    """The configuration file that -c or --config names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name = (
            following if word in ("-c", "--config") else word.removeprefix("--config=") if "--config=" in word else ""
        )
        file = folder / name.removeprefix("file:")
        if name and file.is_file() and name != "gunicorn.conf.py":
            return [gunicorn.from_file(file)]
    return []
