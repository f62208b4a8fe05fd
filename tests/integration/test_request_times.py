"""Where the time of requests went, as a served site tells it that uses a real database."""

import json
import re
from http.client import HTTPConnection
from pathlib import Path

import pytest

from private_servers import PrivateServer
from supervised import DEADLINE_S, Site, Supervised, wait_until

SLEEP = {"mysql": "SELECT SLEEP(0.2)", "postgresql": "SELECT pg_sleep(0.2)"}
URLS = """
import threading
from django.db import connection
from django.http import HttpResponse
from django.urls import include, path

def seats(request, number):
    with connection.cursor() as cursor:
        for _ in range(number):
            cursor.execute({sleep!r})
    return HttpResponse("seats")

urlpatterns = [path("shop/", include([path("seats/<int:number>/", seats)]))]
"""


def server_timing(running: Supervised, path: str) -> dict[str, float]:
    """In seconds."""
    client = HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)
    client.request("GET", path)
    value = client.getresponse().headers["Server-Timing"]
    client.close()
    return {name: float(ms) / 1000 for name, ms in re.findall(r"(\w+);dur=([\d.]+)", value)}


@pytest.mark.parametrize("vendor", ["mysql", "postgresql"])
def test_statements_and_routes_are_told(tmp_path: Path, vendor: str, request: pytest.FixtureRequest) -> None:
    server: PrivateServer = request.getfixturevalue(f"{vendor}_server")
    site = Site(tmp_path / "site")
    site.use_database(server)
    site.write("urls", URLS.format(sleep=SLEEP[vendor]))
    log = tmp_path / "access.log"
    options = ("--server-timing", "--slow-request=0.3", f"--access-log={log}", "--access-log-format=json")
    with site.served(*options, workers=1) as running:
        times = server_timing(running, "/shop/seats/3/")
        assert times["statements"] >= 0.6
        assert times["statements"] <= times["total"]
        line = wait_until(lambda: re.search(r"A slow request: .*", running.output), "the slow request was logged")[0]
        assert line.startswith("A slow request: GET /shop/seats/3/ (/shop/seats/<int:number>/) 200, ")
        assert line.endswith("; 3 statements")
        server_timing(running, "/nothing")
        lines = wait_until(lambda: two if len(two := log.read_text().splitlines()) == 2 else None, "two lines")
        found, missing = map(json.loads, lines)
        assert (found["http.route"], found["statements"]) == ("/shop/seats/<int:number>/", 3)
        assert (missing["http.response.status_code"], missing.get("http.route")) == (404, None)


def test_a_foreign_worker_is_refused_what_it_does_not_have(tmp_path: Path) -> None:
    answer = Site(tmp_path / "site").command(
        "serve", "mysite", "--worker-class=gthread", "--access-log-format=json", "--slow-request=1"
    )
    assert answer.returncode == 2
    assert "gthread does not know slow_request (--slow-request), access_log_format = json" in answer.stderr
