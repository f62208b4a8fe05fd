"""What several tests need: projects, processes that leave nothing, HTTP, conditions to wait for."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

import psycopg
import pymysql

import programs
from private_servers import PrivateServer

DEADLINE_S = 60
# Variables that would change what a server under test does.
FOREIGN = ("FULLHOUSE_", "DJANGO_", "GUNICORN_", "PORT", "WEB_CONCURRENCY", "NO_COLOR")

URLS = """
import os
from django.http import HttpResponse
from django.urls import path

def home(request):
    return HttpResponse("version 1")

def variable(request, name):
    return HttpResponse(os.environ.get(name, ""))

urlpatterns = [path("", home), path("variable/<name>", variable)]
"""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def make_certificate(certfile: Path, keyfile: Path) -> None:
    """A certificate for localhost that signs itself."""
    words = [
        programs.path("openssl"),
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*words, "-keyout", keyfile, "-out", certfile], check=True, capture_output=True)


def ask(server: PrivateServer, *statements: str, user: str = "", by_socket: bool = False) -> str:
    """Run and commit the statements; return the first column of the first row of the last one."""
    account = {"user": user or server.user, "password": server.password, "port": server.port}
    if server.vendor == "mysql":
        where = {"unix_socket": str(server.socket)} if by_socket else {}
        connection = pymysql.connect(host=server.host, database=server.database, **account, **where)
    else:
        host = str(server.folder) if by_socket else server.host
        connection = psycopg.connect(host=host, dbname=server.database, **account)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone()
        connection.commit()
        assert row
        return str(row[0])
    finally:
        connection.close()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition holds and return its value; fail after a minute."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain until {what}"
        time.sleep(0.02)
    return value


@dataclass(frozen=True)
class Site:
    """A Django project named mysite in `folder`, as `django-admin startproject` makes it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Site":
        folder.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", folder], check=True)
        site = cls(folder)
        site.append("settings", "ALLOWED_HOSTS = ['*']\n")
        (folder / "mysite" / "urls.py").write_text(URLS)
        return site

    def append(self, module: str, text: str) -> None:
        """Add lines to a module of the project."""
        with (self.folder / "mysite" / f"{module}.py").open("a") as file:
            file.write("\n" + text)

    def command(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`fullhouse …` in the project's folder, run to its end; nothing of it may be left running."""
        with self.started("-m", "fullhouse", *words, **variables) as running:
            out, _ = running.process.communicate(timeout=DEADLINE_S)
            assert group_of(running.process.pid) == [], "processes were left running"
            return subprocess.CompletedProcess(words, running.process.returncode, out, running.errors())

    @contextmanager
    def started(self, *words: str, **variables: str) -> Iterator["Running"]:
        """`python …` in the project's folder, in a session of its own that ends with the block."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        with (
            tempfile.TemporaryFile("w+") as errors,  # a pipe would fill up and block who writes many
            subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                env={**environment, **variables},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield Running(process, errors)
            finally:
                for pid in group_of(process.pid):
                    os.kill(pid, signal.SIGKILL)

    @contextmanager
    def served(self, *words: str, **variables: str) -> Iterator["Running"]:
        """The same, once its banner has told the address."""
        with self.started(*words, **variables) as running:
            running.read_banner()
            yield running


def group_of(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    command = [programs.path("ps"), "-A", "-o", "pid=,pgid=,stat="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


class Running:
    """A server under test: its banner, its processes, its pages."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process = process
        self._errors = errors
        self.banner: list[str] = []

    def read_banner(self) -> None:
        """Read standard output up to the banner's last row."""
        out: IO[str] = self.process.stdout  # type: ignore[assignment]
        for line in out:
            self.banner.append(line.rstrip())
            if line.lstrip().startswith("stop"):
                return
        raise AssertionError(f"ended with code {self.process.wait()}: {self.banner} {self.errors()}")

    def row(self, label: str) -> str:
        """What the banner says beside a label."""
        (row,) = [line for line in self.banner if line.split()[:1] == [label]]
        return row.split(maxsplit=1)[1]

    @property
    def port(self) -> int:
        return int(self.row("address").rstrip("/").rpartition(":")[2])

    def errors(self) -> str:
        """All that was written to standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    def end(self, signum: int = signal.SIGINT) -> int:
        """End it as a terminal does, with a signal to the whole group, and return its exit code."""
        os.killpg(self.process.pid, signum)
        code = self.process.wait(DEADLINE_S)
        assert group_of(self.process.pid) == [], "processes were left running"
        return code

    def get(self, path: str = "/") -> str:
        """The body of a page that must be there."""
        return fetch("127.0.0.1", self.port, path)


def fetch(host: str, port: int, path: str) -> str:
    with closing(HTTPConnection(host, port, timeout=DEADLINE_S)) as connection:
        return body(connection, path)


def fetch_tls(port: int, certificate: Path) -> str:
    """The home page over TLS, its certificate checked."""
    context = ssl.create_default_context(cafile=certificate)
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    connection = HTTPConnection("localhost")
    connection.sock = context.wrap_socket(plain, server_hostname="localhost")
    with closing(connection):
        return body(connection, "/")


def fetch_unix(path: Path) -> str:
    """The home page over a Unix socket."""
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(DEADLINE_S)
    connection.sock.connect(str(path))
    with closing(connection):
        return body(connection, "/")


def body(connection: HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    return text


def plan_of(answer: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    """The plan that a command printed as JSON, and nothing else."""
    assert (answer.returncode, answer.stderr) == (0, "")
    plan: Mapping[str, Any] = json.loads(answer.stdout)
    return plan
