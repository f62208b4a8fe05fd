"""Who is compared: gunicorn's gthread each time, with different engines, threads and connections."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from private_servers import PrivateServer

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
STOCK = {"mariadb": "django.db.backends.mysql", "postgresql": "django.db.backends.postgresql"}
OURS = {"mariadb": "fullhouse.db.mysql", "postgresql": "fullhouse.db.postgresql"}
THEIRS = {"mariadb": "dj_db_conn_pool.backends.mysql", "postgresql": "dj_db_conn_pool.backends.postgresql"}

PERSISTENT = {"CONN_MAX_AGE": None}


@dataclass(frozen=True)
class Contender:
    """database: what goes into DATABASES beside the address. budget, options: of fullhouse, for our engines."""

    name: str
    engines: dict[str, str]
    workers: int
    threads: int
    database: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def recipe(limit: int, cores: int) -> tuple[int, int]:
    """(workers, threads) of the classic recipe, which leaves 40 sessions to others and counts 2 for each thread."""
    workers = 2 * cores + 1
    return workers, int((limit - 40) / 2 / workers)


def pooled_by_sqlalchemy(name: str, workers: int, threads: int) -> Contender:
    """django-db-connection-pool with the recipe's pool: twice the threads."""
    options = {"POOL_SIZE": 2 * threads, "MAX_OVERFLOW": 0}
    return Contender(name, THEIRS, workers, threads, {"POOL_OPTIONS": options})


def environment_of(contender: Contender, server: PrivateServer) -> dict[str, str]:
    """What the site's settings read."""
    database = {
        "ENGINE": contender.engines[server.engine],
        "HOST": server.host,
        "PORT": server.port,
        "USER": server.user,
        "PASSWORD": server.password,
        "NAME": server.database,
        **contender.database,
    }
    plan = {"workers": contender.workers, "threads": contender.threads, "worker_class": "gthread", **contender.options}
    return os.environ | {
        "BENCH_DATABASE": json.dumps(database),
        "BENCH_PLAN": json.dumps(plan | ({"budget": contender.budget} if contender.budget else {})),
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "PYTHONPATH": f"{HERE}:{SOURCE}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def migrate(server: PrivateServer, venv: Path) -> None:
    """One table with a few rows: Django's own content types."""
    code = (
        "import django; django.setup(); from django.core.management import call_command as c; c('migrate', verbosity=0)"
    )
    command = [str(venv / "bin/python"), "-c", code]
    subprocess.run(command, env=environment_of(Contender("", STOCK, 1, 1), server), cwd=HERE, check=True)


@contextmanager
def running(contender: Contender, server: PrivateServer, venv: Path) -> Iterator[int]:
    """Serve the site by this contender; the port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(venv / "bin/python"), "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", "gthread"]
    command += ["-w", str(contender.workers), "--threads", str(contender.threads), "--backlog", "4096"]
    command += ["--keep-alive", "75", "--worker-connections", "1000", "--no-control-socket", "--log-level", "warning"]
    command += ["-c", "python:fullhouse.conf"] if contender.budget else []
    command.append("bench_site:application")
    process = subprocess.Popen(
        command, env=environment_of(contender, server), cwd=HERE, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    try:
        _wait_answer(contender.name, port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_answer(name: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(b"GET /row HTTP/1.0\r\nHost: a\r\n\r\n")
                if client.recv(12).startswith(b"HTTP/1."):
                    return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer; exit code {process.poll()}") from None
            time.sleep(0.1)
