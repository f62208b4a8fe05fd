"""The demo site in a real browser, Chromium: over plain HTTP and over TLS."""

import re
import subprocess
from pathlib import Path

import pytest

import programs
from support import DEADLINE_S, Site, make_certificate

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--ignore-certificate-errors", "--dump-dom"),  # the certificate signs itself
)
EVENT = "Midnight in Montmartre"


def dump_page(url: str, profile: Path) -> str:
    """The page as the browser holds it once it is loaded and its scripts have run."""
    command = [programs.path("chromium"), *OPTIONS, f"--user-data-dir={profile}", url]
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
