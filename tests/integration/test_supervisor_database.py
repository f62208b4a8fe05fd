"""Reloads on a real database: the budget holds while two generations run, and a broken deploy cannot change it."""

import json
import signal
from pathlib import Path

import pytest

from dbsupport import Watch, slot_file
from fullhouse.budget.slots import SlotFile
from private_servers import PrivateServer
from supervised import Load, Site, wait_until

BUDGET = 6
RELOADS = 5


@pytest.fixture
def site(tmp_path: Path, server: PrivateServer) -> Site:
    """A site whose page asks the database, with fewer sessions than threads."""
    site = Site(tmp_path / "site")
    site.use_database(server)
    site.append("settings", f"FULLHOUSE = {{'budget': {BUDGET}, 'threads': 8}}\n")
    site.make_pages_ask_the_database()
    return site


def test_reloads_under_load_stay_within_the_budget_and_a_broken_deploy_leaves_it(
    site: Site, server: PrivateServer
) -> None:
    with (
        site.served() as running,
        Watch(server) as watch,
        Load(running.port, clients=8, keep_alive=True) as load,
    ):
        for version in range(2, 2 + RELOADS):
            site.deploy(version)
            running.signal(signal.SIGHUP)
            wait_until(lambda wanted=version: f"version {wanted}" in load.answers[-8:], "the new code answered")
        site.append("settings", "FULLHOUSE['budget'] = 2\n")
        site.write("wsgi", "raise RuntimeError('broken on purpose')")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "keeps serving" in running.output, "the generation was discarded")
        load.wait_more()
        assert SlotFile.open(slot_file(server, server.user)).budget == BUDGET
        site.restore("wsgi")
        running.signal(signal.SIGHUP)
        wait_until(lambda: SlotFile.open(slot_file(server, server.user)).budget == 2, "the smaller budget was in force")
        load.wait_more()
    assert load.failures == []
    assert watch.samples > 10
    assert 0 < watch.most_held <= BUDGET


def test_status_shows_the_pool_of_each_database(site: Site, server: PrivateServer) -> None:
    with site.served(workers=1) as running:
        running.get()

        def pools() -> list[dict[str, object]]:
            answer = site.command("status", site.name, str(running.port), "--format", "json")
            (worker,) = json.loads(answer.stdout)[0]["generations"][0]["workers"]
            return list(worker["databases"])

        gauges = {"connections": 1, "in_use": 0, "idle": 1, "waiting": 0, "slots": 1, "budget": BUDGET, "limit": BUDGET}
        totals = {"checkouts": 2, "refused": 0, "connects": 1, "connects_failed": 0}
        expected = [{"alias": "default", **gauges, **totals}]
        wait_until(lambda: pools() == expected, "the pool was on the board")
        shown = site.command("status", site.name, str(running.port)).stdout
        assert f"default: 0 of 1 connections in use, 0 waiting, 1 of the host's {BUDGET} slots" in shown
