"""Compare the worker with its peers: `python -m benchmarks.servers --venv DIR [--rounds N] [--rows ...]`.

Every round starts each server in turn on the same load, each round with another first, so that what else the machine
does hits all alike.
What counts is the ratio within a round; the table shows the median over the rounds, and how far they spread.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import venv as virtualenv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tools"))

from benchmarks.connections.contenders import migrate
from benchmarks.processes import rotated
from benchmarks.servers import load as clients
from benchmarks.servers.peers import HERE, OTHERS, PEERS, Load, Server, running

import private_servers
from private_servers import PrivateServer

Measure = Callable[[Server, int], float]


def _rate(count: int = 32, script: str = "") -> Measure:
    def measure(server: Server, seconds: int) -> float:
        if not script:
            return clients.requests_per_second(server.port, seconds, count)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            return clients.requests_per_second(server.port, seconds, count, Path(file.name))

    return measure


def _kept_rate(kind: str, count: int) -> Measure:
    """The share of the unloaded rate that is left while `count` slow clients are attached."""

    def measure(server: Server, seconds: int) -> float:
        before = clients.requests_per_second(server.port, seconds, 32)
        with clients.attached(server.port, kind, count):
            clients.requests_per_second(server.port, seconds, 32)  # until all of them have been begun with
            loaded = clients.requests_per_second(server.port, seconds, 32)
        after = clients.requests_per_second(server.port, seconds, 32)
        return loaded / ((before + after) / 2)

    return measure


def _memory_per_idle(server: Server, seconds: int) -> float:
    """KB of resident memory for each of 5,000 idle connections."""
    before = server.memory_bytes()
    with clients.attached(server.port, "idle", 5000):
        return (server.memory_bytes() - before) / 5000 / 1024


def _p99_ms(server: Server, seconds: int) -> float:
    """The 99th percentile at a rate that is about half of what the slowest of the servers can do."""
    found = clients.latencies_s(server.port, 800, seconds)
    return found[int(len(found) * 0.99)] * 1000


@dataclass(frozen=True)
class Row:
    title: str
    app: str
    measure: Measure
    access_log: bool = False
    database: str = ""  # the private server that the app queries
    lower_is_better: bool = False
    absolute: bool = False  # the figure itself matters, not its ratio
    leave_out: tuple[str, ...] = field(default=())


ROWS = {
    "bare": Row("bare WSGI callable, 32 clients", "bare", _rate()),
    "hello": Row("Django hello, 32 clients", "hello", _rate()),
    "log": Row("Django hello, access log on", "hello", _rate(), access_log=True, leave_out=("waitress",)),
    "orm-mariadb": Row("one ORM query on MariaDB, 32 clients", "orm", _rate(), database="mariadb"),
    "orm-postgresql": Row("one ORM query on PostgreSQL, 32 clients", "orm", _rate(), database="postgresql"),
    "large": Row("1 MB response, 8 clients", "large", _rate(8)),
    "upload": Row("1 MB upload, 8 clients", "upload", _rate(8, clients.UPLOAD_SCRIPT)),
    "slow-bodies": Row("rate kept with 500 slow bodies", "hello", _kept_rate("bodies", 500), absolute=True),
    "slow-headers": Row("rate kept with 500 slow headers", "hello", _kept_rate("headers", 500), absolute=True),
    "slow-readers": Row("rate kept with 500 slow readers", "large", _kept_rate("readers", 500), absolute=True),
    "idle": Row("rate kept with 5,000 idle connections", "hello", _kept_rate("idle", 5000), absolute=True),
    "idle-memory": Row("KB per idle connection", "hello", _memory_per_idle, absolute=True, lower_is_better=True),
    "p99": Row("p99 in ms at 800 requests/s", "hello", _p99_ms, absolute=True, lower_is_better=True),
}


def prepare(venv: Path) -> None:
    """Install what the peers lack in `venv`."""
    if not (venv / "bin/python").exists():
        virtualenv.create(venv, with_pip=True)
    pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)


@contextmanager
def database_of(row: Row, venv: Path) -> Iterator[PrivateServer | None]:
    if not row.database:
        yield None
        return
    with getattr(private_servers, row.database)(max_connections=1000) as server:
        migrate(server, venv)
        yield server


def measure_round(
    row: Row, names: list[str], venv: Path, database: PrivateServer | None, settings: argparse.Namespace
) -> dict[str, float]:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            log = Path(folder) / f"{name}.log" if row.access_log else None
            load = Load(settings.workers, settings.threads, log, database, before=settings.before)
            with running(name, venv, row.app, load) as server:
                clients.requests_per_second(server.port, 1, 8)  # warm
                try:
                    figures[name] = row.measure(server, settings.seconds)
                except OSError as error:
                    print(f"  {name}: {error}", file=sys.stderr)
                    figures[name] = float("nan")
    return figures


def show(row: Row, rounds: list[dict[str, float]]) -> None:
    unit = "figure" if row.absolute else "per second"
    print(f"\n{row.title}\n{'':14}{unit:>12}  ours / theirs (lowest - highest)")
    for name in rounds[0]:
        figure = statistics.median(figures[name] for figures in rounds)
        ratios = [figures["fullhouse"] / figures[name] for figures in rounds if figures[name]]
        low, middle, high = min(ratios, default=0), statistics.median(ratios or [0]), max(ratios, default=0)
        print(f"{name:14}{figure:12.2f}  {middle:6.2f} ({low:.2f} - {high:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="where the peers are, or get, installed")
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows, of " + ", ".join(ROWS))
    parser.add_argument("--peers", default=",".join(OTHERS), help="which peers; ours is always measured")
    parser.add_argument("--before", type=Path, help="src of another checkout, which is then a peer of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="for each measurement")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    settings = parser.parse_args()
    venv = settings.venv.resolve()
    prepare(venv)
    peers = ["fullhouse", *(["before"] if settings.before else []), *settings.peers.split(",")]
    for row in (ROWS[key] for key in settings.rows.split(",")):
        names = [name for name in PEERS if name in peers and name not in row.leave_out]
        with database_of(row, venv) as database:
            rounds = range(settings.rounds)
            show(row, [measure_round(row, rotated(names, number), venv, database, settings) for number in rounds])


if __name__ == "__main__":
    main()
