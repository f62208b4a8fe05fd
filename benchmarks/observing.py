"""What it costs to be observed: `PYTHONPATH=tools python -m benchmarks.observing [--starts N] [--rounds N]`.

First a page that says hello, served by one worker, plain, with `observe` (scraped once a second, its page's figures
asked once a second), and with all that tells the time of requests beside it; each is started several times, since two
starts of one server differ, and they are asked in turns by one wrk. Then `/metrics` of 16 workers with 30 routes each.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.processes import START_S, free_port, rotated, serving
from benchmarks.servers.peers import SOURCE

import programs
from fullhouse.observer.look import Look
from fullhouse.observer.prometheus import exposition
from fullhouse.telemetry.board import Board, Writer, create
from fullhouse.telemetry.recorder import Recorded, Recorder
from fullhouse.telemetry.tally import Tally
from fullhouse.telemetry.times import Times

SETTINGS = """
from django.http import HttpResponse
from django.urls import path
SECRET_KEY = "for a benchmark"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
"""
CLIENTS = 16
SECONDS = 1
WRK_TIMEOUT_S = 60
WAYS = {"plain": (), "observed": ("--observe",), "everything": ("--observe", "--slow-request=5", "--server-timing")}
WORKERS, ROUTES, SCRAPES = 16, 30, 50


@contextmanager
def server(way: str, folder: Path) -> Iterator[int]:
    """Its port."""
    port, page = free_port(), free_port()
    options = [option.replace("--observe", f"--observe=127.0.0.1:{page}") for option in WAYS[way]]
    command = [sys.executable, "-m", "fullhouse", "serve", "site_settings", f"--bind=127.0.0.1:{port}", "--workers=1"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DJANGO_SETTINGS_MODULE": "site_settings"}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            for path in ("/metrics", "/state.json", "/history.json"):
                with suppress(OSError, HTTPException):
                    client = HTTPConnection("127.0.0.1", page, timeout=5)
                    client.request("GET", path)
                    client.getresponse().read()
                    client.close()

    with serving(way, [*command, *options], port, "/", folder=folder, environment=environment):
        visitor = threading.Thread(target=watch) if options else None
        if visitor is not None:
            visitor.start()
        try:
            yield port
        finally:
            done.set()
            if visitor is not None:
                visitor.join(10)


def rate(port: int) -> float:
    command = [programs.path("wrk"), "-t1", f"-c{CLIENTS}", f"-d{SECONDS}", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WRK_TIMEOUT_S).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    return float(found[1]) if found else 0.0


def measure_hello(starts: int, rounds: int) -> None:
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for start in range(starts):
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            (folder / "site_settings.py").write_text(SETTINGS)
            ports = {way: stack.enter_context(server(way, folder)) for way in rotated(list(WAYS), start)}
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(rounds + 1):
                for way in rotated(list(WAYS), turn):
                    found[way].append(rate(ports[way]))
            medians = {way: statistics.median(rates[1:]) for way, rates in found.items()}  # the first warms up
        for way, median in medians.items():
            ratios[way].append(median / medians["plain"])
        told = ", ".join(f"{way} {median:,.0f}/s ({ratios[way][-1]:.3f})" for way, median in medians.items())
        print(f"start {start + 1}: {told}", flush=True)
    print(", ".join(f"{way} {statistics.median(found):.3f}" for way, found in ratios.items()), "of plain")


def write_row(path: Path) -> None:
    tally = Tally()
    for number in range(ROUTES):
        times = Times("GET", 0.01)
        times.route, times.status, times.total_s = f"/some/route/{number}/<int:key>/", 200, 0.05
        tally.count(0.05, failed=False, times=times)
    Recorder(Writer(path), Recorded(1, 40, list, str, lambda: 0), tally, None).record(1.0)
    signal.pause()


@contextmanager
def workers(path: Path) -> Iterator[None]:
    """As many processes, each with its row."""
    found: list[int] = []
    try:
        for _ in range(WORKERS):
            if not (pid := os.fork()):
                write_row(path)
            found.append(pid)
        yield
    finally:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def measure_scrape() -> None:
    status = {"uptime_s": 1.0, "crashes": 0, "generations": [], "processes": []}
    took: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "board"
        create(path)
        with workers(path):
            board = Board(path)
            deadline = time.monotonic() + START_S
            while sum(bool(row.series) for row in board.rows()) < WORKERS and time.monotonic() < deadline:
                time.sleep(0.1)
            for _ in range(SCRAPES):
                began = time.perf_counter()
                body, _ = exposition(Look(0.0, 0.0, status, list(board.rows()), []), "")
                took.append(time.perf_counter() - began)
    median, worst = statistics.median(took), max(took)
    print(f"/metrics of {WORKERS} workers with {ROUTES} routes each, {len(body):,} bytes: ", end="")
    print(f"{1000 * median:.1f} ms, at most {1000 * worst:.1f} ms of {SCRAPES}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    measure_scrape()
    measure_hello(arguments.starts, arguments.rounds)


if __name__ == "__main__":
    main()
