"""From an empty folder to a served site, as a new user does it: Wagtail on PostgreSQL, looked at in Chromium."""

import json
import os
import signal
import struct
import subprocess
import sys
import venv
import zlib
from pathlib import Path

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from browser import UNSTYLED, Browser, browser
from private_servers import PrivateServer
from supervised import FOREIGN, Load, supervised, wait_until

ROOT = Path(__file__).resolve().parents[2]
WAGTAIL = "wagtail==8.0.1"
INSTALL_TIMEOUT_S, COMMAND_TIMEOUT_S, PAGE_TIMEOUT_S = 600, 120, 60
RELOADS = 5
PASSWORD = "correct horse battery staple"
# What every site needs in production. Its database is still Django's.
LOCAL = """
SECRET_KEY = "for a test"
ALLOWED_HOSTS = ["127.0.0.1"]
WAGTAIL_ENABLE_UPDATE_CHECK = False  # nothing is fetched from elsewhere
WAGTAIL_GRAVATAR_PROVIDER_URL = None
WAGTAIL_USER_TIME_ZONES = ["UTC"]  # the browser knows not all that Debian lists
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "{server.host}",
        "PORT": "{server.port}",
        "NAME": "{server.database}",
        "USER": "{server.user}",
        "PASSWORD": "{server.password}",
    }}
}}
"""


class Project:
    """A folder with a virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        theirs = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, "PYTHON"))}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**theirs, "PATH": path, "DJANGO_SETTINGS_MODULE": "mysite.settings.production"}

    def run(self, *words: str, timeout: float = COMMAND_TIMEOUT_S, **variables: str) -> None:
        environment = {**self.environment, **variables}
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, postgresql_server: PrivateServer) -> Project:
    """What the commands of the README and of Wagtail make."""
    project = Project(tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    fullhouse = f"{ROOT}[postgresql,static]"
    project.run("pip", "install", "--quiet", fullhouse, WAGTAIL, timeout=INSTALL_TIMEOUT_S)
    start = {name: value for name, value in project.environment.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run(
        [str(project.bin / "wagtail"), "start", "mysite", "."],
        cwd=tmp_path,
        env=start,
        check=True,
        timeout=COMMAND_TIMEOUT_S,
        stdout=subprocess.DEVNULL,
    )
    local = tmp_path / "mysite" / "settings" / "local.py"
    local.write_text(LOCAL.format(server=postgresql_server))
    project.run("python", "manage.py", "migrate", "--verbosity=0")
    project.run("python", "manage.py", "collectstatic", "--noinput", "--verbosity=0")
    administrator = ("createsuperuser", "--noinput", "--username=ann", "--email=ann@example.org")
    project.run("python", "manage.py", *administrator, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
    local.write_text(local.read_text().replace("django.db.backends", "fullhouse.db"))  # the one line
    return project


def test_a_site_in_five_minutes(project: Project) -> None:
    command = [str(project.bin / "fullhouse"), "serve", "mysite", "--bind=127.0.0.1:0", "--workers=2"]
    with supervised(command, project.folder, project.environment) as running:
        running.wait_ready()
        assert "  static files  /static/ from " in running.output
        with browser(f"http://127.0.0.1:{running.port}", project.folder / "profile") as window:
            window.open("/")
            assert "Welcome to your new Wagtail site!" in window.text()
            log_in(window)
            assert window.driver.save_screenshot(str(project.folder / "admin.png"))
            look_at_every_page(window)
            upload_image(window, project.folder)
            assert [text for text in window.complaints() if "/media/" not in text] == []  # which a web server serves
        with Load(running.port, keep_alive=True, expected="<!DOCTYPE html>") as load:
            for number in range(2, 2 + RELOADS):
                load.wait_more()
                running.signal(signal.SIGHUP)
                wait_until(lambda wanted=number: generation(project, running.port) == wanted, "the new code served")
            load.wait_more()
        assert load.failures == []
        running.signal(signal.SIGTERM)
        assert running.process.wait(PAGE_TIMEOUT_S) == 0
        assert "Traceback" not in running.output


def log_in(window: Browser) -> None:
    window.open("/admin/")
    window.fill(username="ann", password=PASSWORD)
    window.press("[type=submit]")
    WebDriverWait(window.driver, PAGE_TIMEOUT_S).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".sidebar"))
    assert window.background(".sidebar") != UNSTYLED


def look_at_every_page(window: Browser) -> None:
    """Follow the links of the admin, and then see that the browser is content with those that the menu leads to."""
    session = requests.Session()
    for cookie in window.driver.get_cookies():
        session.cookies.set(cookie["name"], cookie["value"])
    ahead, seen = sorted(window.links("/admin/")), set[str]()
    shown = list(ahead)
    while ahead:
        path = ahead.pop()
        if path in seen or any(part in path for part in ("logout", "/bulk/")):  # the latter need pages to act on
            continue
        seen.add(path)
        answer = session.get(window.home + path, timeout=PAGE_TIMEOUT_S)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        ahead += [link for link in links_of(answer.text) if link not in seen and "?" not in link]
    assert len(seen) > 20
    for path in shown:
        window.open(path)
    assert [text for text in window.complaints() if "/media/" not in text] == []


def links_of(html: str) -> set[str]:
    return {part.partition('"')[0].partition("#")[0] for part in html.split('href="')[1:] if part.startswith("/admin/")}


def upload_image(window: Browser, folder: Path) -> None:
    (folder / "blue.png").write_bytes(png(60, 40))
    window.open("/admin/images/add/")
    window.driver.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(folder / "blue.png"))
    window.fill(title="The blue one")
    window.press("form[enctype] [type=submit]")
    assert "The blue one" in window.text()
    assert any((folder / "media" / "original_images").iterdir())


def png(width: int, height: int) -> bytes:
    """A blue picture."""
    rows = (b"\0" + b"\0\0\xff" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def generation(project: Project, port: int) -> int:
    """The number of the one that serves alone; 0 while there are two."""
    words = [sys.executable, "-m", "fullhouse", "status", "mysite", str(port), "--format", "json"]
    answer = subprocess.run(words, env=project.environment, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(answer.stdout)[0]["generations"]
    return int(found[0]["number"]) if len(found) == 1 and found[0]["state"] == "ready" else 0
