"""The verbs by project and port on real processes, and what hostile clients of the control socket achieve."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from fullhouse.private_folder import runtime_folder
from fullhouse.supervisor.control import CLIENTS, LONGEST
from fullhouse.supervisor.instances import running
from supervised import MANAGE, Site, wait_until
from support import free_port


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A project whose name no other test uses, stopped after the test whatever happened."""
    name = f"mysite{os.getpid()}"
    site = Site(tmp_path / "site", name)
    yield site
    for one in running(runtime_folder()):
        if one.facts["project"] == name:
            os.kill(one.facts["pid"], signal.SIGKILL)


def start(site: Site, port: str, *options: str) -> None:
    answer = site.command("start", site.name, port, "--workers=1", f"--log-file={site.folder / 'log'}", *options)
    assert answer.returncode == 0, answer.stderr


def get(port: str) -> str:
    connection = HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def status(site: Site, port: str) -> dict[str, Any]:
    answer = site.command("status", site.name, port, "--format", "json")
    assert answer.returncode == 0, answer.stderr
    (report,) = json.loads(answer.stdout)
    return dict(report)


def test_the_life_of_a_server_in_the_background(site: Site) -> None:
    port = str(free_port())
    start(site, port)
    assert get(port) == "version 1"
    report = status(site, port)
    assert [one["state"] for one in report["generations"]] == ["ready"]

    def counted() -> bool:
        (worker,) = status(site, port)["generations"][0]["workers"]
        return (worker["busy"], worker["requests"], worker["errors"]) == (0, 1, 0)

    wait_until(counted, "the request was on the board")
    assert f"{site.name} on {port}: up" in site.command("status", site.name).stdout

    site.deploy(2)
    assert site.command("reload", site.name).returncode == 0
    assert get(port) == "version 2"

    again = site.command("start", site.name, port)
    assert (again.returncode, "is already running" in again.stderr) == (7, True)

    site.write("wsgi", "raise RuntimeError('broken on purpose')")
    broken = site.command("reload", site.name, port)
    assert broken.returncode == 5
    assert "broken on purpose" in broken.stderr
    assert "Traceback" in broken.stderr
    assert "broken on purpose" in status(site, port)["last_failure"]
    assert get(port) == "version 2"
    assert "broken on purpose" in site.command("logs", site.name).stdout

    site.restore("wsgi")
    first = report["pid"]
    assert site.command("restart", site.name).returncode == 0
    assert status(site, port)["pid"] != first
    assert site.command("stop", site.name).returncode == 0
    for verb in ("stop", "reload", "status", "restart", "logs"):
        answer = site.command(verb, site.name)
        assert (answer.returncode, "is not running" in answer.stderr) == (6, True)


def test_manage_py_has_the_same_verbs_for_its_own_project(site: Site) -> None:
    port = str(free_port())
    shown = site.manage("fullhouse", "start", port, "--workers=1", f"--log-file={site.folder / 'log'}")
    assert shown.endswith(").\n")
    (report,) = json.loads(site.manage("fullhouse", "status", "--format", "json"))
    assert (report["project"], report["port"]) == (site.name, port)
    assert site.manage("fullhouse", "reload") == f"{site.name} now serves the new code.\n"
    assert site.manage("fullhouse", "stop", port) == f"{site.name} has stopped.\n"


def test_a_restart_needs_nothing_of_the_shell_it_is_called_in(site: Site) -> None:
    port, elsewhere = str(free_port()), site.folder.parent
    site.write("otherwise", "from .settings import *")
    words = [sys.executable, "-c", MANAGE, "serve", "--workers=1", f"--bind=127.0.0.1:{port}"]
    with subprocess.Popen(
        words, cwd=site.folder, env=site.manage_environment("otherwise"), stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: site.command("status", site.name).returncode == 0, "it ran")
        answer = site.command("restart", site.name, folder=elsewhere)
        assert answer.returncode == 0, answer.stderr
    report = status(site, port)
    Path(report["log"]).unlink()  # it is in the background now, and has one
    assert report["pid"] != process.pid
    assert report["environment"]["DJANGO_SETTINGS_MODULE"] == f"{site.name}.otherwise"
    assert get(port) == "version 1"
    site.folder.rename(elsewhere / "moved")
    gone = site.command("restart", site.name, folder=elsewhere)
    assert (gone.returncode, "which no longer exists" in gone.stderr) == (2, True)
    assert get(port) == "version 1"
    assert site.command("stop", site.name, folder=elsewhere).returncode == 0


def test_ctrl_c_on_a_start_leaves_nothing(site: Site) -> None:
    site.append("wsgi", "import time; time.sleep(600)")
    words = [sys.executable, "-m", "fullhouse", "start", site.name, str(free_port()), "--boot-timeout=600"]
    with subprocess.Popen(words, cwd=site.folder, env=site.environment, stderr=subprocess.PIPE) as starting:
        wait_until(lambda: [one for one in running(runtime_folder()) if one.facts["project"] == site.name], "it starts")
        starting.send_signal(signal.SIGINT)
        assert starting.wait(60) == 130
    assert site.command("status", site.name).returncode == 6


def test_two_ports_of_one_project_are_told_apart(site: Site) -> None:
    first, second = str(free_port()), str(free_port())
    start(site, first)
    start(site, second)
    answer = site.command("stop", site.name)
    assert answer.returncode == 6
    assert first in answer.stderr
    assert site.command("stop", site.name, first).returncode == 0
    assert get(second) == "version 1"
    assert site.command("stop", site.name).returncode == 0


def test_a_start_that_fails_tells_why_and_leaves_nothing(site: Site) -> None:
    site.write("wsgi", "raise RuntimeError('broken on purpose')")
    answer = site.command("start", site.name, str(free_port()))
    assert answer.returncode == 5
    assert "broken on purpose" in answer.stderr
    assert site.command("status", site.name).returncode == 6


def test_hostile_clients_change_nothing(site: Site) -> None:
    port = str(free_port())
    start(site, port)
    (instance,) = [one for one in running(runtime_folder()) if one.facts["project"] == site.name]
    assert instance.control.stat().st_mode & 0o777 == 0o600
    silent = [socket.socket(socket.AF_UNIX) for _ in range(2 * CLIENTS)]
    for client in silent:
        client.connect(str(instance.control))
    for garbage in (b"\n", b"\xff\x00\n", b"[1]\n", b'{"verb": "fly"}\n', b"x" * (2 * LONGEST)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(instance.control))  # waits while the queue of the socket is full
            client.settimeout(60)
            client.sendall(garbage)
            reply = client.recv(4096) if garbage.endswith(b"\n") else b""
            assert b'"ok": false' in reply or not garbage.endswith(b"\n")
    assert get(port) == "version 1"
    assert status(site, port)["generations"]
    for client in silent:
        client.close()


def test_a_killed_supervisor_leaves_nothing_that_looks_alive(site: Site) -> None:
    port = str(free_port())
    start(site, port)
    os.kill(status(site, port)["pid"], signal.SIGKILL)
    wait_until(lambda: site.command("status", site.name).returncode == 6, "it was known to be gone")
    wait_until(lambda: site.command("start", site.name, port, "--workers=1").returncode == 0, "it could start again")
    assert site.command("stop", site.name).returncode == 0
