"""The servers that are compared: how each is started with the same workers and threads."""

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.connections.contenders import OUR_WORKER, OURS, PERSISTENT, STOCK, Contender, environment_of
from benchmarks.processes import family, free_port, serving

from private_servers import PrivateServer

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
CONNECTIONS = 6000


@dataclass(frozen=True)
class Load:
    """What every server is given alike. before: the source of another state of fullhouse, the peer of that name."""

    workers: int
    threads: int
    access_log: Path | None = None
    database: PrivateServer | None = None
    options: tuple[tuple[str, Any], ...] = ()  # of fullhouse alone, where it has a database
    before: Path | None = None
    sites: int = 1  # of fullhouse, that run at once and share the budget of their account
    core: int | None = None  # the only one that the server runs on
    delay: Path | None = None  # the file that says how much later the database answers (`late_answers`)


def _gunicorn(venv, port, app, load, *extra):
    command = [
        *(venv / "bin/gunicorn", "-b", f"127.0.0.1:{port}", "-w", load.workers, "--threads", load.threads),
        *("--worker-connections", CONNECTIONS, "--keep-alive", 75, "--backlog", 4096, "--no-control-socket"),
        *("--log-level", "warning", *extra),
    ]
    if load.access_log:
        command += ["--access-logfile", load.access_log]
    return [*command, f"apps:{app}"]


def fullhouse(venv, port, app, load):
    chosen = ("-c", "python:fullhouse.conf") if load.database else ("-k", OUR_WORKER)
    return _gunicorn(venv, port, app, load, *chosen)


def gthread(venv, port, app, load):
    return _gunicorn(venv, port, app, load, "-k", "gthread", "--http-parser", "python")


def gthread_h1c(venv, port, app, load):
    return _gunicorn(venv, port, app, load, "-k", "gthread", "--http-parser", "fast")


def granian(venv, port, app, load):
    command = [
        *(venv / "bin/granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", port),
        *("--workers", load.workers, "--blocking-threads", load.threads, "--no-ws", "--http", "1"),
        *("--backlog", 4096, "--log-level", "warning"),
    ]
    if load.access_log:
        command += ["--access-log", "--log-config", _granian_log(load.access_log)]
    return [*command, f"apps:{app}"]


def _granian_log(path: Path) -> Path:
    """Granian's access log, to a file as that of the others."""
    config = path.with_suffix(".json")
    handler = {"class": "logging.FileHandler", "filename": str(path)}
    logger = {"handlers": ["access"], "level": "INFO", "propagate": False}
    settings = {"version": 1, "handlers": {"access": handler}, "loggers": {"granian.access": logger}}
    config.write_text(json.dumps(settings))
    return config


def uwsgi(venv, port, app, load):
    command = [
        *(venv / "bin/uwsgi", "--http11-socket", f"127.0.0.1:{port}", "--master", "--die-on-term"),
        *("--processes", load.workers, "--threads", load.threads, "--module", f"apps:{app}"),
        *("--listen", 4096, "--so-keepalive", "--http-keepalive", "--add-header", "Connection: Keep-Alive"),
    ]
    return [*command, *(("--logto", load.access_log) if load.access_log else ("--disable-logging",))]


def waitress(venv, port, app, load):
    """One process only: waitress has no workers. Its access log is left out, since it has none either."""
    return [
        *(venv / "bin/waitress-serve", f"--listen=127.0.0.1:{port}", f"--threads={load.threads}"),
        *(f"--connection-limit={CONNECTIONS}", "--backlog=4096", f"apps:{app}"),
    ]


PEERS = {
    "fullhouse": fullhouse,
    "before": fullhouse,
    "gthread": gthread,
    "gthread+h1c": gthread_h1c,
    "granian": granian,
    "uwsgi": uwsgi,
    "waitress": waitress,
    "main": fullhouse,
    "passed on": fullhouse,
    "kept": fullhouse,
}
WORKERS = {"main": "ways.Main", "passed on": "ways.PassedOn", "kept": "ways.Kept"}
OTHERS = [name for name in PEERS if PEERS[name] is not fullhouse]


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    process: subprocess.Popen

    def memory_bytes(self) -> int:
        """Resident memory of the process and all below it."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(self.process.pid)]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(name: str, venv: Path, app: str, load: Load, path: str = "/"):
    """Start a peer, wait until it answers GET `path`, and end it."""
    port = free_port()
    command, environment = PEERS[name](venv, port, app, load), _environment(name, load)
    if load.core is not None:
        command = ["taskset", "--cpu-list", load.core, *command]
    with serving(name, command, port, path, folder=HERE, environment=environment) as process:
        yield Server(name, port, process)


def _environment(name: str, load: Load) -> dict[str, str]:
    """With a database: our pool with a session for each thread, or Django's engine with a connection for each."""
    source = load.before if name == "before" else SOURCE
    if not load.database:
        return os.environ | {"PYTHONPATH": f"{HERE}:{source}", "PYTHONDONTWRITEBYTECODE": "1"}
    if PEERS[name] is fullhouse:
        budget = load.sites * load.workers * load.threads
        options = dict(load.options)
        contender = Contender(
            name,
            OURS,
            load.workers,
            load.threads,
            budget=budget,
            worker_class=WORKERS.get(name, OUR_WORKER),
            options=options,
        )
    else:
        contender = Contender(name, STOCK, load.workers, load.threads, PERSISTENT)
    environment = environment_of(contender, load.database)
    folders = environment["PYTHONPATH"].replace(str(SOURCE), str(source))
    delay = {"BENCH_DELAY": str(load.delay)} if load.delay else {}
    return environment | delay | {"PYTHONPATH": f"{HERE}:{folders}"}
