"""What every thread of a served site is at, told from inside: on real databases, and by workers that cannot answer."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from threading import Thread

import pytest

from dbsupport import Observer
from fullhouse.private_folder import runtime_folder
from private_servers import PrivateServer
from supervised import DEADLINE_S, Site, Supervised, wait_until

SLEEP = {"mysql": "SELECT SLEEP(60)", "postgresql": "SELECT pg_sleep(60)"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@contextmanager
def asked(running: Supervised, path: str) -> Iterator[None]:
    """A request for the path is under way, and is left when the block ends, with its server's processes."""

    def ask() -> None:
        with suppress(OSError, HTTPException, AssertionError):
            running.get(path, timeout=DEADLINE_S)

    client = Thread(target=ask)
    client.start()
    yield
    running.signal(signal.SIGKILL)
    client.join(DEADLINE_S)


@contextmanager
def statements_end(server: PrivateServer) -> Iterator[None]:
    """After the block. A server that is in a statement does not notice that its client was killed."""
    with closing(Observer(server)) as observer:
        yield
        for session in observer.sessions():
            observer.kill(session)


def dump(site: Site, running: Supervised) -> str:
    answer = site.command("dump", site.name, str(running.port))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("vendor", ["mysql", "postgresql"])
def test_a_dump_shows_the_request_its_statement_and_its_stack(
    site: Site, vendor: str, request: pytest.FixtureRequest
) -> None:
    server: PrivateServer = request.getfixturevalue(f"{vendor}_server")
    site.use_database(server)
    view = f"from django.db import connection\n    connection.cursor().execute({SLEEP[vendor]!r})\n    time.sleep(1)"
    site.write("urls", (site.folder / site.name / "urls.py").read_text().replace("time.sleep(1)", view))
    with site.served(workers=2) as running, asked(running, "/slow"), statements_end(server):
        text = wait_until(lambda: found if "GET /slow" in (found := dump(site, running)) else "", "the view was seen")
        assert text.count("worker ") >= 2
        assert f"running SQL: {SLEEP[vendor]}" in text
        assert 'mysite/urls.py", line' in text
        assert "MainThread" in text
        running.signal(signal.SIGUSR2)
        wait_until(lambda: running.output.count("[WARNING] The threads of this worker:") == 2, "both workers logged it")
        assert f"running SQL: {SLEEP[vendor]}" in running.output


def test_a_worker_that_cannot_answer_is_told(site: Site) -> None:
    with site.served(workers=1) as running:
        (worker,) = running.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            text = dump(site, running)
        finally:
            os.kill(worker, signal.SIGCONT)
    assert f"worker {worker}\n\nno answer within 5 s" in text


def test_a_worker_of_gunicorns_own_tells_its_stacks(site: Site) -> None:
    site.write("urls", (site.folder / site.name / "urls.py").read_text().replace("time.sleep(1)", "time.sleep(60)"))
    with site.served("--worker-class=gthread", workers=1) as running, asked(running, "/slow"):
        wait_until(lambda: "in slow" in dump(site, running), "the view was seen")


def test_nothing_of_a_dump_is_left(site: Site) -> None:
    with site.served(workers=1) as running:
        assert "MainThread" in dump(site, running)
        assert list(runtime_folder().glob(f"*-{running.port}.board"))
        assert not list(runtime_folder().glob(f"*-{running.port}.dump-*"))
