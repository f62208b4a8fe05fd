"""Compare connection handling: `python -m benchmarks.connections --venv DIR [--rounds N] [--seconds S]`.

Every contender is gunicorn's gthread, or our own worker where the name says so, with the same keep-alive and no access
log; 400 keep-alive clients of wrk. A round serves each contender in turn on one private server, each round beginning
with another one, warms it up, and measures it. What counts is the ratio to ours within a round; the table shows medians
over the rounds. An observer counts the sessions on the server meanwhile.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import threading
import venv as virtualenv
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from benchmarks.connections.contenders import (  # noqa: E402
    HERE,
    OUR_WORKER,
    OURS,
    PERSISTENT,
    SOURCE,
    STOCK,
    Contender,
    migrate,
    pooled_by_sqlalchemy,
    recipe,
    running,
)
from benchmarks.processes import rotated  # noqa: E402

import private_servers  # noqa: E402
import programs  # noqa: E402
from private_servers import PrivateServer  # noqa: E402

CLIENTS = 400
LIMIT = 151  # MariaDB's default for max_connections, which the recipe is computed from
UNLIMITED = 1000  # what the server really grants, so that only the contenders' own arithmetic holds them back
MANY = 100  # threads of each of two workers, where threads are not bound to connections
FEW = 16  # threads of each of two workers, for the small query


@dataclass(frozen=True)
class Comparison:
    """One table of the output: a path, and who serves it. The first contender is ours."""

    title: str
    path: str
    contenders: tuple[Contender, ...]


def comparisons(cores: int) -> list[Comparison]:
    workers, threads = recipe(LIMIT, cores)
    return [
        Comparison(
            f"two 5 ms queries around 100 ms of other work (the recipe for {LIMIT} connections: {workers} × {threads})",
            "/page",
            (
                Contender(f"ours, 20 connections, 2 × {MANY} threads", OURS, 2, MANY, budget=20),
                Contender("the same, our own worker", OURS, 2, MANY, budget=20, worker_class=OUR_WORKER),
                pooled_by_sqlalchemy(f"recipe, {workers} × {threads} threads", workers, threads),
                Contender(f"unlimited connections, 2 × {MANY} threads", STOCK, 2, MANY, PERSISTENT),
            ),
        ),
        Comparison(
            f"one small ORM query, 2 × {FEW} threads",
            "/row",
            (
                Contender("ours", OURS, 2, FEW, budget=2 * FEW),
                Contender("the same, our own worker", OURS, 2, FEW, budget=2 * FEW, worker_class=OUR_WORKER),
                Contender("CONN_MAX_AGE=None", STOCK, 2, FEW, PERSISTENT),
                pooled_by_sqlalchemy("django-db-connection-pool", 2, FEW),
            ),
        ),
    ]


@dataclass(frozen=True)
class Result:
    """rate: answers of 2xx per second. errors: other answers and broken connections. sessions: the most seen."""

    rate: float
    errors: int
    sessions: int


def measure(contender: Contender, path: str, server: PrivateServer, venv: Path, seconds: int) -> Result:
    with running(contender, server, venv) as port:
        _wrk(port, path, 2)  # warm-up
        with watched_sessions(server) as seen:
            rate, errors = _wrk(port, path, seconds)
    return Result(rate, errors, max(seen))


def _wrk(port: int, path: str, seconds: int) -> tuple[float, int]:
    command = [
        programs.path("wrk"),
        "-t1",
        f"-c{CLIENTS}",
        f"-d{seconds}",
        "--timeout",
        "20",
        f"http://127.0.0.1:{port}{path}",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(_found(r"(\d+) requests in", output))
    broken = [int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", output)]
    failed = int(_found(r"Non-2xx or 3xx responses: (\d+)", output) or 0)
    return (requests - failed) / seconds, failed + sum(broken)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


@contextmanager
def watched_sessions(server: PrivateServer) -> Iterator[list[int]]:
    """How many sessions of the site's user the server has, looked at ten times a second by an administrator."""
    seen, stop = [0], threading.Event()

    def watch() -> None:
        with closing(_administrator(server)) as connection, closing(connection.cursor()) as cursor:
            while not stop.wait(0.1):
                cursor.execute(COUNT[server.engine], (server.user,))
                seen.append(cursor.fetchone()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


COUNT = {
    "mariadb": "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s",
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = %s",
}


def _administrator(server: PrivateServer) -> Any:
    account = {"user": server.admin_user, "password": server.admin_password, "host": server.host}
    if server.engine == "mariadb":
        import MySQLdb

        return MySQLdb.connect(port=int(server.port), autocommit=True, **account)
    import psycopg

    return psycopg.connect(port=server.port, dbname=server.database, autocommit=True, **account)


def compare(comparison: Comparison, server: PrivateServer, venv: Path, rounds: int, seconds: int) -> None:
    results: dict[str, list[Result]] = defaultdict(list)
    for number in range(rounds):
        for contender in rotated(comparison.contenders, number):
            print(f"\r  round {number + 1} of {rounds}: {contender.name:<60}", end="", file=sys.stderr, flush=True)
            results[contender.name].append(measure(contender, comparison.path, server, venv, seconds))
    print("\r" + " " * 90 + "\r", end="", file=sys.stderr)
    ours = results[comparison.contenders[0].name]
    print(f"\n{server.engine}: {comparison.title}")
    print(f"  {'':<44}{'requests/s':>11}{'ours ÷ it':>11}{'errors':>8}{'sessions':>10}")
    for name in (contender.name for contender in comparison.contenders):
        found = results[name]
        ratio = statistics.median(mine.rate / its.rate for mine, its in zip(ours, found, strict=True))
        rate = statistics.median(result.rate for result in found)
        errors, sessions = sum(result.errors for result in found), max(result.sessions for result in found)
        print(f"  {name:<44}{rate:>11,.0f}{ratio:>11.2f}{errors:>8}{sessions:>10}", flush=True)


def prepare(venv: Path) -> None:
    """Make the contenders' environment, if it is not there."""
    if not (venv / "bin/python").exists():
        virtualenv.create(venv, with_pip=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / "build" / "bench-connections")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--server", choices=["mariadb", "postgresql"], help="one of the two only")
    arguments = parser.parse_args()
    venv = arguments.venv.resolve()
    prepare(venv)
    cores = len(os.sched_getaffinity(0))
    print(f"{arguments.rounds} rounds of {arguments.seconds} s, {CLIENTS} clients, {cores} cores, medians")
    for engine in [arguments.server] if arguments.server else ["mariadb", "postgresql"]:
        with getattr(private_servers, engine)(max_connections=UNLIMITED) as server:
            migrate(server, venv)
            for comparison in comparisons(cores):
                compare(comparison, server, venv, arguments.rounds, arguments.seconds)
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "pool_checkout.py")],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        check=True,
    )


if __name__ == "__main__":
    main()
