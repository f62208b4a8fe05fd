"""manage.py on the pooled engines: every command works beside a server, and stays within the host's budget."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbsupport import DRIVER, ENGINES, Database, slot_file, wait_until

Manage = Callable[..., str]

TESTS = """
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from fullhouse.demo.models import Event

def make(name):
    Event.objects.create(name=name, when="2030-01-01T00:00Z", price=1, rows=1, seats_per_row=1)

class Seen(TestCase):
    def test_one(self):
        make("one")
        self.assertEqual(Event.objects.count(), 1)

    def test_two(self):
        self.assertEqual(Event.objects.count(), 0)
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: make("two"))
        self.assertEqual(Event.objects.count(), 1)

class Flushed(TransactionTestCase):
    def test_three(self):
        make("three")
        self.assertTrue(connection.settings_dict["NAME"].startswith("test_"))
        self.assertEqual(Event.objects.count(), 1)

    def test_four(self):
        self.assertEqual(Event.objects.count(), 0)
"""

SETTINGS = """
import os, sys
if os.environ.get("TEST_MYSQL_DRIVER") == "pymysql":
    sys.modules["MySQLdb"] = None
from fullhouse.demo.settings import *
FULLHOUSE = {}
"""


@pytest.fixture
def manage(database: Database, tmp_path: Path) -> Iterator[Manage]:
    """Run a command of a project with the demo's tables, on a host without a plan, and return what it prints."""
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "site_tests.py").write_text(TESTS)
    server = database.server
    if server.vendor == "mysql":
        database.observer.ask("GRANT ALL ON `test\\_%`.* TO fullhouse@'%'")
        database.observer.ask("GRANT PROCESS ON *.* TO fullhouse@'%'")  # MySQL's dump, which clones databases, wants it
    else:
        database.observer.ask("ALTER ROLE fullhouse CREATEDB")
    environment = {
        **os.environ,
        **server.environment(),
        "FULLHOUSE_DEMO_ENGINE": ENGINES[server.vendor],
        "FULLHOUSE_DEMO_FOLDER": str(tmp_path),
        "TEST_MYSQL_DRIVER": DRIVER,
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }

    def run(*words: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "django", *words],
            env={**environment, **variables},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    yield run
    database.plan()


@pytest.fixture
def unplanned(database: Database) -> dict[str, str]:
    """Another database user, for whom nobody has made a plan: as it is before the first command runs on a host."""
    slot_file(database.server, database.server.admin_user).unlink(missing_ok=True)
    return {"FULLHOUSE_DEMO_USER": database.server.admin_user}


def slots(manage: Manage, **variables: str) -> int:
    """Of the host, as a new process sees them after its first query."""
    code = (
        "from django.db import connection\n"
        "connection.cursor().execute('SELECT 1')\n"
        "print('slots', connection.pool.statistics().slots_budget)"
    )
    out = manage("shell", "--no-imports", "-c", code, **variables)
    return int(out.rpartition("slots ")[2])


def test_tables_are_made_and_read_back(manage: Manage) -> None:
    assert "Applying box_office.0001_initial... OK" in manage("migrate") or "No migrations to apply" in manage(
        "migrate"
    )
    assert "[X] 0001_initial" in manage("showmigrations")
    assert "class" in manage("inspectdb")
    assert "no issues" in manage("check", "--database", "default")
    manage("flush", "--no-input")


def test_database_shell(manage: Manage, database: Database) -> None:
    words = ["-e", "SELECT 41 + 1"] if database.vendor == "mysql" else ["-c", "SELECT 41 + 1"]
    assert "42" in manage("dbshell", "--", *words)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_test_databases(manage: Manage, processes: str) -> None:
    out = manage("test", "site_tests", "--parallel", processes, "--no-input")
    assert "Ran 4 tests" in out
    assert "OK" in out


def test_first_command_plans_the_host(database: Database, unplanned: dict[str, str], manage: Manage) -> None:
    limit = 151 if database.vendor == "mysql" else 97  # the servers' defaults; PostgreSQL reserves 3
    first = slots(manage, **unplanned)
    assert limit * 0.8 <= first < limit
    assert slots(manage, **unplanned) == first


def test_a_budget_that_a_site_has_left_is_said_to_be_old(unplanned: dict[str, str], manage: Manage) -> None:
    said = "is from an earlier plan on this host"
    code = (
        "from django.db import connection\nfor _ in 'ab': connection.cursor().execute('SELECT 1'); connection.close()\n"
    )
    words = ["shell", "--no-imports", "-c"]
    beside_it = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'django', *{[*words, code]}], check=True)"
    )
    assert said not in manage(*words, code + beside_it, **unplanned), "the first process made it and still uses it"
    assert manage(*words, code, **unplanned).count(said) == 1


def test_first_command_respects_the_setting(unplanned: dict[str, str], manage: Manage, tmp_path: Path) -> None:
    with (tmp_path / "site_settings.py").open("a") as settings:
        settings.write("FULLHOUSE['budget'] = 7\n")
    assert slots(manage, **unplanned) == 7


def test_first_command_respects_the_environment(unplanned: dict[str, str], manage: Manage) -> None:
    assert slots(manage, FULLHOUSE_BUDGET="5", **unplanned) == 5


def test_unusable_setting_is_named(unplanned: dict[str, str], manage: Manage) -> None:
    with pytest.raises(
        AssertionError, match=r"ImproperlyConfigured: .*FULLHOUSE_BUDGETS.* Did you mean FULLHOUSE_BUDGET"
    ):
        slots(manage, FULLHOUSE_BUDGETS="5", **unplanned)


def test_command_beside_a_full_house(database: Database, manage: Manage) -> None:
    """It gets a slot from a pool that borrows more than its share, as soon as that one has an idle connection."""
    database.plan(slots=4, fair_share=2)
    database.connection.close_pool()
    together = threading.Barrier(4)

    def hold() -> None:
        with database.connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            together.wait()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: database.pool.statistics().idle == 4)
    assert slots(manage) == 4
    assert database.pool.statistics().total == 3
