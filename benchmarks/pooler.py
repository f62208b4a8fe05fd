"""How many hosts one budget carries: as a fleet, and behind PgBouncer with the file of `fullhouse deploy pgbouncer`.

Run: PYTHONPATH=tools:tests:src python -m benchmarks.pooler [--hosts 2,4,8,16,32]

A host is a runtime folder with WORKERS workers; the database, and the pooler beside it, are 1 ms away. Each request
makes two statements of 10 ms. CLIENTS clients in all, shared out to the hosts that are ready, each with one connection.
Both ways are up at once on servers of their own, and are measured in turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.fleet_connect import distant
from benchmarks.processes import free_port, rotated, serving

from pgbouncer import pgbouncer_to
from private_servers import PrivateServer, postgresql
from sessions import entry, observer_of, watched

BUDGET, WORKERS, THREADS, CLIENTS = 16, 2, 8, 64
STATEMENT_S, WINDOW_S, ROUNDS = 0.01, 5.0, 3
READY_S = 60.0
SETTINGS = """
SECRET_KEY, ALLOWED_HOSTS = "throw-away", ["*"]
ROOT_URLCONF, WSGI_APPLICATION = "mysite.urls", "mysite.wsgi.application"
DATABASES = {{"default": {database}}}
FULLHOUSE = {options}
"""
URLS = f"""
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def page(request):
    for _ in range(2):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep({STATEMENT_S})")
    return HttpResponse("ok")

urlpatterns = [path("", page)]
"""
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"


@dataclass
class Way:
    """name: for people. ports: of the hosts that are ready."""

    name: str
    server: PrivateServer
    ports: list[int]
    rates: list[float] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    failures: int = 0
    sessions: int = 0

    def measure(self) -> None:
        """Ask for WINDOW_S, and count what was answered and what the server has."""
        until, answered = time.monotonic() + WINDOW_S, []
        with observer_of(self.server) as observer, watched(self.server, observer) as seen:
            threads = [
                threading.Thread(target=self._ask, args=(self.ports[number % len(self.ports)], until, answered))
                for number in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * READY_S)
        self.rates.append(len(answered) / WINDOW_S)
        self.times_s += answered
        self.sessions = max(self.sessions, seen.most)

    def _ask(self, port: int, until: float, answered: list[float]) -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=READY_S)) as client:
            while (began := time.monotonic()) < until:
                try:
                    client.request("GET", "/")
                    answer = client.getresponse()
                    answer.read()
                except (OSError, HTTPException):
                    client.close()
                    self.failures += 1
                    continue
                if answer.status == 200:
                    answered.append(time.monotonic() - began)
                else:
                    self.failures += 1
                    time.sleep(0.1)

    @property
    def line(self) -> str:
        p50, p99 = (statistics.quantiles(self.times_s, n=100)[share - 1] * 1000 for share in (50, 99))
        return (
            f"{self.name:<9} {len(self.ports):>3} ready, {self.sessions:>3} sessions, "
            f"{statistics.median(self.rates):>4.0f} requests/s, {p50:>4.0f} ms in the middle, {p99:>5.0f} ms p99, "
            f"{self.failures} failed"
        )


def write_site(folder: Path, server: PrivateServer, port: int, options: dict[str, object], **more: object) -> None:
    (folder / "mysite").mkdir(parents=True)
    database = entry("ours", server) | {"PORT": port} | more
    for name, text in {
        "__init__": "",
        "settings": SETTINGS.format(database=database, options=options),
        "urls": URLS,
        "wsgi": WSGI,
    }.items():
        (folder / "mysite" / f"{name}.py").write_text(text)


@contextmanager
def hosts(number: int, site: Path) -> Iterator[list[int]]:
    """The ports of those that became ready."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
    ports = [free_port() for _ in range(number)]
    with ExitStack() as stack:

        def start(port: int) -> bool:
            folder = site / f"host-{port}"
            folder.mkdir(mode=0o700)
            words = [sys.executable, "-m", "fullhouse", "serve", "mysite", f"--bind=127.0.0.1:{port}"]
            words += [f"--workers={WORKERS}", f"--threads={THREADS}"]
            variables = {**environment, "FULLHOUSE_RUNTIME_FOLDER": str(folder)}
            stack.enter_context(serving(str(port), words, port, "/-/live", folder=site, environment=variables))
            return is_ready(port)

        with ThreadPoolExecutor(4) as starters:
            ready = list(starters.map(start, ports))
        yield [port for port, answered in zip(ports, ready, strict=True) if answered]


def is_ready(port: int) -> bool:
    deadline = time.monotonic() + READY_S / 4
    while time.monotonic() < deadline:
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as client:
            client.request("GET", "/-/ready")
            if client.getresponse().status == 200:
                return True
        time.sleep(0.2)
    return False


def written(site: Path) -> str:
    """What `fullhouse deploy pgbouncer` says for the site."""
    words = [sys.executable, "-m", "fullhouse", "deploy", "pgbouncer", "mysite", f"--budget={BUDGET}"]
    words += [f"--workers={WORKERS}", f"--threads={THREADS}"]
    return subprocess.run(words, cwd=site, capture_output=True, text=True, timeout=READY_S, check=True).stdout


def compare(number: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fullhouse-pooler-")))
        direct, behind = (stack.enter_context(postgresql(max_connections=100)) for _ in range(2))
        write_site(folder / "direct", direct, distant(direct.port), {"hosts": "fleet", "budget": BUDGET})
        write_site(folder / "planned", behind, behind.port, {})
        port = stack.enter_context(pgbouncer_to(behind, written(folder / "planned")))
        options = {"max_connections": WORKERS * THREADS, "reserve": 0}
        write_site(folder / "pooled", behind, distant(port), options, DISABLE_SERVER_SIDE_CURSORS=True)
        ways = [
            Way("a fleet", direct, stack.enter_context(hosts(number, folder / "direct"))),
            Way("PgBouncer", behind, stack.enter_context(hosts(number, folder / "pooled"))),
        ]
        for round_number in range(ROUNDS + 1):  # the first one warms up
            for way in rotated(ways, round_number):
                way.measure()
                if not round_number:
                    way.rates, way.times_s, way.failures = [], [], 0
        for way in ways:
            print(f"{number:>3} hosts, {number * WORKERS:>3} workers: {way.line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", default="2,4,8,16,32")
    print(f"a budget of {BUDGET}; hosts of {WORKERS} workers × {THREADS} threads; {CLIENTS} clients", flush=True)
    for number in map(int, parser.parse_args(arguments).hosts.split(",")):
        compare(number)


if __name__ == "__main__":
    main()
