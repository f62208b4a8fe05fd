"""The doctor in front of real projects, servers and processes, and its findings among Django's checks."""

import json
import os
import signal
from pathlib import Path

import pytest

from private_servers import PrivateServer
from supervised import Site, wait_until

THREAD = "threading.Thread(target=time.sleep, args=(9,)).start()"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def ids(site: Site, *options: str) -> set[str]:
    answer = site.command("doctor", site.name, "--format", "json", *options)
    assert answer.returncode in (0, 1), answer.stderr
    found = json.loads(answer.stdout)["findings"]
    assert answer.returncode == any(one["severity"] == "error" for one in found)
    return {one["id"].removeprefix("fullhouse.") for one in found}


def test_a_project_with_mistakes_and_without(site: Site) -> None:
    site.append("settings", f"DEBUG = True\nimport threading, time\n{THREAD}\n")
    site.write("gunicorn.conf", "workers = 3\n")
    found = ids(site)
    assert found >= {"E101", "W108", "W109"}
    (site.folder / site.name / "gunicorn.conf.py").unlink()
    site.restore("settings")
    assert not ids(site) & {"E101", "E102", "W108", "W109"}
    text = site.command("doctor", site.name).stdout
    assert "Looked at the settings, this machine" in text


def test_the_servers_are_asked(site: Site, server: PrivateServer) -> None:
    site.use_database(server)
    found = ids(site)
    assert not found & {"W103", "W105", "W304", "E301"}
    engine = "django.db.backends"
    settings = (site.folder / site.name / "settings.py").read_text()
    stock = settings.replace(f"fullhouse.db.{server.vendor}", f"{engine}.{server.vendor}")
    site.write("settings", stock.replace("'pool': True", ""))
    assert ids(site) >= {"W103", "W105"}


def test_a_running_site_is_looked_at(site: Site) -> None:
    with site.served(workers=1) as running:
        assert not ids(site, "--workers=1") & {"W503", "I506"}
        assert "I506" in ids(site, "--workers=2")
        os.kill(running.workers()[0], signal.SIGKILL)
        wait_until(lambda: "W503" in ids(site), "the killed worker was told")
        site.write("wsgi", "1 / 0")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "W502" in ids(site), "the failed reload was told")


def test_djangos_checks_have_what_settings_tell(site: Site, server: PrivateServer) -> None:
    site.use_database(server)
    assert "no issues" in site.manage("check")
    assert "no issues" in site.manage("check", "--database", "default", "--tag", "database")
    deploy = site.manage("check", "--deploy")
    assert "fullhouse." not in deploy
    site.append("settings", "FULLHOUSE = {'worker': 3}\nDATABASES['default']['CONN_MAX_AGE'] = 60\nDEBUG = True\n")
    answer = site.command("doctor", site.name)
    assert answer.returncode == 2
    with pytest.raises(AssertionError) as refused:
        site.manage("check")
    assert "(fullhouse.E001) FULLHOUSE: unknown option 'worker'" in str(refused.value)
    assert "(fullhouse.E002) DATABASES['default']: CONN_MAX_AGE is 60" in str(refused.value)


def test_a_server_that_is_down_is_a_finding_of_the_database_checks(
    site: Site, postgresql_server: PrivateServer
) -> None:
    """On MySQL, a check of Django's own has raised before."""
    site.use_database(postgresql_server)
    site.append("settings", "DATABASES['default']['PORT'] = '1'\n")
    with pytest.raises(AssertionError) as refused:
        site.manage("check", "--database", "default", "--tag", "database")
    assert "fullhouse.E003" in str(refused.value)
