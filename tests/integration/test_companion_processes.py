"""Companion processes of a served site, on real databases: planned, watched, replaced, ended with it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dbsupport import Watch
from fullhouse.errors import ApplicationError
from private_servers import PrivateServer
from supervised import Load, Site, Supervised, alive, birth, children, wait_until

# Writes a line for each start and end, holds a connection in each of its threads, and finishes what it does on TERM.
WORKER = """
import os, signal, sys, threading, time
import django
django.setup()
from django.db import connection, transaction

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())

def work():
    while not ended.is_set():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            time.sleep(0.01)
    connection.close()

threads = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
print("begins with", os.environ["VERSION"], os.getpid())
for thread in threads:
    thread.start()
ended.wait()
for thread in threads:
    thread.join()
print("is done with", os.environ["VERSION"])
"""
FAMILY = "import os, time; os.fork(); os.write(1, b'here\\n'); time.sleep(600)"
MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    operations = []
"""
BUDGET = 10


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    (site.folder / "worker.py").write_text(WORKER)
    (site.folder / "family.py").write_text(FAMILY)
    return site


def with_processes(site: Site, processes: dict[str, Any], **options: Any) -> None:
    site.append("settings", f"FULLHOUSE = { ({'processes': processes, **options})!r}\n")


def rows(site: Site, running: Supervised) -> list[dict[str, Any]]:
    answer = site.command("status", site.name, str(running.port), "--format", "json")
    found: list[dict[str, Any]] = json.loads(answer.stdout)[0]["processes"]
    return found


def lines(running: Supervised, words: str) -> int:
    return running.output.count(words)


@pytest.mark.parametrize("vendor", ["mysql", "postgresql"])
def test_web_and_tasks_share_one_budget_through_reloads(
    site: Site, vendor: str, request: pytest.FixtureRequest
) -> None:
    server: PrivateServer = request.getfixturevalue(f"{vendor}_server")
    site.use_database(server)
    site.make_pages_ask_the_database()
    tasks = {"command": "worker.py 8", "connections": 3}
    with_processes(site, {"tasks": tasks}, budget=BUDGET, threads=16, env={"VERSION": "one"})
    plan = site.command("plan", site.name).stdout
    assert f"of a budget of {BUDGET} (web 7, tasks 3); held now" in plan
    with site.served() as running, Watch(server) as watch:
        wait_until(lambda: lines(running, "[tasks] begins with one"), "the worker had started")
        with Load(running.port, clients=32, keep_alive=True) as load:
            load.wait_more()
            for version in ("two", "three"):
                site.append("settings", f"FULLHOUSE['env'] = {{'VERSION': {version!r}}}\n")
                running.signal(signal.SIGHUP)
                wait_until(lambda wanted=version: lines(running, f"begins with {wanted}"), "the new code worked")
            load.wait_more(200)
        shown = site.command("status", site.name, str(running.port)).stdout
        assert "  tasks 1  running for" in shown
        running.signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        told = running.output.splitlines()
    assert load.failures == []
    assert watch.samples > 10
    assert BUDGET - 2 <= watch.most_held <= BUDGET
    order = [line.partition(" with ")[2].split()[0] for line in told if "[tasks]" in line]
    assert order == ["one", "one", "two", "two", "three", "three"]  # never two at once


def test_a_worker_has_its_part_while_the_web_wants_everything(site: Site, mysql_server: PrivateServer) -> None:
    """Its threads finish transactions although sixteen clients would take every connection there is."""
    site.use_database(mysql_server)
    site.make_pages_ask_the_database()
    (site.folder / "counts.py").write_text(WORKER.replace("time.sleep(0.01)", "print('transaction', flush=True)"))
    tasks = {"command": "counts.py 4", "connections": 2}
    with_processes(site, {"tasks": tasks}, budget=4, threads=16, env={"VERSION": "one"})
    with site.served(workers=1) as running, Load(running.port, clients=16, keep_alive=True) as load:
        load.wait_more(200)
        before = lines(running, "[tasks] transaction")
        wait_until(lambda: lines(running, "[tasks] transaction") > before + 50, "the worker got connections")
    assert load.failures == []


@pytest.mark.parametrize("vendor", ["mysql", "postgresql"])
def test_none_starts_before_migrations_are_applied(site: Site, vendor: str, request: pytest.FixtureRequest) -> None:
    server: PrivateServer = request.getfixturevalue(f"{vendor}_server")
    site.use_database(server)
    (site.folder / site.name / "migrations").mkdir()
    (site.folder / site.name / "migrations" / "__init__.py").touch()
    (site.folder / site.name / "migrations" / "0001_initial.py").write_text(MIGRATION)
    site.append("settings", "INSTALLED_APPS += ['mysite']\n")
    with_processes(site, {"tasks": "worker.py 1"}, env={"VERSION": "one"})
    with site.served() as running:
        waits = "fullhouse: tasks wait for migrations to be applied (exit code 1): run manage.py migrate."
        wait_until(lambda: lines(running, waits), "the check was made")
        assert running.get() == "version 1"
        assert "migration check 1  " in site.command("status", site.name, str(running.port)).stdout
        assert "[tasks]" not in running.output
        site.manage("migrate", "--verbosity=0")
        wait_until(lambda: lines(running, "[tasks] begins with one"), "the worker had started without a reload")


def test_a_companion_that_ends_is_started_again_and_its_family_ends_with_it(site: Site) -> None:
    with_processes(site, {"family": "family.py"})
    with site.served() as running:
        wait_until(lambda: lines(running, "[family] here") == 2, "both had started")
        pid = rows(site, running)[0]["pid"]
        (child,) = children(pid)
        born = {pid: birth(pid) for pid in (pid, child)}
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: lines(running, "[family] here") == 4, "they had started again")
        assert alive(born) == []
        assert "fullhouse: family ended by itself: killed by SIGKILL. It is started again now." in running.output
        (row,) = rows(site, running)
        assert (row["state"], row["crashes"]) == ("running", 1)
        assert "ended by itself 1 × in a row" in site.command("status", site.name, str(running.port)).stdout


def test_a_companion_and_its_family_die_with_a_killed_supervisor(site: Site) -> None:
    with_processes(site, {"family": "family.py"})
    with site.served() as running:
        wait_until(lambda: lines(running, "[family] here") == 2, "both had started")
        pid = rows(site, running)[0]["pid"]
        born = {pid: birth(pid) for pid in (pid, *children(pid))}
        assert len(born) == 2
        running.signal(signal.SIGKILL)
        wait_until(lambda: not alive(born), "they were gone")


def test_what_does_not_end_in_time_is_killed(site: Site) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    with_processes(site, {"deaf": {"command": ["python", "-c", deaf], "graceful_timeout": 0.5}})
    with site.served() as running:
        wait_until(lambda: lines(running, "[deaf] deaf"), "it had started")
        running.signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert "deaf did not end within" in running.output


def test_none_starts_before_the_site_serves_or_where_it_never_does(site: Site) -> None:
    site.write("wsgi", "raise RuntimeError('broken on purpose')")
    with_processes(site, {"family": "family.py"})
    with site.started() as running:
        assert running.process.wait(60) == ApplicationError.exit_code
        assert "[family]" not in running.output


def test_a_flood_of_output_and_a_line_without_end_reach_the_log(site: Site) -> None:
    code = "import sys, time; print('x' * 100000, end='', flush=True); [print(n) for n in range(5000)]; time.sleep(600)"
    with_processes(site, {"loud": ["python", "-c", code]})
    with site.served() as running:
        wait_until(lambda: lines(running, "[loud] 4999\n"), "all of it was there")
        assert running.output.count("x") >= 100000
        assert running.get() == "version 1"


def test_a_command_that_is_not_there_is_refused_in_a_line(site: Site) -> None:
    with_processes(site, {"tasks": "celry -A mysite worker"})
    for verb in ("plan", "serve"):
        answer = site.command(verb, site.name)
        assert answer.returncode == 2
        assert answer.stderr.startswith("fullhouse: processes['tasks']: there is no program celry in ")
        assert len(answer.stderr.splitlines()) == 2
