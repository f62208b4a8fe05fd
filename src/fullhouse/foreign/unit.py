"""NGINX Unit's configuration, from its JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.foreign.lines import SETTINGS_VARIABLE, Fate, Line, Source, owned, passed

# What the settings of an application and of HTTP become; the last name of the path decides.
_NEEDLESS = {
    "type": "the Python that runs fullhouse",
    "module": "the project is named on the command line",
    "callable": "WSGI_APPLICATION in the settings names it",
    "home": "run the fullhouse of that virtual environment",
    "working_directory": "run fullhouse in that folder",
    "protocol": "the application is served over WSGI",
    "spare": "all workers run from the start; threads end when nobody needs them",
    "idle_timeout": "threads end when nobody needs them",
    "thread_stack_size": "the system's",
}
_OPTIONS = {
    "timeout": "request_timeout",
    "requests": "max_requests",
    "header_read_timeout": "header_timeout",
    "body_read_timeout": "transfer_timeout",
    "send_timeout": "transfer_timeout",
    "max_body_size": "max_body",
}


def from_file(path: Path) -> Source:
    """A file with what Unit's control API returns for /config. Raises ConfigurationError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from error
    return Source(path.name, tuple(_line(place, value) for place, value in _leaves(document, ())))


def _leaves(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of all values that are no object; an environment, a listener and a route are one each."""
    is_listener = len(place) == 2 and place[0] == "listeners"
    is_whole = is_listener or place[-1:] == ("environment",) or place[:1] == ("routes",)
    if isinstance(value, dict) and not is_whole:
        for name, inner in value.items():
            yield from _leaves(inner, (*place, name))
    else:
        yield place, value


def _line(place: tuple[str, ...], value: Any) -> Line:
    text, name = f"{'.'.join(place)} = {json.dumps(value)}", place[-1] if place else ""
    if place[:1] == ("listeners",):
        return _listener(text, place[1], value)
    if place[:1] == ("routes",):
        return Line(text, Fate.REFUSED, "a web server in front does that, with static files: fullhouse deploy nginx")
    if place[:1] == ("access_log",) and name in ("access_log", "path"):
        return passed(text, {"access_log": value})
    if name in ("processes", "max"):
        return owned(text, "workers")
    if name == "threads":
        return owned(text, "threads")
    if name in ("user", "group"):
        return Line(text, Fate.REFUSED, "start fullhouse as that user: the whole site shares one budget")
    if place[:2] == ("settings", "http") and name == "idle_timeout":
        return passed(text, {"keepalive": value})
    if name in _NEEDLESS:
        return Line(text, Fate.NEEDLESS, _NEEDLESS[name])
    if name in _OPTIONS:
        return passed(text, {_OPTIONS[name]: value})
    if name == "environment":
        return passed(text, {"env": {key: text for key, text in value.items() if key != SETTINGS_VARIABLE}})
    if name == "path":
        return passed(text, {"python_path": value if isinstance(value, list) else [value]})
    return Line(text, Fate.REFUSED, "fullhouse has no counterpart")


def _listener(text: str, address: str, value: Any) -> Line:
    host, _, port = address.rpartition(":")
    options: dict[str, Any] = {"bind": [f"{'0.0.0.0' if host == '*' else host}:{port}"]}  # noqa: S104 - as Unit has it
    if address.startswith("unix:"):
        options = {"bind": [address]}
    tls = isinstance(value, dict) and "tls" in value
    return passed(text, options, "bind; with certfile and keyfile for its tls" if tls else "bind")
