"""What a worker costs on a real site: `python -m benchmarks.memory --venv DIR [--before OLD/src] [--rounds N]`.

A new Wagtail site under `fullhouse serve`, with 2 and 6 workers that have shown the login page of the admin. Memory is
PSS: a page that processes share counts in parts. Then a reload with 8 workers, until the new ones serve.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.processes import family, free_port, serving
from benchmarks.servers.__main__ import prepare
from benchmarks.servers.peers import SOURCE

from fullhouse.supervisor.processes import memory_bytes

FEW, MANY, RELOADED = 2, 6, 8
PAGE = "/admin/login/"
ASKED = 40  # times, for each worker


def make_site(venv: Path, folder: Path) -> None:
    subprocess.run([venv / "bin/wagtail", "start", "mysite", folder], check=True, stdout=subprocess.DEVNULL)
    settings = folder / "mysite/settings/base.py"
    settings.write_text(settings.read_text().replace("django.db.backends.sqlite3", "fullhouse.db.sqlite3"))
    command = [venv / "bin/python", "manage.py", "migrate", "--verbosity=0"]
    subprocess.run(command, cwd=folder, env=environment(SOURCE), check=True)


def environment(source: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(source), "DJANGO_SETTINGS_MODULE": "mysite.settings.dev"}


def megabytes(pid: int) -> float:
    return memory_bytes(pid) / (1 << 20)


class Site:
    """Served with so many workers; what all its processes take together, in MB, and how long a reload takes."""

    def __init__(self, venv: Path, folder: Path, source: Path, workers: int) -> None:
        self._python, self._folder, self._environment = venv / "bin/python", folder, environment(source)
        self._port = free_port()
        command = [self._python, "-m", "fullhouse", "serve", "mysite", f"--bind=127.0.0.1:{self._port}"]
        command += [f"--workers={workers}", "--threads=4"]
        self._serving = serving("fullhouse", command, self._port, PAGE, folder=folder, environment=self._environment)
        self._asked = ASKED * workers

    def memory(self) -> tuple[float, float]:
        """Of all its processes, and of the supervisor alone."""
        with self._serving as supervisor:
            for _ in range(self._asked):
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{PAGE}", timeout=60) as answer:
                    answer.read()
            return sum(map(megabytes, family(supervisor.pid))), megabytes(supervisor.pid)

    def reload_s(self) -> float:
        with self._serving:
            command = [self._python, "-m", "fullhouse", "reload", "mysite", str(self._port)]
            began = time.monotonic()
            subprocess.run(command, cwd=self._folder, env=self._environment, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="where Wagtail is, or gets, installed")
    parser.add_argument("--before", type=Path, help="src of another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    venv = arguments.venv.resolve()
    prepare(venv)
    sources = {"now": SOURCE, **({"before": arguments.before.resolve()} if arguments.before else {})}
    print(f"{'':8}{f'{FEW} workers':>12}{f'{MANY} workers':>12}{'each further':>14}{'supervisor':>12}{'reload':>9}")
    with tempfile.TemporaryDirectory() as folder:
        make_site(venv, Path(folder))
        for name, source in sources.items():
            rounds = []
            for _ in range(arguments.rounds):
                few, supervisor = Site(venv, Path(folder), source, FEW).memory()
                many, _ = Site(venv, Path(folder), source, MANY).memory()
                reload_s = Site(venv, Path(folder), source, RELOADED).reload_s()
                rounds.append((few, many, (many - few) / (MANY - FEW), supervisor, reload_s))
            few, many, each, supervisor, reload_s = map(statistics.median, zip(*rounds, strict=True))
            print(
                f"{name:8}{few:9.0f} MB{many:9.0f} MB{each:11.1f} MB{supervisor:9.1f} MB{reload_s:7.1f} s", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
