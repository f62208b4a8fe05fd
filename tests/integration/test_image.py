"""What `fullhouse deploy docker` and `kubernetes` write: built, run and played by podman, as its comments say."""

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

import containers
from fleet import database
from podman import IMAGE, require_base_image
from supervised import Site
from support import wait_until

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BUILD_S = 500
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
# podman 4 finds no keys of a Secret that is in the same file.
CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata: {name: mysite}
data:
"""


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    require_base_image()
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project whose dependencies are pinned, with a secret beside it."""
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
    (site.folder / "requirements.txt").write_text(f"./{made.name}[postgresql]\n")
    answer = site.command("deploy", "docker", site.name, f"--into={site.folder}", SITE_KEY="throw-away")
    assert answer.returncode == 0, answer.stderr
    text = (site.folder / "Containerfile").read_text()
    # A wheel of this checkout stands for the one that a registry has.
    (site.folder / "Containerfile").write_text(
        text.replace("COPY requirements.txt", f"COPY {made.name} requirements.txt")
    )
    return site


@pytest.fixture(scope="module")
def image(site: Site, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    settings = [*containers._certificates(), *containers._pip_settings()]  # how this machine reaches its registries
    variables = "".join(f"ENV {word.removeprefix('--env=')}\n" for word in settings if word.startswith("--env="))
    (folder / "Containerfile").write_text(PYTHON + variables)
    build(folder, base)
    build(site.folder, f"{base}-site", f"--build-arg=BASE={base}")
    return f"{base}-site"


def address_of(container: str) -> str:
    networks = json.loads(containers._output(["inspect", container]))[0]["NetworkSettings"]
    return str(networks["IPAddress"] or next(iter(networks["Networks"].values()))["IPAddress"])


def answers(container: str, address: str, path: str, expected: bytes) -> bool:
    running = containers._output(["inspect", "--format", "{{.State.Running}}", container]).strip()
    assert running == "true", containers._podman(["logs", container]).stderr
    with suppress(OSError, HTTPException), closing(HTTPConnection(address, 8000, timeout=5)) as client:
        client.request("GET", path)
        return client.getresponse().read().startswith(expected)
    return False


def test_it_serves_within_its_limits(image: str) -> None:
    name = f"fullhouse-test-{uuid.uuid4().hex}"
    run = ["run", "--detach", f"--name={name}", "--read-only", "--tmpfs=/tmp", "--cpus=1", "--memory=512m"]
    run += ["--env=SITE_KEY=x", *containers.limits()]
    containers._output([*run, image])
    try:
        address = address_of(name)
        wait_until(lambda: answers(name, address, "/", b"version 1"), "it served")
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


def test_pods_of_its_manifest_are_a_fleet(
    site: Site, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ulimits = ", ".join(f'"{word.removeprefix("--ulimit=")}"' for word in containers.limits())
    (tmp_path / "containers.conf").write_text(f"[containers]\ndefault_ulimits = [{ulimits}]\n")
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    played = [tmp_path / f"{name}.yaml" for name in ("one", "two")]
    # Not in pytest's folder, which the server's user may not enter.
    with tempfile.TemporaryDirectory() as place, database("postgresql", Path(place)) as server:
        gateway = json.loads(containers._output(["network", "inspect", "podman"]))[0]["subnets"][0]["gateway"]
        entry = {"ENGINE": "fullhouse.db.postgresql", "HOST": server.host, "PORT": server.port, "NAME": server.database}
        entry |= {"USER": server.user, "PASSWORD": server.password}
        here = {"SITE_KEY": "x", "SITE_DATABASE": json.dumps(entry)}
        secrets = here | {"SITE_DATABASE": json.dumps(entry | {"HOST": gateway})}  # which is there once a pod is
        (tmp_path / "manifests").mkdir()
        words = ("--workers=1", "--threads=8", "--budget=20", f"--into={tmp_path / 'manifests'}")
        answer = site.command("deploy", "kubernetes", site.name, *words, **here)
        assert answer.returncode == 0, answer.stderr
        variables = "".join(f"  {key}: {json.dumps(text)}\n" for key, text in secrets.items())
        text = (tmp_path / "manifests" / "deployment.yaml").read_text()
        for theirs, ours in {
            "          ports: [{containerPort: 8000, name: http}]\n": "",  # podman would publish it, for both pods
            "port: http": "port: 8000",
            "secretRef": "configMapRef",
            "image: mysite": f"image: {image}",
            "replicas: 2": "replicas: 1",
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        for path in played:  # podman gives an emptyDir to all pods of a Deployment together
            named = text.replace("name: tmp", f"name: tmp-{path.stem}").replace(
                "  name: mysite", f"  name: {path.stem}"
            )
            path.write_text(f"{CONFIG_MAP}{variables}---\n{named}")
        try:
            for path in played:
                containers._output(["play", "kube", "--network=podman", str(path)])
            found = containers._output(["container", "list", "--format={{.Names}}"]).splitlines()
            pods = [name for name in found if name in ("one-pod-0-mysite", "two-pod-0-mysite")]
            assert len(pods) == 2, found
            for container in pods:
                pod = json.loads(containers._output(["inspect", container]))[0]["Pod"]
                address = address_of(json.loads(containers._output(["pod", "inspect", pod]))["InfraContainerID"])
                ready = partial(answers, container, address, "/-/ready", b"OK")
                wait_until(ready, "the pod was ready")
                assert answers(container, address, "/", b"version 1")

            def status() -> str:
                return containers._output(["exec", pods[0], "fullhouse", "status", "mysite"])

            wait_until(lambda: "fleet: 2 of at most" in status(), "each knew of the other")
        finally:
            for path in played:
                containers._podman(["play", "kube", "--down", str(path)])


def test_what_is_not_pinned_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    answer = site.command("deploy", "docker", site.name)
    assert answer.returncode == 2
    assert "Run: pip freeze > requirements.txt" in answer.stderr
