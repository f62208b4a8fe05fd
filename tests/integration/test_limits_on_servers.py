"""The limits in a plan are those that the servers answer: real servers, accounts without any privilege."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from private_servers import PrivateServer, mysql_family, which_mysql
from support import Site, ask, plan_of

DRIVERS = {"mysql": "django.db.backends.mysql", "postgresql": "django.db.backends.postgresql"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project whose databases are named in the variable DATABASES, as JSON."""
    site = Site.make(tmp_path_factory.mktemp("limits") / "site")
    site.append("settings", "import json, os\nDATABASES = json.loads(os.environ['DATABASES'])\n")
    return site


def database(server: PrivateServer, user: str = "", **more: Any) -> dict[str, Any]:
    """An entry of DATABASES."""
    account = {"USER": user or server.user, "PASSWORD": server.password, "NAME": server.database}
    return {"ENGINE": DRIVERS[server.vendor], "HOST": server.host, "PORT": str(server.port), **account, **more}


def planned(site: Site, *words: str, **databases: dict[str, Any]) -> dict[str, Any]:
    """The one server of the plan."""
    plan = plan_of(site.command("plan", "mysite", "--format", "json", *words, DATABASES=json.dumps(databases)))
    (server,) = plan["servers"]
    return dict(server)


def parts(server: dict[str, Any]) -> dict[str, int]:
    return {part["name"]: part["sessions"] for part in server["parts"]}


@contextmanager
def sessions(server: PrivateServer, count: int, user: str) -> Iterator[None]:
    """`count` sessions of a user, held meanwhile."""
    account = {"host": server.host, "port": server.port, "user": user, "password": server.password}
    with ExitStack() as stack:
        for _ in range(count):
            if server.vendor == "mysql":
                stack.enter_context(closing(pymysql.connect(database=server.database, **account)))
            else:
                stack.enter_context(psycopg.connect(dbname=server.database, **account))
        yield


def test_mysql_tells_its_limit_and_who_holds_sessions(site: Site, mysql_server: PrivateServer) -> None:
    server = mysql_server
    with sessions(server, 3, server.admin_user), sessions(server, 2, server.user):
        found = planned(site, default=database(server))
    assert found["limit"] == int(ask(server, "SELECT @@max_connections"))
    assert parts(found) == {"max_connections": found["limit"]}
    assert (found["held_by_others"], found["held_by_us"]) == (3, 2)
    assert found["wait_timeout_s"] == int(ask(server, "SELECT @@global.wait_timeout"))
    version = ask(server, "SELECT VERSION()").split("-")[0]
    product = {"mariadb": "MariaDB", "mysql": "MySQL"}[server.engine]
    assert found["server"] == f"{product} {version} at localhost:{server.port}"


def test_mysql_cap_of_the_account(site: Site, mysql_server: PrivateServer) -> None:
    server = mysql_server
    ask(
        server,
        f"CREATE USER capped@'%' IDENTIFIED BY '{server.password}' WITH MAX_USER_CONNECTIONS 7",
        f"GRANT ALL ON {server.database}.* TO capped@'%'",
        "SELECT 1",
        user=server.admin_user,
    )
    with sessions(server, 3, server.admin_user):
        found = planned(site, default=database(server, "capped"))
    assert found["limit"] == 7
    assert parts(found)["MAX_USER_CONNECTIONS of the account"] == 7
    assert (found["held_by_others"], found["reserve"]) == (3, 1)  # there is room for them beyond the account's cap


def test_mysql_cap_of_every_account(site: Site) -> None:
    with mysql_family(max_connections=23, max_user_connections=11, wait_timeout=77) as server:
        found = planned(site, default=database(server))
    assert parts(found) == {"max_connections": 23, "max_user_connections": 11}
    assert (found["limit"], found["wait_timeout_s"]) == (11, 77)


def test_an_administrator_of_mysql_still_gets_a_plan_from_a_full_server(site: Site) -> None:
    """CONNECTION_ADMIN has one session beyond max_connections, which no plan may count on."""
    with mysql_family(max_connections=20) as server, sessions(server, 20, server.admin_user):
        found = planned(site, default=database(server, server.admin_user))
        assert (found["limit"], found["held_by_others"], found["held_by_us"]) == (20, 0, 20)
        full = site.command("plan", "mysite", DATABASES=json.dumps({"default": database(server)}))
    assert full.returncode == 3
    assert "Too many connections" in full.stderr


@pytest.mark.skipif(which_mysql() != "mysql", reason="an authentication of MySQL only")
def test_a_driver_that_lacks_a_package_is_no_traceback(tmp_path: Path) -> None:
    """PyMySQL sends a password without TLS by RSA, for which it needs cryptography."""
    site = Site.make(tmp_path / "site")
    with mysql_family(**{"tls-version": ""}) as server:
        entry = database(server)
        text = "import sys\nsys.modules['cryptography'] = None\nimport pymysql\npymysql.install_as_MySQLdb()\n"
        site.append("settings", f"{text}DATABASES = {{'default': {entry!r}}}\n")
        answer = site.command("plan", "mysite")
    assert answer.returncode == 3
    assert answer.stderr.splitlines()[1:] == [
        "Run: pip install cryptography. Or connect over TLS or the server's Unix socket, which need none."
    ]
    assert "RuntimeError: 'cryptography' package is required" in answer.stderr


def test_mysql_through_pymysql_and_a_socket(mysql_server: PrivateServer, tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    entry = database(mysql_server, HOST=str(mysql_server.socket), PORT="")
    site.append("settings", f"import pymysql\npymysql.install_as_MySQLdb()\nDATABASES = {{'default': {entry!r}}}\n")
    (found,) = plan_of(site.command("plan", "mysite", "--format", "json"))["servers"]
    assert found["limit"] == int(ask(mysql_server, "SELECT @@max_connections"))
    assert found["server"].endswith(f" at {mysql_server.socket}")


def test_postgresql_tells_its_limit_and_who_holds_sessions(site: Site, postgresql_server: PrivateServer) -> None:
    server = postgresql_server
    with sessions(server, 3, server.admin_user), sessions(server, 2, server.user):
        found = planned(site, default=database(server))
    granted = int(ask(server, "SHOW max_connections")) - int(ask(server, "SHOW superuser_reserved_connections"))
    assert found["limit"] == granted
    assert parts(found) == {"max_connections less reserved slots": granted}
    assert (found["held_by_others"], found["held_by_us"]) == (3, 2)
    assert found["wait_timeout_s"] is None
    version = ask(server, "SHOW server_version").split()[0]
    assert found["server"] == f"PostgreSQL {version} at localhost:{server.port}"


def test_postgresql_caps_of_the_role_and_the_database(site: Site, postgresql_server: PrivateServer) -> None:
    server = postgresql_server
    ask(
        server,
        f"CREATE ROLE capped LOGIN CONNECTION LIMIT 9 PASSWORD '{server.password}'",
        f"ALTER DATABASE {server.database} CONNECTION LIMIT 12",
        "SELECT 1",
        user=server.admin_user,
    )
    try:
        capped = planned(site, default=database(server, "capped"))
        owner = planned(site, default=database(server))
    finally:
        ask(
            server,
            f"ALTER DATABASE {server.database} CONNECTION LIMIT -1",
            "SELECT 1",
            user=server.admin_user,
        )
    assert parts(capped).items() >= {"CONNECTION LIMIT of the role": 9, "CONNECTION LIMIT of the database": 12}.items()
    assert (capped["limit"], owner["limit"]) == (9, 12)


def test_aliases_of_one_server_share_its_sessions(site: Site, server: PrivateServer) -> None:
    one = planned(site, "--cores", "1", default=database(server))
    two = planned(site, "--cores", "1", default=database(server), log=database(server))
    assert two["aliases"] == ["default", "log"]
    assert two["limit"] == one["limit"]
    assert two["connections"] <= two["budget"] == one["budget"]


def test_a_given_limit_is_not_asked_for(site: Site, server: PrivateServer) -> None:
    nowhere = database(server, PORT="1")
    found = planned(site, "--max-connections", "1000", "--reserve", "40", default=nowhere)
    assert (found["limit"], found["reserve"], found["budget"]) == (1000, 40, 960)
    assert (found["held_by_others"], found["held_by_us"]) == (None, None)


def test_a_database_that_is_away_when_the_limit_is_given_is_no_traceback(tmp_path: Path, server: PrivateServer) -> None:
    """Then the workers are the first to meet it."""
    site = Site.make(tmp_path / "site")
    options = {"pool": {"checkout_timeout": 0.5}}
    entry = database(server, ENGINE=f"fullhouse.db.{server.vendor}", PORT="1", OPTIONS=options)
    site.append("settings", f"DATABASES = {{'default': {entry!r}}}\n")
    answer = site.command("serve", "mysite", "--bind", "127.0.0.1:0", "--max-connections", "20", "--workers", "1")
    assert answer.returncode == 3
    fact, remedy = answer.stderr.splitlines()
    assert "A worker cannot connect to 'default': The database of pool 'default' cannot be reached" in fact
    assert "last connect failure" in fact
    assert remedy.startswith("Check that the server is running")


def test_a_plan_that_cannot_fit_is_refused(site: Site, server: PrivateServer) -> None:
    words = ["plan", "mysite", "--workers", "500", "--threads", "2"]
    answer = site.command(*words, DATABASES=json.dumps({"default": database(server)}))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "The plan needs 2000 sessions of" in answer.stderr
    assert "Lower the number of workers (--workers), or raise max_connections" in answer.stderr


Refusal = Callable[[PrivateServer], dict[str, Any]]
BAD: dict[str, tuple[Refusal, str]] = {
    "down": (lambda server: database(server, PORT="1"), "refused|Can't connect"),
    "wrong password": (lambda server: database(server, PASSWORD="wrong"), "Access denied|password authentication"),
    "no such user": (lambda server: database(server, "stranger"), "Access denied|password authentication"),
    "no such database": (lambda server: database(server, NAME="nowhere"), "Access denied|Unknown database|not exist"),
    "no such host": (lambda server: database(server, HOST="no-such-host.invalid"), "Unknown|resolve|not known"),
}


@pytest.mark.parametrize(("entry", "cause"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["plan", "serve"])
def test_a_database_that_cannot_be_asked_is_one_short_error(
    site: Site, server: PrivateServer, entry: Refusal, cause: str, command: str
) -> None:
    answer = site.command(command, "mysite", DATABASES=json.dumps({"default": entry(server)}))
    assert answer.returncode == 3
    assert answer.stdout == ""
    fact, remedy = answer.stderr.splitlines()
    assert fact.startswith("fullhouse: Database 'default' at ")
    assert re.search(cause, fact)
    assert remedy == "Start the server or correct DATABASES; with --max-connections the plan needs no server."
    assert server.password not in answer.stderr


def by_socket(server: PrivateServer) -> dict[str, Any]:
    """Another address of the same server, by which a driver goes over its Unix socket."""
    if server.vendor == "mysql":
        return database(server, HOST="", PORT="", OPTIONS={"unix_socket": str(server.socket)})
    return database(server, HOST=str(server.folder))


def test_two_addresses_of_one_server_share_its_sessions(site: Site, server: PrivateServer) -> None:
    engine = f"fullhouse.db.{server.vendor}"
    one = planned(site, default=database(server, ENGINE=engine))
    two = planned(site, default=database(server, ENGINE=engine), log={**by_socket(server), "ENGINE": engine})
    assert two["aliases"] == ["default", "log"]
    assert two["budget"] == one["budget"]
    assert two["slots"] * 2 <= two["budget"]  # a file of slots for each address


def test_servers_on_two_sockets_are_two(site: Site, mysql_server: PrivateServer) -> None:
    with mysql_family(max_connections=23) as other:
        databases = {"default": by_socket(mysql_server), "log": by_socket(other)}
        made = plan_of(site.command("plan", "mysite", "--format", "json", DATABASES=json.dumps(databases)))
    first, second = made["servers"]
    assert (first["aliases"], second["aliases"]) == (["default"], ["log"])
    assert second["limit"] == 23
    assert [each["server"].partition(" at ")[2] for each in (first, second)] == [
        str(mysql_server.socket),
        str(other.socket),
    ]
