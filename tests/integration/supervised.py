"""A small site under a real supervisor, its processes as the kernel lists them, and clients that count failures."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from private_servers import PrivateServer

DEADLINE_S = 60
MEMORY = "/dev/shm"  # noqa: S108
FOREIGN = ("FULLHOUSE_", "DJANGO_", "GUNICORN_", "PORT", "WEB_CONCURRENCY", "NOTIFY_SOCKET", "LISTEN_")
SETTINGS = """
SECRET_KEY = "for a test"
INSTALLED_APPS = ["fullhouse"]
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
"""
URLS = """
import os, time
from django.http import HttpResponse
from django.urls import path

def home(request):
    return HttpResponse("version 1")

def slow(request):
    time.sleep(1)
    return HttpResponse("finished")

def crash(request):
    os.abort()

urlpatterns = [path("", home), path("slow", slow), path("crash", crash)]
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""
MODULES = {"settings": SETTINGS, "urls": URLS, "wsgi": WSGI}


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition holds and return its value; fail after a minute."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain until {what}"
        time.sleep(0.01)
    return value


# A manage.py, whose DJANGO_SETTINGS_MODULE is set already.
MANAGE = "import sys; from django.core.management import execute_from_command_line as run; run(sys.argv)"


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """One that no busy disk can delay, as `/run` is: connects wait for what is written there."""
    with tempfile.TemporaryDirectory(prefix="fullhouse-host-", dir=MEMORY if os.path.isdir(MEMORY) else None) as name:
        yield Path(name)


class Site:
    """A Django project whose files a test may change."""

    def __init__(self, folder: Path, name: str = "mysite") -> None:
        self.folder = folder
        self.name = name
        self._urls = URLS
        (folder / name).mkdir(parents=True)
        self.write("__init__", "")
        for module in MODULES:
            self.restore(module)

    def restore(self, module: str) -> None:
        """The module as it was at first."""
        self.write(module, MODULES[module].replace("mysite", self.name))

    def write(self, module: str, text: str) -> None:
        """Replace a module by a new file, as a deploy does; the size differs, so that no stale bytecode is used."""
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.folder / self.name / f"{module}.py")

    def append(self, module: str, text: str) -> None:
        path = self.folder / self.name / f"{module}.py"
        self.write(module, path.read_text() + text)

    def deploy(self, version: int) -> None:
        self.write("urls", self._urls.replace("version 1", f"version {version}") + "#" * version + "\n")

    def use_database(self, server: PrivateServer, pool: dict[str, Any] | bool = True) -> None:
        """Our engine on this server. pool: its options."""
        database = {
            "ENGINE": f"fullhouse.db.{server.vendor}",
            "HOST": server.host,
            "PORT": server.port,
            "USER": server.user,
            "PASSWORD": server.password,
            "NAME": server.database,
            "OPTIONS": {"pool": pool},
        }
        self.append("settings", f"DATABASES = {{'default': {database!r}}}\n")

    def make_pages_ask_the_database(self) -> None:
        asked = "from django.db import connection\n    connection.cursor().execute('SELECT 1')\n    return"
        self._urls = URLS.replace("return", asked, 1)
        self.deploy(1)

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}

    def command(self, *words: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """`fullhouse …` in the project's folder, or another, run to its end."""
        return subprocess.run(
            [sys.executable, "-m", "fullhouse", *words],
            cwd=folder or self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def manage_environment(self, settings: str = "settings") -> dict[str, str]:
        """The variables that a manage.py sets."""
        paths = f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"
        return {**self.environment, "DJANGO_SETTINGS_MODULE": f"{self.name}.{settings}", "PYTHONPATH": paths}

    def manage(self, *words: str, **variables: str) -> str:
        """What a command of the project's manage.py prints; it must succeed."""
        answer = subprocess.run(
            [sys.executable, "-c", MANAGE, *words],
            cwd=self.folder,
            env={**self.manage_environment(), **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    @contextmanager
    def served(self, *words: str, workers: int = 2, **variables: str) -> Iterator["Supervised"]:
        """`fullhouse serve` once it serves; nothing of it is left after the block."""
        with self.started(*words, workers=workers, **variables) as running:
            running.wait_ready()
            assert len(running.workers()) == workers
            yield running

    @contextmanager
    def started(
        self, *words: str, workers: int = 2, before: Sequence[str] = (), **variables: str
    ) -> Iterator["Supervised"]:
        """The same, as soon as its address is known. before: words of a program that starts it."""
        command = [sys.executable, "-m", "fullhouse", "serve", "mysite", "--bind=127.0.0.1:0", f"--workers={workers}"]
        with supervised([*before, *command, *words], self.folder, {**self.environment, **variables}) as running:
            yield running


@contextmanager
def supervised(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator["Supervised"]:
    """A supervisor that this command starts in the folder; nothing of it is left after the block."""
    log = (folder / "log").open("w+")
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (folder / "notified").unlink(missing_ok=True)
    notified.bind(str(folder / "notified"))
    notified.setblocking(False)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "NOTIFY_SOCKET": str(folder / "notified")},
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    running = Supervised(process, log, notified)
    try:
        yield running
    finally:
        seen = running.tree()
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)
        wait_until(lambda: not alive(seen), "nothing of the server was left")
        log.close()
        notified.close()


class Supervised:
    """A supervisor under test."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str], notified: socket.socket) -> None:
        self.process = process
        self.notified = notified
        self._log = log
        self._port = 0

    @property
    def output(self) -> str:
        """All that it has said so far."""
        self._log.flush()
        return Path(self._log.name).read_text()

    @property
    def port(self) -> int:
        """As the banner tells it."""

        def shown() -> str:
            lines = self.output.splitlines()
            assert self.process.poll() is None or lines, "ended without a word"
            return next((line for line in lines if line.split()[:1] == ["address"]), "")

        if not self._port:
            self._port = int(wait_until(shown, "the banner shows the address").rstrip("/").rpartition(":")[2])
        return self._port

    def wait_ready(self) -> None:
        """Wait until it tells, as to systemd, that all workers of a generation are ready."""

        def shown() -> bool:
            assert self.process.poll() is None, self.output
            with suppress(BlockingIOError):
                return b"READY=1" in self.notified.recv(4096)
            return False

        wait_until(shown, "it was ready")

    def wait_serving(self) -> None:
        def serves() -> bool:
            assert self.process.poll() is None, self.output
            with suppress(OSError, HTTPException):
                return self.get() != ""
            return False

        wait_until(serves, "the site answered")

    def get(self, path: str = "/", timeout: float = DEADLINE_S) -> str:
        status, text = self._ask(path, timeout)
        assert status == 200, text
        return text

    def status(self, path: str) -> int:
        return self._ask(path, DEADLINE_S)[0]

    def _ask(self, path: str, timeout: float) -> tuple[int, str]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def signal(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def masters(self) -> list[int]:
        return children(self.process.pid)

    def workers(self) -> list[int]:
        return [pid for master in self.masters() for pid in children(master)]

    def tree(self) -> dict[int, str]:
        """Every process of it, the supervisor too: when each was born, by its pid."""
        pids = [self.process.pid, *self.masters(), *self.workers()]
        return {pid: born for pid in pids if (born := birth(pid))}

    def wait_whole(self, workers: int = 2) -> None:
        """Wait for one master with all its workers, and an answer."""

        def whole() -> bool:
            return len(self.masters()) == 1 and len(self.workers()) == workers

        wait_until(whole, "the tree was whole again")
        self.wait_serving()


def stat_of(pid: int) -> list[str]:
    """The words of /proc/PID/stat from the state on; none where there is no such process, or a dead one."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if words[0] == "Z" else words


def birth(pid: int) -> str:
    """When the process was born, in clock ticks; nothing where it has ended."""
    return words[19] if (words := stat_of(pid)) else ""


def children(parent: int) -> list[int]:
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if stat_of(pid)[1:2] == [str(parent)]]


def alive(tree: dict[int, str]) -> list[int]:
    """Those of the tree that still run."""
    return [pid for pid, born in tree.items() if birth(pid) == born]


class Load:
    """Clients that ask for the home page as fast as they are answered, until the block ends.

    expected: what each answer begins with.
    """

    def __init__(
        self, port: int, *, clients: int = 4, keep_alive: bool, expected: str = "version", method: str = "GET"
    ) -> None:
        self._port, self._method = port, method
        self._expected = expected
        self._keep_alive = keep_alive
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.answers: list[str] = []
        self.failures: list[str] = []

    def _run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        while not self._stop.is_set():
            try:
                connection.request(self._method, "/", headers={} if self._keep_alive else {"Connection": "close"})
                response = connection.getresponse()
                text = response.read().decode()
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            else:
                if response.status != 200 or not text.lstrip().startswith(self._expected):
                    self.failures.append(f"{response.status} {text[:200]}")
                self.answers.append(text)
        connection.close()

    def wait_more(self, count: int = 20) -> None:
        """Wait for so many further answers, so that the load is known to run."""
        before = len(self.answers)
        wait_until(lambda: len(self.answers) >= before + count, "the load was answered")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def kill(pid: int) -> None:
    """SIGKILL; one that has gone meanwhile is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
