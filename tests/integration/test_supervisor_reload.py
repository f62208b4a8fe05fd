"""A reload drops no request, a broken deploy harms nobody, and reloads and stops at once are never stuck."""

import os
import select
import signal
import socket
from pathlib import Path

import pytest

from supervised import DEADLINE_S, Load, Site, alive, wait_until

BROKEN = {
    "does not import": ("wsgi", "raise RuntimeError('broken on purpose')", "broken on purpose"),
    "hangs at import": ("wsgi", "import time; time.sleep(600)", "not ready after 10 s"),
    "dies at import": ("wsgi", "import os; os.abort()", "killed by SIGABRT"),
    "exits at import": ("wsgi", "import os; os._exit(7)", "exit code 7"),
    "breaks settings": ("settings", "1 / 0", "division by zero"),
    "fails the first request": ("urls", "raise RuntimeError('broken on purpose')", "broken on purpose"),
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


# gthread may close a kept connection just as its client sends: it promises all to one-shot clients only.
@pytest.mark.parametrize(
    ("worker", "keep_alive", "reloads"), [("fullhouse.worker.Worker", True, 20), ("gthread", False, 5)]
)
def test_reloads_under_load_fail_no_request(site: Site, worker: str, keep_alive: bool, reloads: int) -> None:
    site.append("settings", f"FULLHOUSE = {{'worker_class': {worker!r}}}\n")
    with site.served() as running, Load(running.port, keep_alive=keep_alive) as load:
        for version in range(2, 2 + reloads):
            site.deploy(version)
            running.signal(signal.SIGHUP)
            wait_until(lambda wanted=version: f"version {wanted}" in load.answers[-8:], "the new code answered")
        load.wait_more()
    assert load.failures == []


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_deploy_harms_nobody(site: Site, kind: str) -> None:
    module, text, expected = BROKEN[kind]
    boot_timeout = "10" if kind == "hangs at import" else "60"
    with site.served("--boot-timeout", boot_timeout, "--warm-up", "/") as running:
        before = running.tree()
        with Load(running.port, keep_alive=False) as load:
            load.wait_more()
            site.write(module, text)
            running.signal(signal.SIGHUP)
            wait_until(lambda: "keeps serving" in running.output, "the generation was discarded")
            load.wait_more()
        assert load.failures == []
        assert set(load.answers) == {"version 1"}
        assert expected in running.output
        wait_until(lambda: running.tree() == before, "nothing of the broken generation was left")
        assert alive(before) == list(before)


def test_reloads_at_start_and_during_reloads_end_in_the_newest_code(site: Site) -> None:
    with site.started() as running:
        assert running.port
        running.signal(signal.SIGHUP)
        running.wait_serving()
        site.deploy(2)
        running.signal(signal.SIGHUP)
        site.deploy(3)
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.get() == "version 3" and len(running.masters()) == 1, "the newest code served")


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_a_stop_during_a_reload_ends_everything(site: Site, preload: str) -> None:
    with site.served(preload) as running:
        site.write(
            "wsgi", f"import pathlib, time; pathlib.Path({str(site.folder)!r}, 'loads').touch(); time.sleep(600)"
        )
        running.signal(signal.SIGHUP)
        wait_until((site.folder / "loads").exists, "the new generation loads")
        tree = running.tree()
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert alive(tree) == []


def test_a_unix_socket_outlives_a_reload_and_goes_with_the_supervisor(site: Site) -> None:
    path = site.folder / "socket"
    with site.started("--bind", f"unix:{path}") as running:
        wait_until(lambda: len(running.workers()) == 2, "the workers were there")
        inode = os.stat(path).st_ino
        (first,) = running.masters()
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.masters() not in ([first], []) and first not in running.masters(), "it was replaced")
        assert os.stat(path).st_ino == inode
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert not path.exists()


def test_no_worker_accepts_before_all_of_its_generation_are_ready(site: Site) -> None:
    """It might be discarded for the sake of another, with the requests that it runs."""
    site.append(
        "wsgi",
        f"""
import os, time
try:
    os.close(os.open({str(site.folder / "first")!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    while not os.path.exists({str(site.folder / "go-on")!r}):
        time.sleep(0.02)
""",
    )
    with site.started("--no-preload") as running:
        wait_until((site.folder / "first").exists, "one worker was about to be ready")
        with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert select.select([client], [], [], 1.0)[0] == [], "nobody answers, however long one waits"
            (site.folder / "go-on").touch()
            assert b"version 1" in client.makefile("rb").read()


CONF = """
from pathlib import Path
pidfile = "site.pid"
def on_starting(server): note("on_starting")
def when_ready(server): note("when_ready")
def post_worker_init(worker): note("post_worker_init")
def on_exit(server): note("on_exit")
def note(hook):
    with Path("hooks").open("a") as file:
        file.write(hook + "\\n")
"""


def test_hooks_and_the_pidfile_of_a_gunicorn_conf_py_through_a_reload(site: Site) -> None:
    """docs/concepts/reload.md says which hook runs how often."""
    (site.folder / "gunicorn.conf.py").write_text(CONF)
    pid_file = site.folder / "site.pid"

    def hooks() -> list[str]:
        return (site.folder / "hooks").read_text().split()

    with site.served(workers=1) as running:
        assert int(pid_file.read_text()) == running.process.pid
        site.deploy(2)
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.get() == "version 2" and len(running.masters()) == 1, "the new code served alone")
        assert int(pid_file.read_text()) == running.process.pid
        wait_until(lambda: hooks().count("on_exit") == 1, "the first generation ended")
        assert [hooks().count(name) for name in ("on_starting", "when_ready", "post_worker_init")] == [1, 2, 2]
        again = site.command("serve", site.name, "--bind", "127.0.0.1:0")
        assert again.returncode == 7
        assert "pidfile: Already running on PID" in again.stderr
        assert running.get() == "version 2"
        running.signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert not pid_file.exists()


def test_a_broken_deploy_of_workers_that_load_the_application_themselves_harms_nobody(site: Site) -> None:
    with site.served("--no-preload", "--boot-timeout", "20") as running:
        before = running.tree()
        site.write("wsgi", "import os; os._exit(7)")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "keeps serving" in running.output, "the generation was discarded")
        assert "before all were ready" in running.output
        assert alive(before) == list(before)
        assert running.get() == "version 1"
