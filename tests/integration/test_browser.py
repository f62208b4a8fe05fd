"""The demo site in a real browser, Chromium: over plain HTTP and over TLS."""

import re
import subprocess
from pathlib import Path

import pytest

import programs
from browser import OPTIONS, UNSTYLED, Browser, browser
from supervised import wait_until
from support import DEADLINE_S, Site, make_certificate

DUMP = (*OPTIONS, "--ignore-certificate-errors", "--dump-dom")  # the certificate signs itself
EVENT = "Midnight in Montmartre"


def dump_page(url: str, profile: Path) -> str:
    """The page as the browser holds it once it is loaded and its scripts have run."""
    command = [programs.path("chromium"), *DUMP, f"--user-data-dir={profile}", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_browser_shows_the_programme_and_the_seats(tmp_path: Path, scheme: str) -> None:
    words = ["-m", "fullhouse", "serve", "fullhouse.demo", "--bind", "127.0.0.1:0", "--workers", "1"]
    variables = {"FULLHOUSE_DEMO_FOLDER": str(tmp_path), "DJANGO_SETTINGS_MODULE": "fullhouse.demo.settings"}
    site = Site(tmp_path)
    with site.started("-c", "import fullhouse.demo.opening as o; o.prepare(o.PROGRAMME[:1])", **variables) as opening:
        assert opening.process.wait(DEADLINE_S) == 0, opening.errors()
    if scheme == "https":
        certificate, key = tmp_path / "site.crt", tmp_path / "site.key"
        make_certificate(certificate, key)
        words += ["--certfile", str(certificate), "--keyfile", str(key)]
    with site.served(*words, **variables) as server:
        home = f"{scheme}://127.0.0.1:{server.port}"
        programme = dump_page(home, tmp_path / "profile")
        assert "<h1>Take your seats</h1>" in programme
        assert EVENT in programme
        found = re.search(r'class="button" href="(/events/\d+/)"', programme)
        assert found, programme
        event = dump_page(home + found[1], tmp_path / "profile")
        assert f"<h1>{EVENT}</h1>" in event
        assert event.count('name="seat"') == 9 * 14
        assert server.end() == 0
        assert server.errors() == ""


def test_the_admin_of_the_demo_is_styled_and_its_task_worker_confirms_an_order(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    words = ["-m", "fullhouse.demo", "--bind", "127.0.0.1:0", "--workers", "1"]
    with Site(tmp_path).started(*words, FULLHOUSE_DEMO_FOLDER=str(folder)) as server:
        server.read_banner()
        assert f"  static files  /static/ from {folder / 'static'}" in server.banner
        assert any("tasks: python -m django db_worker" in line for line in server.banner)
        password = (folder / "admin_password").read_text()
        with browser(f"http://127.0.0.1:{server.port}", tmp_path / "profile") as window:
            window.open("/admin/")
            window.fill(username="boxoffice", password=password)
            window.press("[type=submit]")
            assert window.background("#header") != UNSTYLED
            assert window.driver.save_screenshot(str(tmp_path / "admin.png"))
            window.open("/admin/boxoffice/event/")
            assert EVENT in window.text("#result_list")
            window.open("/events/1/")
            window.fill(buyer="Ann")
            window.driver.execute_script("document.querySelector('[name=seat]:not(:disabled)').click()")
            window.press("form [type=submit], form button")
            assert "The seat is yours" in window.text()
            wait_until(lambda: "The confirmation was sent" in reloaded(window), "the order was confirmed")
            assert window.complaints() == []
        assert "Dear Ann" in "".join(mail.read_text() for mail in (folder / "mail").iterdir())
        assert server.end() == 0


def reloaded(window: Browser) -> str:
    window.driver.refresh()
    return window.text()
