"""A site's image, built once: what `fullhouse deploy docker` writes, by podman."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import containers
from podman import BUILD_S, IMAGE, build, require_base_image
from supervised import Site

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# What the official image of Python has, and a bare Debian has not.
PYTHON = f"FROM {IMAGE}\nRUN apt-get -qq update && apt-get -qq install -y python3-venv\n"
TUNED = """
import json, os
SECRET_KEY = os.environ["SITE_KEY"]
FULLHOUSE = {"graceful_timeout": 10}
DATABASES = {"default": {"ENGINE": "fullhouse.db.sqlite3", "NAME": "/tmp/db.sqlite3"}}
if "SITE_DATABASE" in os.environ:
    DATABASES = {"default": json.loads(os.environ["SITE_DATABASE"])}
    FULLHOUSE["hosts"] = "fleet"
"""


@pytest.fixture(scope="session")
def packed_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project whose dependencies are pinned, with its Containerfile and a secret beside it."""
    site = Site(tmp_path_factory.mktemp("project") / "site")
    site.make_pages_ask_the_database()
    site.append("settings", TUNED)
    (site.folder / "manage.py").write_text(
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    )
    (site.folder / "production.env").write_text("SITE_KEY=hidden\n")
    wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(site.folder), str(REPOSITORY)]
    subprocess.run([sys.executable, *wheel], check=True, timeout=BUILD_S)
    (made,) = site.folder.glob("*.whl")
    (site.folder / "requirements.txt").write_text(f"./{made.name}[metrics,postgresql]\n")
    answer = site.command("deploy", "docker", site.name, f"--into={site.folder}", SITE_KEY="throw-away")
    assert answer.returncode == 0, answer.stderr
    text = (site.folder / "Containerfile").read_text()
    # A wheel of this checkout stands for the one that a registry has.
    (site.folder / "Containerfile").write_text(
        text.replace("COPY requirements.txt", f"COPY {made.name} requirements.txt")
    )
    return site


@pytest.fixture(scope="session")
def site_image(packed_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of its image."""
    require_base_image()
    base = f"localhost/fullhouse-test-{uuid.uuid4().hex}"
    folder = tmp_path_factory.mktemp("base")
    settings = [*containers._certificates(), *containers._pip_settings()]  # how this machine reaches its registries
    variables = "".join(f"ENV {word.removeprefix('--env=')}\n" for word in settings if word.startswith("--env="))
    (folder / "Containerfile").write_text(PYTHON + variables)
    try:
        build(folder, base)
        build(packed_site.folder, f"{base}-site", f"--build-arg=BASE={base}")
        yield f"{base}-site"
    finally:
        for image in (f"{base}-site", base):
            containers._podman(["rmi", "--force", "--ignore", image])
