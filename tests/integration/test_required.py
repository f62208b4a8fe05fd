"""A database that the site does not need to start is down, and comes back."""

import json
import signal
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from dbsupport import slot_file
from fullhouse.budget.slots import UNPLANNED
from private_servers import PrivateServer, mysql_family, postgresql
from supervised import Site, wait_until
from support import ask
from test_goodbye import SlowProxy

PAGES = """
from django.db import connections
from django.http import HttpResponse
from django.urls import path

def home(request):
    connections["default"].cursor().execute("SELECT 1")
    return HttpResponse("home")

def log(request):
    connections["log"].cursor().execute("SELECT 1")
    return HttpResponse("log")

urlpatterns = [path("", home), path("log", log)]
"""


def make_site(folder: Path, server: PrivateServer, **log: Any) -> Site:
    """A site with a page for each of its two databases."""
    site = Site(folder)
    site.use_database(server, pool={"checkout_timeout": 0.5})
    site.append("settings", f"DATABASES['log'] = {{**DATABASES['default'], **{log!r}}}\nFULLHOUSE = {{'workers': 1}}\n")
    site.write("urls", PAGES)
    return site


def test_the_site_serves_without_it_and_uses_it_once_it_is_back(tmp_path: Path, server: PrivateServer) -> None:
    start = mysql_family if server.vendor == "mysql" else postgresql
    with start(max_connections=23) as other:
        proxy = SlowProxy(other)
        proxy.close()  # nobody listens there now
        slots = slot_file(replace(other, port=proxy.port), other.user)
        slots.unlink(missing_ok=True)
        site = make_site(tmp_path / "site", server, PORT=str(proxy.port), PASSWORD=other.password)
        with site.served(workers=1) as running:
            assert "Database 'log' at " in running.output
            assert "It is not required, so the site starts without it." in running.output
            assert (running.get(), running.status("/log")) == ("home", 503)
            running.signal(signal.SIGHUP)
            wait_until(lambda: running.output.count("starts without it") == 2, "the new generation has said it too")
            running.wait_whole(1)
            assert (running.get(), running.status("/log")) == ("home", 503)
            proxy = SlowProxy(other, port=proxy.port)
            try:
                wait_until(lambda: running.status("/log") == 200, "the database was used")
                granted = 23 if server.vendor == "mysql" else 20  # PostgreSQL reserves 3
                assert budget_of(site, running.port, "log") == granted - ceil(granted / 10)
            finally:
                proxy.close()
                slots.unlink()


def test_one_on_a_server_that_others_reach_has_its_part_of_the_budget(tmp_path: Path, server: PrivateServer) -> None:
    site = make_site(tmp_path / "site", server, USER="later")
    slot_file(server, "later").unlink(missing_ok=True)
    with site.served(workers=1) as running:
        assert (running.get(), running.status("/log")) == ("home", 503)
        create_user(server, "later")
        wait_until(lambda: running.status("/log") == 200, "the database was used")
        assert budget_of(site, running.port, "log") == budget_of(site, running.port, "default")


def test_one_that_is_required_stops_the_start(tmp_path: Path, server: PrivateServer) -> None:
    site = make_site(tmp_path / "site", server, PORT="1")
    answer = site.command("plan", site.name, "--required", "default,log")
    assert answer.returncode == 3
    assert "Database 'log' at localhost:1" in answer.stderr
    answer = site.command("plan", site.name, "--required", "nothing")
    assert (answer.returncode, answer.stderr) == (
        2,
        "fullhouse: required names 'nothing', and DATABASES has default, log.\n",
    )


def budget_of(site: Site, port: int, alias: str) -> int:
    """The slots of the host, as the worker sees them."""

    def found() -> int | None:
        answer = site.command("status", site.name, str(port), "--format", "json")
        (worker,) = json.loads(answer.stdout)[0]["generations"][0]["workers"]
        budgets = [row["budget"] for row in worker["databases"] if row["alias"] == alias]
        return next((budget for budget in budgets if budget > UNPLANNED), None)  # the board is a little behind

    return int(wait_until(found, "the planned budget was on the board"))


def create_user(server: PrivateServer, name: str) -> None:
    if server.vendor == "mysql":
        statements = [
            f"CREATE USER {name}@'%' IDENTIFIED BY '{server.password}'",
            f"GRANT ALL ON {server.database}.* TO {name}@'%'",
        ]
    else:
        statements = [f"CREATE ROLE {name} LOGIN PASSWORD '{server.password}'"]
    ask(server, *statements, "SELECT 1", user=server.admin_user)
