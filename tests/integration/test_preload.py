"""The application is loaded once, before the fork; where that is not safe, by each worker."""

import json
import signal
from pathlib import Path

import pytest

from supervised import Site, wait_until

COUNT = """
import os, pathlib
with pathlib.Path({folder!r}, "loaded").open("a") as file:
    print(os.getpid(), file=file)
"""
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), name='metrics', daemon=True).start()"
NATIVE = "import _thread, time; _thread.start_new_thread(time.sleep, (600,))"
SOCKET = "import socket; statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
COUNT_FROZEN = """
import gc
site = application
def application(environ, start_response):
    if environ["PATH_INFO"] != "/frozen":
        return site(environ, start_response)
    start_response("200 OK", [])
    return [str(gc.get_freeze_count()).encode()]
"""
DATABASES = 'DATABASES = {{"default": {{"ENGINE": "{engine}", "NAME": "site.sqlite3"}}}}'
QUERY = "from django.db import connection; connection.ensure_connection()"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site")
    made.append("wsgi", COUNT.format(folder=str(made.folder)))
    return made


def loaded_in(site: Site) -> list[int]:
    return [int(line) for line in (site.folder / "loaded").read_text().split()]


def test_the_master_loads_the_application_once_for_all_workers_and_a_reload_anew(site: Site) -> None:
    with site.served() as running:
        assert loaded_in(site) == running.masters()
        running.signal(signal.SIGHUP)
        wait_until(lambda: len(loaded_in(site)) == 2, "it was loaded again")
        running.wait_whole()
        assert loaded_in(site)[1:] == running.masters()


def test_each_worker_loads_it_where_that_is_said(site: Site) -> None:
    with site.served("--no-preload") as running:
        assert sorted(loaded_in(site)) == sorted(running.workers())


@pytest.mark.parametrize(
    ("text", "named", "engine"),
    [
        (THREAD, "the thread 'metrics'", "fullhouse.db.sqlite3"),
        (NATIVE, "a thread of a library", "fullhouse.db.sqlite3"),
        (SOCKET, "an open socket (descriptor ", "fullhouse.db.sqlite3"),
        (QUERY, "a connection to the database 'default'", "fullhouse.db.sqlite3"),
        (QUERY, "a connection to the database 'default'", "django.db.backends.sqlite3"),
    ],
)
def test_each_worker_loads_it_where_workers_could_not_share_what_it_opens(
    site: Site, text: str, named: str, engine: str
) -> None:
    site.append("settings", DATABASES.format(engine=engine))
    site.append("wsgi", text)
    with site.served() as running:
        assert named in running.output
        assert "each worker loads it itself" in running.output
        assert loaded_in(site)[0] in running.masters(), "which has become a new process, under its number"
        assert sorted(loaded_in(site)[1:]) == sorted(running.workers())
        running.signal(signal.SIGHUP)
        wait_until(lambda: len(loaded_in(site)) == 6, "a reload tries it again")
        running.wait_whole()
        running.signal(signal.SIGTERM)
        assert running.process.wait(60) == 0


def test_preload_and_gunicorns_reloader_exclude_each_other(site: Site) -> None:
    answer = site.command("serve", "mysite", "--bind", "127.0.0.1:0", "--preload", "--reload")
    assert answer.returncode == 2
    assert "reload and preload exclude each other" in answer.stderr


def test_what_the_first_request_needs_is_loaded_too_and_what_is_wrong_with_it_is_for_that_to_tell(site: Site) -> None:
    site.append("urls", COUNT.format(folder=str(site.folder)))
    with site.served() as running:
        assert loaded_in(site) == 2 * running.masters()
        assert running.get() == "version 1"
        site.append("urls", "raise RuntimeError('broken on purpose')")
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.status("/") == 500, "the new code serves, and says it")


def test_a_reload_plans_with_the_memory_that_workers_really_take(site: Site) -> None:
    def threads() -> set[int]:
        answer = json.loads(site.command("status", "mysite", "--format", "json").stdout)
        return {worker["threads"] for one in answer[0]["generations"] for worker in one["workers"]}

    with site.served("--memory", "320M") as running:
        assert threads() == {1}, "two workers of 128 MiB would leave nothing of three quarters of it"
        running.signal(signal.SIGHUP)
        wait_until(lambda: min(threads(), default=1) > 1, "threads have the memory that is left")


def test_the_shared_application_is_frozen_unless_that_is_off(site: Site) -> None:
    site.append("wsgi", COUNT_FROZEN)

    def frozen(*words: str) -> int:
        with site.served(*words) as running:
            return int(running.get("/frozen"))

    assert frozen() > 10 * max(1, frozen("--no-freeze-gc"))
