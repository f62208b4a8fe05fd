"""No orphan, whoever dies and when; a good end; a crash loop; the first start."""

import os
import random
import resource
import signal
import subprocess
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from threading import Thread

import pytest

import programs
from supervised import DEADLINE_S, Site, alive, children, kill, wait_until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_nothing_outlives_a_killed_supervisor(site: Site) -> None:
    with site.served() as running:
        tree = running.tree()
        assert len(tree) == 4
        running.signal(signal.SIGKILL)
        running.process.wait(DEADLINE_S)
        wait_until(lambda: not alive(tree), "master and workers were gone")


def test_a_busy_worker_dies_with_the_supervisor_too(site: Site) -> None:
    with site.served() as running:
        tree = running.tree()

        def ask() -> None:
            with suppress(OSError, HTTPException):
                running.get("/slow")

        clients = [Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        running.signal(signal.SIGKILL)
        for client in clients:
            client.join(DEADLINE_S)
        wait_until(lambda: not alive(tree), "master and workers were gone")


def test_a_killed_master_takes_its_workers_and_is_replaced(site: Site) -> None:
    with site.served() as running:
        (master,) = running.masters()
        old = {pid: born for pid, born in running.tree().items() if pid != running.process.pid}
        kill(master)
        wait_until(lambda: not alive(old), "the old master and its workers were gone")
        running.wait_whole()
        assert "ended unexpectedly: killed by SIGKILL. It is replaced now." in running.output


def test_a_killed_worker_is_replaced(site: Site) -> None:
    with site.served() as running:
        victim = running.workers()[0]
        kill(victim)
        wait_until(lambda: victim not in running.workers(), "the worker was gone")
        running.wait_whole()


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_of_start_reload_and_stop_nothing_is_left(site: Site, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - which moment is tried
    with site.started() as running:
        assert running.port
        if seed % 2:
            running.wait_serving()
            running.signal(chance.choice([signal.SIGHUP, signal.SIGTERM]))
        time.sleep(chance.random())  # any moment is right
        tree = running.tree()
        running.signal(signal.SIGKILL)
        running.process.wait(DEADLINE_S)
        wait_until(lambda: not alive(tree), "master and workers were gone")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_by_signal_leaves_nothing_and_says_zero(site: Site, signum: int) -> None:
    with site.served() as running:
        tree = running.tree()
        running.signal(signum)
        assert running.process.wait(DEADLINE_S) == 0
        assert alive(tree) == []


def test_a_stop_lets_requests_finish(site: Site) -> None:
    with site.served() as running:
        answers: list[str] = []
        client = Thread(target=lambda: answers.append(running.get("/slow")))
        client.start()
        time.sleep(0.3)  # it is being answered, or it waits in the queue: both must be served
        running.signal(signal.SIGTERM)
        client.join(DEADLINE_S)
        assert answers == ["finished"]
        assert running.process.wait(DEADLINE_S) == 0


def test_an_orphan_of_a_worker_is_adopted_and_ends_with_the_supervisor(site: Site) -> None:
    site.write(
        "urls",
        f"""
import subprocess
from django.http import HttpResponse
from django.urls import path

def home(request):
    # A shell that leaves its child behind.
    return HttpResponse(subprocess.check_output([{programs.path("sh")!r}, "-c", "sleep 600 >/dev/null & echo $!"]))

urlpatterns = [path("", home)]
""",
    )
    with site.started() as running:
        wait_until(lambda: len(running.workers()) == 2, "the workers were there")
        orphan = int(running.get())
        wait_until(lambda: orphan in children(running.process.pid), "the orphan was adopted")
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert not Path(f"/proc/{orphan}").exists()


def test_workers_that_crash_again_and_again_are_told(site: Site) -> None:
    with site.served(workers=1) as running:

        def crash_again() -> bool:
            with suppress(OSError, HTTPException):
                running.get("/crash", timeout=5)
            return "this is a crash loop: 3 workers in a row" in running.output

        wait_until(crash_again, "the crash loop was reported")
        running.wait_whole(workers=1)


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("wsgi", "import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("wsgi", "import os; os.abort()", "killed by SIGABRT"),
    ],
)
def test_a_first_start_that_fails_tells_why(site: Site, module: str, text: str, expected: str) -> None:
    site.write(module, text)
    answer = site.command("serve", "mysite", "--bind", "127.0.0.1:0")
    assert answer.returncode == 5
    assert expected in answer.stderr


def test_a_first_start_that_hangs_ends_at_the_boot_timeout(site: Site) -> None:
    site.write("wsgi", "import time; time.sleep(600)")
    answer = site.command("serve", "mysite", "--bind", "127.0.0.1:0", "--boot-timeout", "1")
    assert answer.returncode == 5
    assert "not ready after 1 s" in answer.stderr


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_stop_while_the_first_generation_starts(site: Site, preload: str) -> None:
    site.write("wsgi", f"import pathlib, time; pathlib.Path({str(site.folder)!r}, 'loads').touch(); time.sleep(600)")
    with site.started(preload) as running:
        wait_until((site.folder / "loads").exists, "the application is loaded")
        tree = running.tree()
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert alive(tree) == []


def test_a_stop_is_seen_by_the_ready_probe_before_requests_are_refused(site: Site) -> None:
    with site.served("--stop-delay", "600") as running:
        assert (running.status("/-/live"), running.status("/-/ready")) == (200, 200)
        running.signal(signal.SIGTERM)
        wait_until(lambda: running.status("/-/ready") == 503, "the probe says that the site stops")
        assert running.status("/-/live") == 200
        assert running.get() == "version 1"
        running.signal(signal.SIGTERM)  # again: at once
        assert running.process.wait(DEADLINE_S) == 0


def test_probes_that_are_off_go_to_django(site: Site) -> None:
    with site.served("--no-probes", workers=1) as running:
        assert running.status("/-/live") == 404


def new_pid_namespace() -> list[str]:
    """The words that start a command as process 1; skips the test where the system, or its container, forbids it."""
    words = [programs.path("unshare"), "--pid", "--fork", "--mount-proc"]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    probe = subprocess.run([*words, programs.path("true")], capture_output=True, text=True, timeout=DEADLINE_S)
    if probe.returncode != 0:
        pytest.skip(f"no PID namespace of its own: {probe.stderr.strip()}")
    return words


def test_as_the_first_process_of_a_container_it_reaps_and_obeys(site: Site) -> None:
    """In a namespace of its own, process 1: the kernel sends it no signal that it does not handle, and every orphan."""
    with site.started(before=(*new_pid_namespace(), "--kill-child")) as running:
        running.wait_ready()
        (first,) = children(running.process.pid)
        (master,) = children(first)
        assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        kill(master)
        wait_until(lambda: children(first) not in ([], [master]), "the master was reaped and replaced")
        running.wait_serving()
        os.kill(first, signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0


def test_a_reload_that_the_system_refuses_harms_nobody(site: Site) -> None:
    with site.served() as running:
        limits = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        running.signal(signal.SIGHUP)
        wait_until(lambda: "Too many open files" in running.output, "the refusal was logged")
        assert running.get() == "version 1"
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, limits)
        site.deploy(2)
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.get() == "version 2", "the next reload went well")


def test_logs_are_rotated_while_a_generation_starts(site: Site) -> None:
    """gunicorn has no handler for USR1 yet, which would end it."""
    with site.served() as running:
        site.deploy(2)
        running.signal(signal.SIGHUP)
        wait_until(lambda: len(running.masters()) == 2, "the next generation started")
        running.signal(signal.SIGUSR1)
        wait_until(lambda: running.get() == "version 2", "it serves")
        assert "killed" not in running.output
