"""More than a server can do: `python -m benchmarks.overload --venv DIR [--seconds N] [--rows ...] [--peers ...]`.

Each server is started anew for each row, with the same workers, threads and, where there is a database, sessions.
Its peak is measured first, with a closed loop of a few clients, and its latency at a fifth of that. Then ten and three
times the peak *of fullhouse* are offered to every server, in an open loop.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tools"))

from benchmarks.overload.crowd import crowd as come_at_once
from benchmarks.servers import load as clients
from benchmarks.servers.__main__ import prepare
from benchmarks.servers.peers import OTHERS, Load, Server, running

import private_servers
from fullhouse.tune.load import Answers, Stream, offer

GOOD_S = 1.0  # an answer later than this is of no use to anybody
SETTLE_S = 2.0  # after the load has fallen
PAGES = {"compute": "a page that computes for 50 ms", "query": "a page with one query of 50 ms"}
FACTORS = (3, 10)
CROWD_PEERS = ("fullhouse", "gthread")
CROWD_THREADS = 4  # in each worker: one load generator can offer twelve times what they serve


@dataclass(frozen=True)
class Trial:
    """What every server is tried with. peak: requests/s that all are offered multiples of; None: its own."""

    app: str
    venv: Path
    load: Load
    seconds: int
    peak: float | None = None


def percentages(good: float, peak: float) -> str:
    return f"{100 * good / peak:5.0f} %"


def overload(name: str, trial: Trial) -> float:
    """Print how one server fares; its own peak in requests/s."""
    with running(name, trial.venv, trial.app, trial.load) as server:
        clients.requests_per_second(server.port, 2, 8)
        own = clients.requests_per_second(server.port, 5, 2 * trial.load.workers * (1 if trial.app == "compute" else 8))
        peak = trial.peak or own
        unloaded = offer(server.port, 5, Stream("/", own / 5))[0].latency_s(0.99)
        print(f"  {name:12} peak {own:6.1f}/s, p99 unloaded {1000 * unloaded:4.0f} ms", flush=True)
        before = server.memory_bytes()
        for factor in FACTORS:
            answers = offer(server.port, trial.seconds, Stream("/", factor * peak))[0]
            print(f"    {factor:2} x offered   {_line(answers, own, unloaded)}", flush=True)
        half = offer(server.port, 2 * SETTLE_S + 2, Stream("/", own / 2))[0]
        print(f"    half again     {_line(half, own / 2, unloaded, SETTLE_S)} (from {SETTLE_S:g} s on)")
        print(f"    memory         {(server.memory_bytes() - before) / 1e6:+.1f} MB", flush=True)
        return own


def _line(answers: Answers, peak: float, unloaded: float, since_s: float = 0.0) -> str:
    good, p99 = answers.within(GOOD_S, since_s), answers.latency_s(0.99, since_s)
    return (
        f"good {percentages(good, peak)}   p99 of the admitted {1000 * p99:6.0f} ms ({p99 / unloaded:5.1f} x)   "
        f"shed {100 * answers.share(503):3.0f} %   unanswered {100 * answers.share(0):3.0f} %   "
        f"(asked at most {1000 * answers.late_s:.0f} ms late)"
    )


def compare(app: str, peers: Sequence[str], arguments: argparse.Namespace) -> None:
    print(f"\n{PAGES[app]}; good: within {GOOD_S:g} s, in percent of the server's own peak")
    database = private_servers.mariadb(max_connections=1000) if app == "query" else nullcontext()
    with database as server:
        load = Load(arguments.workers, arguments.threads, None, server)
        peak = None
        for name in peers:
            found = overload(name, Trial(app, arguments.venv, load, arguments.seconds, peak))
            peak = peak or found


@contextmanager
def our_site(arguments: argparse.Namespace, threads: int, **options: object) -> Iterator[Server]:
    """fullhouse on the query page, with these options for its overload."""
    with private_servers.mariadb(max_connections=1000) as database:
        load = Load(arguments.workers, threads, None, database, tuple(options.items()))
        with running("fullhouse", arguments.venv, "query", load) as server:
            clients.requests_per_second(server.port, 2, 8)
            yield server


def stuck(arguments: argparse.Namespace) -> None:
    """All threads in a query that does not end, with a request timeout of 2 s."""
    print("\nall threads in SELECT SLEEP(600), request_timeout 2 s")
    with our_site(arguments, arguments.threads, request_timeout=2.0) as server:
        threads = arguments.workers * arguments.threads
        hung = threading.Thread(target=lambda: found.extend(offer(server.port, 1, Stream("/stuck", 2.0 * threads))))
        found: list[Answers] = []
        hung.start()
        time.sleep(7)
        after = offer(server.port, 5, Stream("/", 20))[0]
        hung.join()
        print(f"  answered 503   {100 * found[0].share(503):.0f} % of {len(found[0].found)}")
        print(f"  then           {_line(after, 20, 0.055)}", flush=True)


def flood(arguments: argparse.Namespace) -> None:
    """One address floods, others ask at a rate that the server could do."""
    print("\none client floods with ten times the peak; 10 others ask for half of the peak; client_share 0.1")
    with our_site(arguments, CROWD_THREADS, client_share=0.1) as server:
        peak = clients.requests_per_second(server.port, 5, 2 * arguments.workers * CROWD_THREADS)
        others = [Stream("/", peak / 20, f"127.0.0.{number}") for number in range(10, 20)]
        alone = sum(one.within(GOOD_S) for one in offer(server.port, arguments.seconds / 2, *others))
        answers = offer(server.port, arguments.seconds, Stream("/", 10 * peak, "127.0.0.2"), *others)
        good = sum(one.within(GOOD_S) for one in answers[1:])
        late_s = max(one.late_s for one in answers)
        print(
            f"  the others keep {percentages(good, alone)} of their goodput (asked at most {late_s:.3f} s late)",
            flush=True,
        )


def spike(arguments: argparse.Namespace) -> None:
    """Twelve times the peak of sheddable requests beside a few critical ones."""
    print("\nsheddable requests spike to 12 times the peak; critical ones ask for a fifth of it")
    with our_site(arguments, CROWD_THREADS, sheddable_paths=["/"], critical_paths=["/query"]) as server:
        peak = clients.requests_per_second(server.port, 5, 2 * arguments.workers * CROWD_THREADS)
        critical, sheddable = offer(server.port, arguments.seconds, Stream("/query", peak / 5), Stream("/", 12 * peak))
        answered = 100 * sum(200 <= status < 300 for _, status, _ in critical.found) / len(critical.found)
        print(f"  critical: {answered:.2f} % of {len(critical.found)} answered, p99 {critical.latency_s(0.99):.3f} s")
        late_s = max(critical.late_s, sheddable.late_s)
        print(f"  sheddable: {100 * sheddable.share(503):.0f} % shed (asked at most {late_s:.3f} s late)", flush=True)


def crowd(arguments: argparse.Namespace) -> None:
    """Clients that come at once, to new workers and to such as have answered before."""
    print("\nclients that come at once, each with 4 requests one after the other (1 where that takes a minute)")
    print(f"  {'page':>6} {'clients':>8} {'workers':>8}   " + "".join(f"{name:>33}" for name in CROWD_PEERS))
    load = Load(arguments.workers, arguments.threads)
    for page_ms, count, cold in product((5, 80, 600), (60, 400), (True, False)):
        requests = 1 if count * page_ms > 15_000 else 4
        line = f"  {page_ms:3} ms {count:8} {'new' if cold else 'warm':>8}   "
        for name in CROWD_PEERS:
            with running(name, arguments.venv, "page", load) as server:
                if not cold:
                    offer(server.port, 3, Stream("/5", 20.0))
                answers = come_at_once(server.port, f"/{page_ms}", count, requests)
            good, shed = (100 * answers.share(status) for status in (200, 503))
            line += f"{good:6.1f} % 200 {shed:5.1f} % 503 {answers.seconds:6.1f} s"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    rows = {**dict.fromkeys(PAGES), "stuck": stuck, "crowd": crowd, "flood": flood, "spike": spike}
    parser.add_argument("--venv", type=Path, required=True, help="where the peers are, or get, installed")
    parser.add_argument("--rows", default=",".join(rows), help="which rows, of " + ", ".join(rows))
    parser.add_argument("--peers", default=",".join(OTHERS), help="which servers; ours comes first")
    parser.add_argument("--seconds", type=int, default=60, help="of each overload")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    arguments.venv = arguments.venv.resolve()
    prepare(arguments.venv)
    peers = ["fullhouse", *(name for name in arguments.peers.split(",") if name != "fullhouse")]
    print(f"open loop, {arguments.seconds} s each, {arguments.workers} workers x {arguments.threads} threads")
    for row in arguments.rows.split(","):
        run = rows[row]
        if run is None:
            compare(row, peers, arguments)
        else:
            run(arguments)


if __name__ == "__main__":
    main()
