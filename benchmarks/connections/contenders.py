"""Who is compared: gunicorn each time, with different engines, workers, threads and connections."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import free_port, serving

from private_servers import PrivateServer

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
STOCK = {"mariadb": "django.db.backends.mysql", "postgresql": "django.db.backends.postgresql"}
OURS = {"mariadb": "fullhouse.db.mysql", "postgresql": "fullhouse.db.postgresql"}
THEIRS = {"mariadb": "dj_db_conn_pool.backends.mysql", "postgresql": "dj_db_conn_pool.backends.postgresql"}
OUR_WORKER = "fullhouse.worker.Worker"

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
    worker_class: str = "gthread"
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
    plan = {
        "workers": contender.workers,
        "threads": contender.threads,
        "worker_class": contender.worker_class,
        **contender.options,
    }
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
    port = free_port()
    command = [str(venv / "bin/python"), "-m", "gunicorn", "-b", f"127.0.0.1:{port}"]
    command += ["-w", str(contender.workers), "--threads", str(contender.threads), "--backlog", "4096"]
    command += ["--keep-alive", "75", "--worker-connections", "1000", "--no-control-socket", "--log-level", "warning"]
    command += ["-c", "python:fullhouse.conf"] if contender.budget else ["-k", contender.worker_class]
    command.append("bench_site:application")
    environment = environment_of(contender, server)
    with serving(contender.name, command, port, "/row", folder=HERE, environment=environment):
        yield port
