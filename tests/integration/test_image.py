"""The Containerfile of `fullhouse deploy docker`: built and run by podman, as its own comment says."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

import containers
import programs
from supervised import Site
from support import wait_until

BASE = "localhost/fullhouse-trixie"
REPOSITORY = Path(__file__).resolve().parent.parent.parent
BUILD_S = 500
# What the official image of Python has, and a bare Debian has not.
PYTHON = f"FROM {BASE}\nRUN apt-get -qq update && apt-get -qq install -y python3-venv\n"
TUNED = "SECRET_KEY = __import__('os').environ['SITE_KEY']\nFULLHOUSE = {'graceful_timeout': 10}\n"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    if programs.find("podman") is None or programs.find("runc") is None:
        pytest.skip("podman or runc is not installed: make fresh installs them")
    if containers._podman(["image", "exists", BASE]).returncode:
        pytest.skip("podman has no base image: make fresh makes one")
    name = f"localhost/fullhouse-test-{uuid.uuid4().hex}"
    yield name
    for image in (f"{name}-site", name):
        containers._podman(["rmi", "--force", "--ignore", image])


def build(folder: Path, name: str, *words: str) -> None:
    passed = [*(word for word in containers._certificates() if word.startswith("--volume=")), "--network=host"]
    limits = containers.limits()
    command = [
        *containers._command(),
        "build",
        "--format=docker",
        "--pull=never",
        "--tag",
        name,
        *passed,
        *limits,
        *words,
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project on SQLite whose dependencies are pinned, with a secret beside it."""
    site = Site(tmp_path / "site")
    site.append("settings", TUNED)
    (site.folder / "manage.py").write_text(
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    )
    (site.folder / "production.env").write_text("SITE_KEY=hidden\n")
    wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(site.folder), str(REPOSITORY)]
    subprocess.run([sys.executable, *wheel], check=True, timeout=BUILD_S)
    (made,) = site.folder.glob("*.whl")
    (site.folder / "requirements.txt").write_text(f"./{made.name}\nsetproctitle\n")
    answer = site.command("deploy", "docker", site.name, f"--into={site.folder}", SITE_KEY="throw-away")
    assert answer.returncode == 0, answer.stderr
    text = (site.folder / "Containerfile").read_text()
    # A wheel of this checkout stands for the one that a registry has.
    (site.folder / "Containerfile").write_text(
        text.replace("COPY requirements.txt", f"COPY {made.name} requirements.txt")
    )
    return site


def test_it_is_built_and_serves_within_its_limits(site: Site, base: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    settings = [*containers._certificates(), *containers._pip_settings()]  # how this machine reaches its registries
    variables = "".join(f"ENV {word.removeprefix('--env=')}\n" for word in settings if word.startswith("--env="))
    (tmp_path / "base" / "Containerfile").write_text(PYTHON + variables)
    build(tmp_path / "base", base)
    image = f"{base}-site"
    build(site.folder, image, f"--build-arg=BASE={base}")
    name = f"fullhouse-test-{uuid.uuid4().hex}"
    run = ["run", "--detach", f"--name={name}", "--read-only", "--tmpfs=/tmp", "--cpus=1", "--memory=512m"]
    run += ["--env=SITE_KEY=x", *containers.limits()]
    containers._output([*run, image])
    try:
        facts = json.loads(containers._output(["inspect", name]))[0]
        address = (
            facts["NetworkSettings"]["IPAddress"]
            or next(iter(facts["NetworkSettings"]["Networks"].values()))["IPAddress"]
        )

        def answers() -> bool:
            running = containers._output(["inspect", "--format", "{{.State.Running}}", name]).strip()
            assert running == "true", containers._podman(["logs", name]).stderr
            with suppress(OSError, HTTPException), closing(HTTPConnection(address, 8000, timeout=5)) as client:
                client.request("GET", "/")
                return client.getresponse().read().startswith(b"version 1")
            return False

        wait_until(answers, "it served")
        log = containers._podman(["logs", name]).stdout
        assert "1 workers ×" in log, log  # of one processor
        inside = containers._output(["exec", name, "sh", "-c", "id -u; ls /app; touch /app/x 2>&1 || true"])
        assert inside.startswith("10001\n")
        assert "production.env" not in inside, "a secret is in the image"
        assert "Read-only file system" in inside
        assert "hidden" not in containers._output(["history", "--no-trunc", image])
        assert containers._podman(["healthcheck", "run", name]).returncode == 0
        began = time.monotonic()
        containers._output(["stop", "--time=25", name])
        assert time.monotonic() - began < 20, "it was killed instead of drained"
        state = json.loads(containers._output(["inspect", name]))[0]["State"]
        assert state["ExitCode"] == 0, containers._podman(["logs", name]).stderr
    finally:
        containers._podman(["rm", "--force", "--time=0", "--ignore", name])


def test_what_is_not_pinned_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    answer = site.command("deploy", "docker", site.name)
    assert answer.returncode == 2
    assert "Run: pip freeze > requirements.txt" in answer.stderr
