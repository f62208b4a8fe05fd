"""A fleet on real servers. A host is a runtime folder of its own here: nothing else is shared but the database.

Real hosts, with addresses of their own, and all that befalls them: `make fleet`.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fullhouse.fleet import mysql, postgresql, report
from fullhouse.fleet.report import FleetReport
from pgbouncer import pgbouncer_to
from private_servers import PrivateServer
from sessions import count, observer_of, watched
from supervised import Load, Site, Supervised, runtime_folder, wait_until

BUDGET = 8
FLEET = ("--hosts=fleet", f"--budget={BUDGET}")


class Host:
    """A host by its runtime folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def serving(self, site: Site, *words: str) -> Iterator[Supervised]:
        with site.served(*FLEET, *words, FULLHOUSE_RUNTIME_FOLDER=str(self.folder)) as running:
            assert running.port  # known from now on: another host writes its log to the same file
            yield running

    @property
    def fleet(self) -> FleetReport:
        def found() -> FleetReport | None:
            return next(filter(None, map(report.read, self.folder.glob("*.slots"))), None)

        return wait_until(found, "its keeper had reported")

    @property
    def held(self) -> int:
        return sum(one.held for one in self.fleet.hosts if one.is_here)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    with ExitStack() as stack:
        yield [Host(stack.enter_context(runtime_folder())) for _ in range(3)]


@pytest.fixture
def site(tmp_path: Path, server: PrivateServer) -> Site:
    site = Site(tmp_path / "site")
    site.use_database(server)
    site.make_pages_ask_the_database()
    return site


def keepers(server: PrivateServer, observer: Any, most: int = 3) -> list[int]:
    """The sessions of the keepers that live."""
    with observer.cursor() as cursor:
        if server.vendor == "mysql":
            locks = (f"IS_USED_LOCK('{mysql.name(server.user, 'h', number)}')" for number in range(most))
            cursor.execute(f"SELECT {', '.join(locks)}")
            return [session for session in cursor.fetchone() if session is not None]
        cursor.execute(f"SELECT pid FROM pg_locks WHERE classid = {postgresql.key(server.user, 'h') % 2**32}")
        return [row[0] for row in cursor.fetchall()]


def test_hosts_share_one_budget_and_what_is_idle_moves(site: Site, server: PrivateServer, hosts: list[Host]) -> None:
    one, two, _ = hosts
    sleeping = "SLEEP" if server.vendor == "mysql" else "pg_sleep"
    site.write(
        "urls", (site.folder / site.name / "urls.py").read_text().replace("SELECT 1", f"SELECT {sleeping}(0.05)")
    )
    with (
        observer_of(server) as observer,
        watched(server, observer) as seen,
        one.serving(site) as first,
        two.serving(site) as second,
    ):
        with Load(first.port, clients=16, keep_alive=True) as load:
            wait_until(lambda: one.held >= BUDGET - 2, "the busy host had nearly all")
            with Load(second.port, clients=16, keep_alive=True) as other:
                wait_until(lambda: (one.held, two.held) == (BUDGET // 2, BUDGET // 2), "each had its share")
            wait_until(lambda: one.held >= BUDGET - 2, "the other's share came back")
        assert load.failures == other.failures == []
        assert load.answers
        assert other.answers
        assert seen.most <= BUDGET + 2
        assert len(one.fleet.hosts) == 2
        said = site.command("status", site.name, FULLHOUSE_RUNTIME_FOLDER=str(one.folder)).stdout
        assert "fleet: 2 of at most" in said
        assert "(here): a share of 4, holds" in said


def test_a_keeper_that_dies_is_followed_by_another(site: Site, server: PrivateServer, hosts: list[Host]) -> None:
    host = hosts[0]
    with observer_of(server) as observer, host.serving(site) as running, Load(running.port, keep_alive=True) as load:
        before = host.fleet
        (session,) = keepers(server, observer)
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: host.fleet.pid != before.pid and host.held > 0, "another one kept the slots")
        wait_until(lambda: keepers(server, observer) != [session], "its session was another")
        with observer.cursor() as cursor:  # and now the session alone
            (session,) = keepers(server, observer)
            kill = f"KILL {session}" if server.vendor == "mysql" else f"SELECT pg_terminate_backend({session})"
            cursor.execute(kill)
        wait_until(lambda: keepers(server, observer) not in ([], [session]), "it had joined anew")
        assert running.get()
    assert load.failures == []


def test_a_host_that_has_served_before_serves_again_and_reloads(site: Site, hosts: list[Host]) -> None:
    """What the first run left is no plan of this one, and no keeper."""
    with hosts[0].serving(site) as running:
        assert running.get() == "version 1"
    with hosts[0].serving(site) as running:
        site.deploy(2)
        with Load(running.port, keep_alive=True) as load:
            before = hosts[0].fleet.pid
            running.signal(signal.SIGHUP)
            wait_until(lambda: running.get() == "version 2", "the current code was served")
            assert hosts[0].fleet.pid == before, "a reload needs no other keeper"
        assert load.failures == []


def test_a_command_on_a_host_that_serves_nothing_has_its_keeper(
    site: Site, server: PrivateServer, hosts: list[Host]
) -> None:
    site.append("settings", f"FULLHOUSE = {{'hosts': 'fleet', 'budget': {BUDGET}}}\n")
    asked = "from django.db import connection; c = connection.cursor(); c.execute('SELECT 1'); print(c.fetchone()[0])"
    words = ("shell", "-v", "0", "-c", asked)
    assert site.manage(*words, FULLHOUSE_RUNTIME_FOLDER=str(hosts[0].folder)).strip() == "1"
    assert hosts[0].fleet.budget == BUDGET
    with observer_of(server) as observer:
        wait_until(lambda: count(server, observer)[0] == 0, "the keeper had ended")


def test_a_slot_with_anothers_session_is_left_alone(site: Site, server: PrivateServer, hosts: list[Host]) -> None:
    """As of a host that was cut off: its session stands on the slot, and nobody owns it."""
    with observer_of(server) as observer, observer.cursor() as cursor:
        for slot in range(BUDGET - 2):
            lock = f"GET_LOCK('{mysql.name(server.user, 'b', slot)}', 0)"
            if server.vendor == "postgresql":
                lock = f"pg_try_advisory_lock({postgresql.key(server.user, 'b')}, {slot})"
            cursor.execute(f"SELECT {lock}")
        with hosts[0].serving(site) as running, Load(running.port, clients=12, keep_alive=True) as load:
            wait_until(lambda: hosts[0].held == 2, "the host had what is free")
            wait_until(lambda: len(load.answers) > 50, "it served")
            assert hosts[0].held == 2
        assert load.failures == []


def test_aliases_of_one_user_have_one_keeper(site: Site, server: PrivateServer, hosts: list[Host]) -> None:
    site.append("settings", "DATABASES['reports'] = DATABASES['default']\n")
    with observer_of(server) as observer, hosts[0].serving(site) as running:
        assert running.get()
        assert len(keepers(server, observer)) == 1


def test_a_connect_that_may_take_long_is_refused(site: Site) -> None:
    site.append("settings", "DATABASES['default']['OPTIONS']['connect_timeout'] = 30\n")
    answer = site.command("plan", site.name, *FLEET)
    assert (answer.returncode, "in a fleet a connect may take 5 s at most" in answer.stderr) == (2, True)


def test_more_hosts_than_the_reserve_has_room_for_are_refused(
    site: Site, server: PrivateServer, hosts: list[Host]
) -> None:
    one, two, _ = hosts
    with one.serving(site, "--max-connections=9"):
        words = [*FLEET, "--max-connections=9"]
        with site.started(*words, FULLHOUSE_RUNTIME_FOLDER=str(two.folder)) as refused:
            wait_until(lambda: "1 hosts have joined" in refused.output, "it was told why")
            assert "raise the reserve" in refused.output


def test_a_pooler_that_shares_sessions_is_refused(
    tmp_path: Path, postgresql_server: PrivateServer, hosts: list[Host]
) -> None:
    site = Site(tmp_path / "site")
    site.use_database(postgresql_server)
    site.make_pages_ask_the_database()
    with pgbouncer_to(postgresql_server) as port:
        settings = (site.folder / site.name / "settings.py").read_text()
        site.write("settings", settings.replace(str(postgresql_server.port), str(port)))
        with site.started(*FLEET, FULLHOUSE_RUNTIME_FOLDER=str(hosts[0].folder)) as refused:
            wait_until(lambda: "A pooler such as PgBouncer stands in front" in refused.output, "it was told why")


RESET = """
from django.db import connection
from django.http import HttpResponse

def page(request):
    with connection.cursor() as cursor:
        cursor.execute("{changes}")
        cursor.execute("SELECT {session}")
        return HttpResponse(f"version {{cursor.fetchone()[0]}}")

from django.urls import path
urlpatterns = [path("", page)]
"""


@pytest.mark.parametrize("changes", ["SET {variable} = 1000", "SELECT {unlock_all}()"])
def test_what_a_request_changes_does_not_cost_the_fence(
    site: Site, server: PrivateServer, hosts: list[Host], changes: str
) -> None:
    """Each session that is left, reset or new, has its lock."""
    is_mysql = server.vendor == "mysql"
    facts = {
        "variable": "SESSION net_read_timeout" if is_mysql else "statement_timeout",
        "unlock_all": "RELEASE_ALL_LOCKS" if is_mysql else "pg_advisory_unlock_all",
    }
    session = "CONNECTION_ID()" if is_mysql else "pg_backend_pid()"
    site.write("urls", RESET.format(changes=changes.format(**facts), session=session))
    with observer_of(server) as observer, hosts[0].serving(site) as running:
        served = {running.get() for _ in range(10)}
        replaced = is_mysql or "unlock" in changes
        assert len(served) > 2 if replaced else len(served) <= 2, served  # two workers

        def fenced() -> bool:
            sessions, _ = count(server, observer)
            with observer.cursor() as cursor:
                if is_mysql:
                    locks = (f"IS_USED_LOCK('{mysql.name(server.user, 'b', slot)}')" for slot in range(BUDGET))
                    cursor.execute(f"SELECT {', '.join(locks)}")
                    fences = sum(one is not None for one in cursor.fetchone())
                else:
                    key = postgresql.key(server.user, "b") % 2**32
                    cursor.execute(f"SELECT count(*) FROM pg_locks WHERE classid = {key} AND granted")
                    fences = cursor.fetchone()[0]
            return bool(sessions - 1 == fences)

        wait_until(fenced, "every session but the keeper's had its fence")
