"""Static files under `fullhouse serve` and under nginx: `python -m benchmarks.static_files [--rounds N] [--seconds S]`.

Both on this machine with one worker process, keep-alive, no access log, 32 clients of one wrk, in turns; requests per
second, and the processor time of the server for one request. fullhouse answers by WhiteNoise in a thread; nginx by
sendfile.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import cpu_s, free_port, rotated, serving
from benchmarks.servers.peers import SOURCE

import programs

SIZES = {"2 KB": 2 << 10, "20 KB": 20 << 10, "300 KB": 300 << 10}
CLIENTS = 32
WRK_TIMEOUT_S = 60
SETTINGS = """
SECRET_KEY = "for a benchmark"
ALLOWED_HOSTS = ["*"]
DEBUG = False
ROOT_URLCONF = __name__
urlpatterns = []
INSTALLED_APPS = ["django.contrib.staticfiles"]
DATABASES = {}
STATIC_URL = "/static/"
STATIC_ROOT = "static"
"""
NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
    include /etc/nginx/mime.types; access_log off; sendfile on; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; location /static/ {{ alias {folder}/static/; }} }}
}}
"""


@contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Its port and its process."""
    port = free_port()
    if name == "nginx":
        (folder / "nginx.conf").write_text(NGINX.format(port=port, folder=folder))
        command: list[object] = [programs.path("nginx"), "-p", folder, "-c", "nginx.conf"]
    else:
        command = [sys.executable, "-m", "fullhouse", "serve", "site_settings", f"--bind=127.0.0.1:{port}"]
        command += ["--workers=1"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DJANGO_SETTINGS_MODULE": "site_settings"}
    with serving(
        name, command, port, "/static/2 KB.css".replace(" ", "-"), folder=folder, environment=environment
    ) as one:
        yield port, one.pid


def rate(port: int, pid: int, path: str, seconds: int) -> tuple[float, float]:
    """Requests per second, and the server's processor time for one, in microseconds."""
    words = [programs.path("wrk"), "-t1", f"-c{CLIENTS}", f"-d{seconds}", f"http://127.0.0.1:{port}{path}"]
    before = cpu_s(pid)
    output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=WRK_TIMEOUT_S).stdout
    spent = cpu_s(pid) - before
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    assert found is not None, output
    assert "Non-2xx" not in output, output
    return int(found[1]) / float(found[2]), spent / int(found[1]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.static_files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    names = ("fullhouse", "nginx")
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # nginx's worker is another user
        (folder / "static").mkdir()
        (folder / "site_settings.py").write_text(SETTINGS)
        for size, count in SIZES.items():
            (folder / "static" / f"{size.replace(' ', '-')}.css").write_bytes(b"a" * count)
        for round_number in range(arguments.rounds):
            for name in rotated(names, round_number):
                with server(name, folder) as (port, pid):
                    for size in SIZES:
                        path = f"/static/{size.replace(' ', '-')}.css"
                        rate(port, pid, path, 1)  # warmed up
                        found.setdefault((name, size), []).append(rate(port, pid, path, arguments.seconds))
    print(f"medians of {arguments.rounds} rounds of {arguments.seconds} s, {CLIENTS} clients with keep-alive")
    print(f"{'file':8}{'server':12}{'requests/s':>12}{'us of processor each':>22}")
    for size in SIZES:
        for name in names:
            rates, costs = zip(*found[name, size], strict=True)
            print(f"{size:8}{name:12}{statistics.median(rates):12,.0f}{statistics.median(costs):22.0f}")


if __name__ == "__main__":
    main()
