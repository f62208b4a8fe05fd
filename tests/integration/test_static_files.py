"""A site with DEBUG off is served with its static files, by `fullhouse serve` alone."""

import gzip
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from supervised import DEADLINE_S, Site, Supervised

STYLE = b"body { color: teal }\n" * 40
HASHED = "style.0123456789ab.css"
SETTINGS = """
DEBUG = False
INSTALLED_APPS = ["fullhouse", "django.contrib.staticfiles"]
STATIC_URL = "static/"
STATIC_ROOT = {root!r}
MEDIA_ROOT = {root!r}
MEDIA_URL = "/media/"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    root = tmp_path / "collected"
    root.mkdir()
    (root / "style.css").write_bytes(STYLE)
    (root / HASHED).write_bytes(STYLE)
    (root / f"{HASHED}.gz").write_bytes(gzip.compress(STYLE))
    made = Site(tmp_path / "site")
    made.append("settings", SETTINGS.format(root=str(root)))
    return made


def get(running: Supervised, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
    client = HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        client.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = client.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        client.close()


def test_static_files_are_served(site: Site) -> None:
    with site.served() as running:
        assert "static files" in running.output
        status, head, body = get(running, "/static/style.css")
        assert (status, body, head["content-type"]) == (200, STYLE, 'text/css; charset="utf-8"')
        assert get(running, "/")[2] == b"version 1", "the rest is the site's"
        assert get(running, "/static/missing.css")[0] == 404
        assert get(running, "/media/style.css")[0] == 404, "nobody asked for media to be served"


def test_ranges_conditions_compression_and_names_that_never_change(site: Site) -> None:
    with site.served() as running:
        status, head, body = get(running, "/static/style.css", Range="bytes=5-9")
        assert (status, body, head["content-range"]) == (206, STYLE[5:10], f"bytes 5-9/{len(STYLE)}")
        since = get(running, "/static/style.css")[1]["last-modified"]
        assert get(running, "/static/style.css", If_Modified_Since=since)[0] == 304
        _, head, body = get(running, f"/static/{HASHED}", Accept_Encoding="gzip")
        assert (head["content-encoding"], gzip.decompress(body)) == ("gzip", STYLE)
        assert "immutable" in head["cache-control"]
        assert "immutable" not in get(running, "/static/style.css")[1]["cache-control"]


def test_they_are_left_to_others_where_that_is_said(site: Site) -> None:
    with site.served("--no-static") as running:
        assert "not served here (static is off)" in running.output
        assert get(running, "/static/style.css")[0] == 404


def test_plain_gunicorn_refuses_to_be_told_so(site: Site) -> None:
    site.append("settings", 'FULLHOUSE = {"static": True}')
    answer = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "python:fullhouse.conf", "mysite.wsgi"],
        cwd=site.folder,
        env=site.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert answer.returncode == 2
    assert "Under gunicorn, put WhiteNoise's middleware into MIDDLEWARE" in answer.stderr
