"""Too much work, and work that does not end, on real servers and processes."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from dbsupport import Observer
from private_servers import PrivateServer
from supervised import DEADLINE_S, Site, Supervised, wait_until

SLEEP = {"mysql": "SELECT SLEEP(600)", "postgresql": "SELECT pg_sleep(600)"}
URLS = """
import threading, time
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

held = threading.Event()

def home(request):
    return HttpResponse("version 1")

def query(request):
    connection.cursor().execute({sleep!r})
    return HttpResponse("not cancelled")

def hang(request):
    time.sleep(600)

def long(request):
    time.sleep(10)
    return HttpResponse("not hurried")

def hold(request):
    held.wait(600)
    return HttpResponse("held")

def release(request):
    held.set()
    return HttpResponse("released")

def grow(request):
    held.memory = bytearray(300 << 20)
    return HttpResponse("grown")

urlpatterns = [path(view.__name__, view) for view in (query, hang, long, hold, release, grow)] + [path("", home)]
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.write("urls", URLS.format(sleep=""))
    return site


def on_database(site: Site, server: PrivateServer, **pool: Any) -> Site:
    site.use_database(server, pool or True)
    site.write("urls", URLS.format(sleep=SLEEP[server.vendor]))
    return site


def ask(running: Supervised, path: str) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers."""
    with closing(HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())


def test_stuck_queries_are_cancelled_on_the_server_and_no_worker_dies(site: Site, server: PrivateServer) -> None:
    threads = 4
    on_database(site, server)
    with (
        closing(Observer(server)) as observer,
        site.served("--request-timeout", "1", "--threads", str(threads), "--budget", "8", workers=1) as running,
        ThreadPoolExecutor(threads) as clients,
    ):
        before = running.workers()
        answers = list(clients.map(lambda _: ask(running, "/query"), range(threads)))
        assert [(status, headers["Retry-After"].isdigit()) for status, _, headers in answers] == [(503, True)] * threads
        wait_until(lambda: observer.transactions() == 0, "nothing ran on the server any more")
        with ThreadPoolExecutor(threads) as more:
            assert [text for _, text, _ in more.map(lambda _: ask(running, "/"), range(20))] == ["version 1"] * 20
        assert running.workers() == before
        assert running.output.count("A request exceeded its time limit: GET /query") == threads
        assert running.output.count(f"running SQL: {SLEEP[server.vendor]}") == threads
        assert "in query" in running.output  # the stack
        assert "cannot be cancelled" not in running.output


def test_a_request_that_cannot_be_ended_has_its_worker_replaced_and_harms_no_other(site: Site) -> None:
    with site.served("--request-timeout", "600", "--request-timeouts", "/hang=1", workers=1) as running:
        (stuck,) = running.workers()
        with ThreadPoolExecutor(1) as clients:
            other = clients.submit(ask, running, "/long")
            assert ask(running, "/hang")[0] == 503
            wait_until(lambda: "A request does not end: GET /hang" in running.output, "the worker was given up")
            assert other.result()[:2] == (200, "not hurried")
        running.wait_whole(workers=1)
        assert stuck not in running.workers()


def test_a_pool_that_is_exhausted_is_503_and_not_500(site: Site, server: PrivateServer) -> None:
    on_database(site, server, checkout_timeout=0.2)
    with site.served("--budget", "1", "--threads", "4", workers=1) as running, ThreadPoolExecutor(1) as clients:
        clients.submit(ask, running, "/query")
        wait_until(lambda: '"in_use": 1' in status_of(site, running), "the only connection was taken")
        status, text, headers = ask(running, "/query")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "no database connection came free in time" in text
        running.signal(signal.SIGQUIT)
    with closing(Observer(server)) as observer:
        for session in observer.sessions():  # which sleeps on, and does not see that its client has gone
            observer.kill(session)


def test_a_full_queue_is_answered_at_once_and_probes_and_critical_paths_pass(site: Site) -> None:
    page = site.folder / "busy.html"
    page.write_text("<h1>Please come back</h1>")
    options = ("--threads", "1", "--queue-limit", "2", "--overload-page", str(page), "--critical-paths", "/release")
    with site.served(*options, workers=1) as running, ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(ask, running, "/hold")]
        wait_until(lambda: '"busy": 1' in status_of(site, running), "the only thread ran it")
        waiting += [clients.submit(ask, running, "/hold") for _ in range(2)]
        wait_until(lambda: '"queued": 2' in status_of(site, running), "the queue was full")
        assert running.status("/-/ready") == 200
        # The oldest that waits makes place for what comes, and is answered at once.
        critical = clients.submit(ask, running, "/release")
        wait_until(lambda: any(one.done() for one in waiting), "one that waited was shed")
        (shed,) = [one.result() for one in waiting if one.done()]
        assert (shed[0], shed[1]) == (503, "<h1>Please come back</h1>")
        assert int(shed[2]["Retry-After"]) >= 1
        assert shed[2]["Connection"] == "keep-alive"
        assert not critical.done()
        running.signal(signal.SIGQUIT)


def status_of(site: Site, running: Supervised) -> str:
    return site.command("status", site.name, str(running.port), "--format", "json").stdout


def test_requests_that_a_stop_cuts_are_told_with_their_stack(site: Site) -> None:
    with site.served("--graceful-timeout", "1", workers=1) as running, ThreadPoolExecutor(1) as clients:
        clients.submit(ask, running, "/hold")
        wait_until(lambda: 'busy": 1' in status_of(site, running), "the request ran")
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert "A request is cut: GET /hold, running for" in running.output
        assert "held.wait(600)" in running.output


def test_a_worker_that_has_grown_too_large_is_replaced(site: Site) -> None:
    with site.served("--max-worker-memory", "200M", workers=1) as running:
        (large,) = running.workers()
        assert ask(running, "/grow")[1] == "grown"
        wait_until(lambda: large not in running.workers(), "the large worker was gone")
        running.wait_whole(workers=1)
        assert "will be replaced" in running.output
