"""What `fullhouse deploy docker` and `kubernetes` write: built, run and played by podman, as its comments say."""

import json
import tempfile
import time
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import containers
from fleet import database
from fullhouse.deploy.image import METRICS_PORT
from pods import Manifest, address_of, answers, limit_pods
from supervised import Site
from support import wait_until


def test_it_serves_within_its_limits(site_image: str) -> None:
    name = f"fullhouse-test-{uuid.uuid4().hex}"
    run = ["run", "--detach", f"--name={name}", "--read-only", "--tmpfs=/tmp", "--cpus=1", "--memory=512m"]
    run += ["--env=SITE_KEY=x", *containers.limits()]
    containers._output([*run, site_image])
    try:
        address = address_of(name)
        wait_until(lambda: answers(name, address, "/", b"version 1"), "it served")
        log = containers._podman(["logs", name]).stdout
        assert "1 workers ×" in log, log  # of one processor
        inside = containers._output(["exec", name, "sh", "-c", "id -u; ls /app; touch /app/x 2>&1 || true"])
        assert inside.startswith("10001\n")
        assert "production.env" not in inside, "a secret is in the image"
        assert "Read-only file system" in inside
        assert "hidden" not in containers._output(["history", "--no-trunc", site_image])
        assert containers._podman(["healthcheck", "run", name]).returncode == 0
        began = time.monotonic()
        containers._output(["stop", "--time=25", name])
        assert time.monotonic() - began < 20, "it was killed instead of drained"
        state = json.loads(containers._output(["inspect", name]))[0]["State"]
        assert state["ExitCode"] == 0, containers._podman(["logs", name]).stderr
    finally:
        containers._podman(["rm", "--force", "--time=0", "--ignore", name])


def test_pods_of_its_manifest_are_a_fleet(
    packed_site: Site, site_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pods(tmp_path, monkeypatch)
    # Not in pytest's folder, which the server's user may not enter.
    with tempfile.TemporaryDirectory() as place, database("postgresql", Path(place)) as server, ExitStack() as stack:
        words = ("--workers=1", "--threads=8", "--budget=20")
        manifest = Manifest(packed_site, site_image, server, tmp_path, *words)
        pods = [stack.enter_context(manifest.pod(name)) for name in ("one", "two")]
        for pod in pods:
            pod.wait_ready()
            assert answers(pod.container, pod.address, "/", b"version 1")
            metrics = partial(answers, pod.container, pod.address, "/metrics", b"# HELP", METRICS_PORT)
            wait_until(metrics, "the pod showed its metrics to others")

        def status() -> str:
            return containers._output(["exec", pods[0].container, "fullhouse", "status", "mysite"])

        wait_until(lambda: "fleet: 2 of at most" in status(), "each knew of the other")


def test_what_is_not_pinned_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    answer = site.command("deploy", "docker", site.name)
    assert answer.returncode == 2
    assert "Run: pip freeze > requirements.txt" in answer.stderr
