"""uWSGI's options, from an ini file."""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.foreign.lines import SETTINGS_VARIABLE, Fate, Line, Source, owned, passed

_VARIABLE = re.compile(r"%\((\w[\w-]*)\)")
_MIB = 1 << 20
_ONE_THREAD = "it runs many requests in one thread, and Django's connections belong to threads"
_WEB_SERVER = "fullhouse[static] serves STATIC_ROOT; all else is a web server's: fullhouse deploy nginx"

_OWNED = {
    **dict.fromkeys(("processes", "workers", "p"), "workers"),
    "threads": "threads",
    **dict.fromkeys(
        ("cheaper", "cheaper-initial", "cheaper-step", "cheaper-algo", "cheaper-rss-limit-soft"), "workers"
    ),
}
_NEEDLESS = {
    "module": "the project is named on the command line",
    "wsgi": "the project is named on the command line",
    "wsgi-file": "the project is named on the command line",
    "callable": "WSGI_APPLICATION in the settings names it",
    "chdir": "run fullhouse in that folder",
    **dict.fromkeys(("home", "virtualenv", "venv", "H"), "run the fullhouse of that virtual environment"),
    **dict.fromkeys(("plugin", "plugins", "plugins-dir"), "there are none to load"),
    **dict.fromkeys(
        ("master", "enable-threads", "single-interpreter", "strict", "need-app", "thunder-lock"), "always so"
    ),
    **dict.fromkeys(
        ("vacuum", "die-on-term", "no-orphans", "close-on-exec", "so-keepalive", "reuse-port"), "always so"
    ),
    **dict.fromkeys(("ignore-sigpipe", "ignore-write-errors", "disable-write-exception"), "always so"),
    **dict.fromkeys(
        ("post-buffering", "offload-threads", "http-auto-chunked"), "the worker reads whole requests without a thread"
    ),
    **dict.fromkeys(
        ("disable-logging", "log-4xx", "log-5xx"), "there is an access log only where access_log names one"
    ),
    **dict.fromkeys(("stats", "stats-http", "memory-report"), "fullhouse status"),
    **dict.fromkeys(("touch-reload", "touch-chain-reload", "master-fifo"), "fullhouse reload"),
    **dict.fromkeys(
        ("lazy-apps", "lazy"),
        "the application is loaded once where that is safe; preload = False has each worker do it",
    ),
    **dict.fromkeys(("worker-reload-mercy", "reload-mercy", "mule-reload-mercy"), "graceful_timeout"),
    **dict.fromkeys(("log-maxsize", "log-backupname"), "the log of fullhouse start rotates itself"),
    **dict.fromkeys(("auto-procname", "py-call-osafterfork", "harakiri-verbose"), "always so"),
    "chmod-socket": "umask, in FULLHOUSE['gunicorn']",
}
_REFUSED = {
    **dict.fromkeys(("gevent", "async", "ugreen", "asyncio", "greenlet", "gevent-monkey-patch"), _ONE_THREAD),
    **dict.fromkeys(("uid", "gid"), "start fullhouse as that user: the whole site shares one budget"),
    **dict.fromkeys(
        ("emperor", "vassals-include", "legion"), "one fullhouse serves one site; systemd or supervisord starts several"
    ),
    **dict.fromkeys(("static-map", "static-map2", "check-static", "route", "route-uri", "route-host"), _WEB_SERVER),
    **dict.fromkeys(("https", "https-socket", "ssl-socket"), "set bind, certfile and keyfile"),
    **dict.fromkeys(("cron", "unique-cron", "cron2"), "use cron, a systemd timer, or a scheduler in processes"),
    **dict.fromkeys(("spooler", "spooler-processes", "mules", "farm"), "use Django's tasks or Celery, in processes"),
    "max-worker-lifetime": "max_requests and max_worker_memory replace a worker",
    "evil-reload-on-rss": "max_worker_memory replaces it once its requests are answered",
    "cache2": "use Django's cache",
}


def from_file(path: Path) -> Source:
    """An ini file with a section [uwsgi], and the sections and files that it includes. Raises ConfigurationError."""
    pairs = list(_pairs(path, "uwsgi", {_location(path, "uwsgi")}))
    variables = {name for _, value in pairs for name in _VARIABLE.findall(value)}
    known: dict[str, str] = {}
    lines = []
    for name, value in pairs:
        known[name] = _expanded(value, known, path)
        text = f"{name} = {value}"
        if name in variables and not _is_known(name):
            lines.append(Line(text, Fate.NEEDLESS, "a variable of this file"))
        else:
            lines.append(_line(text, name.replace("_", "-"), known[name]))
    return Source(path.name, tuple(lines))


def _pairs(path: Path, section: str, seen: set[tuple[Path, str]]) -> Iterator[tuple[str, str]]:
    """The options of a section, those that stand there several times among them. A name alone is true."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from error
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and line and line[0] not in "#;":
            name, equals, value = (part.strip() for part in line.partition("="))
            if name != "ini":
                yield name, value if equals else "true"
                continue
            file, _, inner = _expanded(value, {}, path).partition(":")
            where = _location(path.parent / file if file else path, inner or "uwsgi")
            if where not in seen:
                yield from _pairs(*where, seen | {where})


def _location(path: Path, section: str) -> tuple[Path, str]:
    return path.resolve(), section


def _expanded(value: str, known: Mapping[str, str], path: Path) -> str:
    """What uWSGI makes of placeholders: %(option), $(VARIABLE), and the magic letters for the file itself."""
    letters = {"d": f"{path.parent}/", "p": str(path), "s": path.name, "n": path.stem, "c": path.parent.name}
    value = _VARIABLE.sub(lambda found: known.get(found[1], found[0]), value)
    value = re.sub(r"\$\((\w+)\)", lambda found: os.environ.get(found[1], found[0]), value)
    return re.sub(r"%([dpsnc])", lambda found: letters[found[1]], value)


def _is_known(name: str) -> bool:
    key = name.replace("_", "-")
    return key in _OWNED or key in _NEEDLESS or key in _REFUSED or key in _PASSED


def _line(text: str, key: str, value: str) -> Line:
    if key in _OWNED:
        return owned(text, _OWNED[key])
    if key in _NEEDLESS:
        return Line(text, Fate.NEEDLESS, _NEEDLESS[key])
    if key in _REFUSED:
        return Line(text, Fate.REFUSED, _REFUSED[key])
    if key not in _PASSED:
        return Line(text, Fate.REFUSED, "fullhouse has no counterpart")
    try:
        return passed(text, _PASSED[key](value), _REMARKS.get(key, ""))
    except ValueError:
        return Line(text, Fate.REFUSED, "its value is not understood: set the option by hand")


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    return f"{host or '0.0.0.0'}:{port}" if port.isdecimal() else f"unix:{value}"  # noqa: S104 - as uWSGI has it


def _environment(value: str) -> dict[str, Any]:
    name, _, text = value.partition("=")
    if name == SETTINGS_VARIABLE:
        return {}
    return {"env": {name: text}}


def _process(value: str) -> dict[str, Any]:
    words = shlex.split(value)
    return {"processes": {Path(words[0]).stem: value}}


def _process_with_pid_file(value: str) -> dict[str, Any]:
    return _process(value.partition(" ")[2])


def _number(option: str, factor: int = 1) -> Callable[[str], dict[str, Any]]:
    return lambda value: {option: int(value) * factor}


def _text(option: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {option: value}


_PASSED: Mapping[str, Callable[[str], dict[str, Any]]] = {
    **dict.fromkeys(
        ("socket", "s", "uwsgi-socket", "http-socket", "http", "http11-socket"),
        lambda value: {"bind": [_address(value)]},
    ),
    "listen": _number("backlog"),
    "harakiri": _number("request_timeout"),
    "http-timeout": _number("timeout"),
    "socket-timeout": _number("timeout"),
    "http-keepalive": _number("keepalive"),
    "max-requests": _number("max_requests"),
    "reload-on-rss": _number("max_worker_memory", _MIB),
    "reload-on-as": _number("max_worker_memory", _MIB),
    "limit-post": _number("max_body"),
    "buffer-size": lambda value: {"gunicorn": {"limit_request_field_size": int(value)}},
    "pidfile": lambda value: {"gunicorn": {"pidfile": value}},
    "umask": lambda value: {"gunicorn": {"umask": int(value, 8)}},
    **dict.fromkeys(("pythonpath", "python-path", "pp"), lambda value: {"python_path": [value]}),
    "env": _environment,
    **dict.fromkeys(("logto", "logto2", "daemonize", "daemonize2"), _text("log_file")),
    "req-logger": lambda value: {"access_log": value.removeprefix("file:")},
    "procname": _text("process_name"),
    "procname-prefix": _text("process_name"),
    "py-autoreload": lambda value: {"reload": int(value) > 0},
    "attach-daemon": _process,
    "attach-daemon2": _process,
    "smart-attach-daemon": _process_with_pid_file,
    "smart-attach-daemon2": _process_with_pid_file,
}
_REMARKS = {
    **dict.fromkeys(
        ("smart-attach-daemon", "smart-attach-daemon2"), "processes; it must stay in the foreground, without a pid file"
    ),
    **dict.fromkeys(("daemonize", "daemonize2"), "log_file; fullhouse start serves in the background"),
    "env": f"env; {SETTINGS_VARIABLE} is what manage.py or wsgi.py sets, or the environment",
    **dict.fromkeys(("socket", "s", "uwsgi-socket"), "bind; nginx reaches it by proxy_pass, not uwsgi_pass"),
    "harakiri": "request_timeout: the query is cancelled, the client gets 503, and the worker lives on",
    "reload-on-rss": "max_worker_memory: the worker is replaced once its requests are answered",
}
