"""Who runs the worker's loop, on every kind of page: `python -m benchmarks.ways --venv DIR [--peers ...]`.

Pages x latency of the database x processors x clients. In each cell all servers run, and are asked in turn: our worker
as it is, held to either way of running its loop, and peers. The table shows answers a second, and what our worker
reaches of the better of its two ways and of each peer: medians over many short rounds, since the speed of a shared
machine changes from second to second. Clients that leave are still served: the next server is asked once all are idle.
"""

import argparse
import os
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from math import ceil, inf
from pathlib import Path
from tempfile import NamedTemporaryFile

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tools"))

from benchmarks.connections.contenders import migrate
from benchmarks.processes import cpu_s, rotated
from benchmarks.servers.__main__ import prepare
from benchmarks.servers.load import Closed, closed_loop
from benchmarks.servers.peers import WORKERS, Load, Server, running

import private_servers

OURS = "fullhouse"
CHOOSES_S = 6  # within which our worker has tried its ways on a page
DATABASE_PAGES = ("statement", "row", "rows")
OTHER_PAGES = ("hello", "template", "compute")
DELAYS_MS = (0.0, 0.2, 0.5, 1.0, 5.0)
CLIENTS = (4, 32, 400)
# What a page computes at least. All clients shall have their turn a few times, which may take too long.
PAGE_S = {"template": 0.005, "compute": 0.05}
TURNS, LONGEST_S = 3, 10
QUIET_S, LONGEST_WAIT_S = 0.2, 60


@dataclass(frozen=True)
class Shape:
    """core: the only one of the server; the database and the clients have the others then."""

    workers: int
    threads: int
    core: int | None


LAST_CORE = max(os.sched_getaffinity(0))
SHAPES = {"pinned": Shape(1, 4, LAST_CORE), "shared": Shape(2, 8, None)}


@contextmanager
def confined(shape: Shape) -> Iterator[None]:
    """This process, and what it starts, leave the server's core alone."""
    all_cores = os.sched_getaffinity(0)
    if shape.core is not None:
        os.sched_setaffinity(0, all_cores - {shape.core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def cells(arguments: argparse.Namespace) -> Iterator[tuple[str, float, int]]:
    """Page, delay in ms and clients. A page without a database knows no delay."""
    for page in arguments.pages:
        delays = arguments.delays if page in DATABASE_PAGES else (0.0,)
        clients = [count for count in arguments.clients if seconds_for(page, count) <= LONGEST_S]
        yield from product((page,), delays, clients)


def seconds_for(page: str, clients: int) -> int:
    """How long it is measured at least."""
    return ceil(TURNS * clients * PAGE_S.get(page, 0))


def compare(shape: Shape, names: list[str], arguments: argparse.Namespace) -> None:
    with confined(shape), private_servers.mariadb(max_connections=1000) as database:
        migrate(database, arguments.venv)
        with NamedTemporaryFile() as delay, ExitStack() as stack:
            delay.write(struct.pack("d", 0.0))
            delay.flush()
            load = Load(
                shape.workers, shape.threads, None, database, sites=len(names), core=shape.core, delay=Path(delay.name)
            )
            servers = {
                name: stack.enter_context(running(name, arguments.venv, "query", load, "/hello")) for name in names
            }
            for page, delay_ms, clients in cells(arguments):
                delay.seek(0)
                delay.write(struct.pack("d", delay_ms / 1000))
                delay.flush()
                show(page, delay_ms, clients, measure(servers, page, clients, arguments))


def measure(
    servers: dict[str, Server], page: str, clients: int, arguments: argparse.Namespace
) -> dict[str, list[Closed]]:
    found: dict[str, list[Closed]] = {name: [] for name in servers}
    seconds = max(arguments.seconds, seconds_for(page, clients))
    for number in range(arguments.rounds):
        for name in rotated(list(servers), number):
            server = servers[name]
            if not number:
                closed_loop(server.port, CHOOSES_S if name == OURS else 1, clients, path=f"/{page}")  # warm
                wait_until_quiet(server)
            found[name].append(closed_loop(server.port, seconds, clients, path=f"/{page}"))
            wait_until_quiet(server)
    return found


def wait_until_quiet(server: Server) -> None:
    """Until it has dealt with what its clients have left behind."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    before, after = -1.0, cpu_s(server.process.pid)
    while after - before > 0.05 * QUIET_S and time.monotonic() < deadline:
        time.sleep(QUIET_S)
        before, after = after, cpu_s(server.process.pid)


def head(names: list[str]) -> str:
    others = [name for name in names if name not in (OURS, *WORKERS)]
    return (
        f"{'page':10}{'delay':>7}{'clients':>8}"
        + "".join(f"{name:>14}" for name in names)
        + f"{'/ better way':>14}"
        + "".join(f"{'/ ' + name:>12}{'p99':>7}" for name in others)
    )


def show(page: str, delay_ms: float, clients: int, found: dict[str, list[Closed]]) -> None:
    """Medians over the rounds of rates, of ratios within a round, and of 99th percentiles as a part of the peer's."""
    rates = {name: [one.rate for one in rounds] for name, rounds in found.items()}
    line = f"{page:10}{delay_ms:5g} ms{clients:8}"
    line += "".join(f"{statistics.median(rates[name]):14.0f}" for name in rates)
    ways = [statistics.median(ratios(rates, name)) for name in rates if name in WORKERS]
    line += f"{min(ways):14.2f}" if ways else f"{'':14}"
    for name in rates:
        if name not in (OURS, *WORKERS):
            p99s = {who: [one.p99_s for one in rounds] for who, rounds in found.items()}
            line += f"{statistics.median(ratios(rates, name)):12.2f}{statistics.median(ratios(p99s, name)):7.2f}"
    print(line, flush=True)


def ratios(figures: dict[str, list[float]], other: str) -> list[float]:
    """What our worker reached in each round, of what `other` did."""
    return [ours / theirs if theirs else inf for ours, theirs in zip(figures[OURS], figures[other], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ways", description=(__doc__ or "").splitlines()[0])

    def several(kind: type) -> dict[str, object]:
        return {"type": lambda text: [kind(word) for word in text.split(",")]}

    parser.add_argument("--venv", type=Path, required=True, help="where the peers are, or get, installed")
    parser.add_argument("--peers", default="", help="others beside our worker's ways: gthread,granian")
    parser.add_argument("--no-ways", dest="ways", action="store_false", help="our worker as it is, and peers")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="which of " + ", ".join(SHAPES))
    parser.add_argument("--pages", default=[*OTHER_PAGES, *DATABASE_PAGES], **several(str))
    parser.add_argument(
        "--delays", default=list(DELAYS_MS), help="added to each answer of the database, ms", **several(float)
    )
    parser.add_argument("--clients", default=list(CLIENTS), **several(int))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=1, help="for each measurement")
    arguments = parser.parse_args()
    arguments.venv = arguments.venv.resolve()
    prepare(arguments.venv)
    names = [OURS, *(WORKERS if arguments.ways else ()), *filter(None, arguments.peers.split(","))]
    for name in arguments.shapes.split(","):
        shape = SHAPES[name]
        where = "on all cores" if shape.core is None else "pinned to a core of its own"
        print(f"\n{name}: {shape.workers} worker(s) of {shape.threads} threads, {where}; answers a second")
        print(head(names))
        compare(shape, names, arguments)


if __name__ == "__main__":
    main()
