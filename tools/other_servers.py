"""Run a site under other servers, with Django's engine and with ours, and count the database's sessions.

    python tools/other_servers.py                         # all of them
    python tools/other_servers.py uvicorn daphne --database mysql

200 clients at once ask for a page that takes the database 50 ms, on a server of the database that lets 40 sessions in.
The table says how many requests failed, and how many sessions the site had at once. Then 1,000 clients leave before
their answer: as many sessions as before must be at work for those who come next. Fails where a request fails with our
engine, a session is one too many, or some are lost.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import programs
from comparison import PACKAGES
from overlay import overlay
from private_servers import PrivateServer
from sessions import MAKERS, count, entry, observer_of, watched

TOOLS = Path(__file__).resolve().parent
SOURCE = TOOLS.parent / "src"
MOST_SESSIONS = 40
CLIENTS, SECONDS, LEAVERS = 200, 4, 1000
START_TIMEOUT_S, STOP_TIMEOUT_S, LOAD_TIMEOUT_S = 30.0, 20.0, 120.0
ALMOST = 0.8  # of the sessions that were at work before: a sample may miss some, and a lost one is lost for good
ALMOST = 0.8  # of the sessions that were at work before: a sample may miss some, and a lost one is lost for good
QUIET_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Server:
    """How one is started: words after python, with {port}. needs: its requirements."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    path: str = "/"


_ASGI, _WSGI = "other_servers_site:asgi_application", "other_servers_site:application"
_UVICORN = Server(("-m", "uvicorn", _ASGI, "--port={port}", "--workers=2", "--log-level=critical"), ("uvicorn",))
SERVERS = {
    "uvicorn": _UVICORN,
    "uvicorn, async view": replace(_UVICORN, path="/async"),
    "granian (ASGI)": Server(
        ("-m", "granian", "--interface=asgi", "--port={port}", "--workers=2", "--no-log", _ASGI), ("granian",)
    ),
    "granian (WSGI)": Server(
        (
            "-m",
            "granian",
            "--interface=wsgi",
            "--port={port}",
            "--workers=2",
            "--blocking-threads=32",
            "--no-log",
            _WSGI,
        ),
        ("granian",),
    ),
    "daphne": Server(("-m", "daphne", "--port={port}", "--verbosity=0", _ASGI), ("daphne",)),
    "hypercorn": Server(("-m", "hypercorn", "--bind=127.0.0.1:{port}", "--workers=2", _ASGI), ("hypercorn",)),
    "gunicorn gthread": Server(("-m", "gunicorn", "-b127.0.0.1:{port}", "-w2", "--threads=32", _WSGI)),
    "waitress": Server(("-m", "waitress", "--listen=127.0.0.1:{port}", "--threads=64", _WSGI), ("waitress",)),
    "runserver": Server(
        ("-m", "django", "runserver", "127.0.0.1:{port}", "--noreload", "--settings=other_servers_site")
    ),
}


@dataclass
class Seen:
    """answered, failed: requests. sessions: the most at once; at_work: of those that were at a statement."""

    answered: int = 0
    failed: int = 0
    sessions: int = 0
    at_work: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the sessions of a site under other servers.")
    parser.add_argument("servers", nargs="*", choices=[[], *SERVERS], metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--database", choices=MAKERS, default="postgresql")
    parser.add_argument("--engine", choices=PACKAGES, help="this one only")
    arguments = parser.parse_args()
    good = True
    print(f"{arguments.database} lets {MOST_SESSIONS} sessions in; {CLIENTS} clients at once, for {SECONDS} s")
    print(f"{'':22}{'engine':8} answered  failed  sessions  once {LEAVERS} have left: failed  sessions at work")
    for name in arguments.servers or SERVERS:
        for whose in [arguments.engine] if arguments.engine else PACKAGES:
            seen, after = _measure(SERVERS[name], name, whose, arguments.database)
            before = f"{seen.answered:9}{seen.failed:8}{seen.sessions:10}"
            print(f"{name:22}{whose:8}{before}{after.failed:33}{after.at_work:18}", flush=True)
            if whose == "ours":
                good = good and not seen.failed and not after.failed and seen.sessions < MOST_SESSIONS
                good = good and after.at_work > ALMOST * seen.at_work > 0
    return 0 if good else 1


def _measure(server: Server, name: str, whose: str, database: str) -> tuple[Seen, Seen]:
    """Before and after clients have left without waiting for their answers."""
    python = overlay("-".join(re.findall(r"\w+", name)), list(server.needs)) if server.needs else Path(sys.executable)
    with (
        MAKERS[database](max_connections=MOST_SESSIONS) as private,
        _running(server, python, whose, private) as port,
        observer_of(private) as observer,
    ):
        seen = _ask_and_look(port, server.path, private, observer)
        _leave(port, server.path)
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        while count(private, observer)[1] and time.monotonic() < deadline:
            time.sleep(1)
        return seen, _ask_and_look(port, server.path, private, observer)


@contextlib.contextmanager
def _running(server: Server, python: Path, whose: str, private: PrivateServer) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    environment = {
        **os.environ,
        "OTHER_SERVERS_DATABASE": json.dumps(entry(whose, private)),
        "DJANGO_SETTINGS_MODULE": "other_servers_site",
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TOOLS)]),
    }
    command = [str(python), *(word.format(port=port) for word in server.words)]
    with (private.folder / "server.log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _await(lambda: _get(port, server.path), process, log)
            yield port
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)


def _await(answers: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"{process.args!r} does not answer\n{log.read()[-2000:]}")


def _get(port: int, path: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in client.recv(100)


def _ask(port: int, path: str) -> tuple[int, int]:
    """Answered with 200, and not."""
    command = [
        programs.path("wrk"),
        "-t1",
        f"-c{CLIENTS}",
        f"-d{SECONDS}",
        "--timeout=60",
        f"http://127.0.0.1:{port}{path}",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LOAD_TIMEOUT_S).stdout
    answered = re.search(r"(\d+) requests in", output)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = int(wrong[1]) if wrong else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    return (int(answered[1]) if answered else 0) - (int(wrong[1]) if wrong else 0), failed


def _leave(port: int, path: str) -> None:
    """Ask, and go away at once, a thousand times."""
    for _ in range(LEAVERS // CLIENTS):
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENTS):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            time.sleep(0.05)


def _ask_and_look(port: int, path: str, private: PrivateServer, observer: Any) -> Seen:
    """Look at the server's sessions while its clients ask."""
    with watched(private, observer) as sessions:
        answered, failed = _ask(port, path)
    return Seen(answered, failed, sessions.most, sessions.at_work)


if __name__ == "__main__":
    sys.exit(main())
