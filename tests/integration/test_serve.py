"""A project of `django-admin startproject`, served by every command there is."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import programs
from support import DEADLINE_S, Running, Site, fetch, fetch_tls, fetch_unix, group_of, make_certificate, wait_until

FULLHOUSE = ("-m", "fullhouse", "serve", "mysite")
MANAGE = ("manage.py", "serve")
COMMANDS = {"fullhouse": FULLHOUSE, "manage.py": MANAGE}
ANY_PORT = ("--bind", "127.0.0.1:0")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site.make(tmp_path_factory.mktemp("serve") / "site")
    site.append("settings", "INSTALLED_APPS += ['fullhouse']")
    return site


@pytest.fixture
def site(pristine: Site, tmp_path: Path) -> Site:
    """A project of the test's own, to change."""
    return Site(Path(shutil.copytree(pristine.folder, tmp_path / "site")))


def command_lines(server: Running) -> list[str]:
    """What ps shows of each process."""
    pids = ",".join(map(str, group_of(server.process.pid)))
    command = [programs.path("ps"), "-o", "args=", "-p", pids]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S).stdout.splitlines()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_new_project_is_served_and_ctrl_c_leaves_nothing(pristine: Site, words: Sequence[str]) -> None:
    with pristine.served(*words, *ANY_PORT, "--workers", "2", "--threads", "3") as server:
        assert re.match(r"fullhouse \d+\.\d+\.\d+ serves mysite$", server.banner[0])
        assert server.row("requests").startswith("2 workers × 3 threads = 6 at once")
        assert server.row("stop") == f"Ctrl-C (pid {server.process.pid})"
        assert server.get() == "version 1"
        assert any("fullhouse: mysite" in line for line in wait_until(lambda: command_lines(server), "ps tells"))
        port = server.port
        assert server.end(signal.SIGINT) == 0
        assert server.errors() == ""
    with pytest.raises(ConnectionRefusedError):
        fetch("127.0.0.1", port, "/")


def test_sigterm_ends_it_too(pristine: Site) -> None:
    with pristine.served(*FULLHOUSE, *ANY_PORT) as server:
        assert server.get() == "version 1"
        server.process.terminate()
        assert server.process.wait(60) == 0
        wait_until(lambda: group_of(server.process.pid) == [], "the workers have ended")


SLOW_THREAD_START = """
import os, select, signal, threading
from pathlib import Path
start = threading.Thread.start
def start_until_a_signal_comes(thread):
    start(thread)
    ready, notify = os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify)
    Path("starting").touch()
    select.select([ready], [], [])
threading.Thread.start = start_until_a_signal_comes
"""


def test_ctrl_c_does_not_wait_for_a_lock_that_the_worker_itself_holds(site: Site) -> None:
    """gthread's handler hung when the signal came while its main thread handed a request to the pool."""
    site.append("wsgi", SLOW_THREAD_START)
    words = ["--worker-class", "gthread", "--workers", "1", "--graceful-timeout", "5"]
    with site.served(*FULLHOUSE, *ANY_PORT, *words) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until((site.folder / "starting").exists, "the worker starts a thread")
            assert server.end() == 0
        assert server.errors() == ""  # a worker that hung is reported as killed


def test_gunicorn_serves_under_our_plan(pristine: Site, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    words = ["-m", "gunicorn", "-c", "python:fullhouse.conf", "mysite.wsgi"]
    variables = {"FULLHOUSE_BIND": f"unix:{path}", "FULLHOUSE_WORKERS": "3", "FULLHOUSE_PROCESS_NAME": "box office"}
    with pristine.started(*words, **variables) as server:
        wait_until(path.exists, "gunicorn listens")
        assert fetch_unix(path) == "version 1"
        names = wait_until(
            lambda: [line for line in command_lines(server) if "[box office]" in line][3:], "3 workers run"
        )
        assert len(names) == 1
        assert server.end() == 0


def test_gunicorn_is_refused_what_we_refuse(pristine: Site) -> None:
    words = ["-m", "gunicorn", "-c", "python:fullhouse.conf", "mysite.wsgi"]
    with pristine.started(*words, FULLHOUSE_WORKERS="0") as server:
        assert server.process.wait(60) == 2
        assert server.errors().startswith("fullhouse: FULLHOUSE_WORKERS: workers must be")


def test_gunicorns_own_k_cannot_take_the_options_away(pristine: Site) -> None:
    words = ["-m", "gunicorn", "-c", "python:fullhouse.conf", "-k"]
    with pristine.started(*words, "fullhouse.worker.Worker", "mysite.wsgi") as server:
        assert server.process.wait(60) == 2
        assert server.errors().startswith("fullhouse: gunicorn -k fullhouse.worker.Worker: its options are those of")
    with pristine.started(*words, "gthread", "mysite.wsgi", FULLHOUSE_MAX_BODY="1M") as server:
        assert server.process.wait(60) == 2
        expected = "fullhouse: --worker-class: worker_class gthread does not know max_body (FULLHOUSE_MAX_BODY)."
        assert server.errors().startswith(expected)


def test_port_and_web_concurrency(pristine: Site) -> None:
    with pristine.served(*FULLHOUSE, PORT="0", WEB_CONCURRENCY="1") as server:
        assert server.row("address").startswith("http://0.0.0.0:")
        assert server.row("requests").startswith("1 workers × ")
        assert server.row("environment") == "bind from PORT, workers from WEB_CONCURRENCY"
        assert server.get() == "version 1"
        server.end()


def test_gunicorn_cmd_args(pristine: Site) -> None:
    given = "--bind 127.0.0.1:0 --workers 1 --threads 2 --limit-request-line 40"
    with pristine.served(*FULLHOUSE, GUNICORN_CMD_ARGS=given) as server:
        assert server.row("requests").startswith("1 workers × 2 threads")
        assert server.get() == "version 1"
        with pytest.raises(AssertionError, match="request line is longer than"):
            server.get("/" + "x" * 40)
        server.end()


def test_settings_environment_and_command_line(site: Site) -> None:
    site.append("settings", "FULLHOUSE = {'bind': '127.0.0.1:0', 'workers': 1, 'threads': 2, 'process_name': 'set'}")
    with site.served(*MANAGE, "--process-name", "given", FULLHOUSE_THREADS="3") as server:
        assert server.row("requests").startswith("1 workers × 3 threads")
        assert server.get() == "version 1"
        assert any("[given]" in line for line in command_lines(server))
        server.end()


def test_a_unix_socket_survives_its_workers(pristine: Site, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    words = ["--bind", f"unix:{path}", "--workers", "1", "--max-requests", "1"]
    with pristine.served(*FULLHOUSE, *words) as server:
        assert server.row("address") == f"unix:{path}"
        for _ in range(3):  # each by another worker
            assert fetch_unix(path) == "version 1"
        server.end()
    assert not path.exists()


def test_tls(pristine: Site, tmp_path: Path) -> None:
    certificate, key = tmp_path / "site.crt", tmp_path / "site.key"
    make_certificate(certificate, key)
    with pristine.served(*FULLHOUSE, *ANY_PORT, "--certfile", str(certificate), "--keyfile", str(key)) as server:
        assert server.row("address").startswith("https://127.0.0.1:")
        assert fetch_tls(server.port, certificate) == "version 1"
        server.end()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_views_see_the_variables_for_workers(site: Site, words: Sequence[str]) -> None:
    site.append("settings", "FULLHOUSE = {'env': {'COLOUR': 'red'}}")
    with site.served(*words, *ANY_PORT, "--workers", "1") as server:
        assert server.get("/variable/COLOUR") == "red"
        server.end()


def test_the_settings_see_the_variables_of_the_command_line(site: Site) -> None:
    site.append("settings", "import os\nos.environ['SEEN'] = os.environ['COLOUR'] + '!'")
    with site.served(*FULLHOUSE, *ANY_PORT, "--env", "COLOUR=green") as server:
        assert server.get("/variable/SEEN") == "green!"
        server.end()


def test_python_path(site: Site, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "paint.py").write_text("COLOUR = 'blue'\n")
    site.append("urls", "import paint\nos.environ['COLOUR'] = paint.COLOUR")
    with site.served(*FULLHOUSE, *ANY_PORT, "--python-path", str(tmp_path / "more")) as server:
        assert server.get("/variable/COLOUR") == "blue"
        server.end()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_reload_picks_up_a_change(site: Site, words: Sequence[str]) -> None:
    urls = site.folder / "mysite" / "urls.py"
    with site.served(*words, *ANY_PORT, "--reload", "--workers", "1") as server:
        assert server.get() == "version 1"
        urls.write_text(urls.read_text().replace("version 1", "version number two"))

        def new_version_is_served() -> bool:
            urls.touch()  # again, as gunicorn looks each second, and may first have seen the file after its change
            with suppress(OSError):  # from a worker that is just leaving
                return server.get() == "version number two"
            return False

        wait_until(new_version_is_served, "the new version is served")
        server.end()


def test_logs_go_to_files(pristine: Site, tmp_path: Path) -> None:
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    words = ["--access-log", str(access), "--error-log", str(error), "--log-level", "info"]
    words += ["--access-log-format", "%(m)s %(U)s %(s)s"]
    with pristine.served(*FULLHOUSE, *ANY_PORT, *words) as server:
        server.get()
        server.get("/variable/HOME")
        server.end()
        assert server.errors() == ""
    assert access.read_text() == "GET / 200\nGET /variable/HOME 200\n"
    assert "Booting worker" in error.read_text()


def test_the_access_log_goes_to_the_terminal(pristine: Site) -> None:
    with pristine.served(*FULLHOUSE, *ANY_PORT, "--access-log", "-") as server:
        server.get()
        server.end()
        out, _ = server.process.communicate()
    assert '"GET / HTTP/1.1" 200 9' in out


def test_any_other_setting_of_gunicorn(site: Site) -> None:
    site.append("settings", "FULLHOUSE = {'gunicorn': {'limit_request_line': 40}}")
    with site.served(*FULLHOUSE, *ANY_PORT) as server:
        with pytest.raises(AssertionError, match="request line is longer than"):
            server.get("/" + "x" * 40)
        server.end()


LOGGED = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"own": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "loggers": {"django.request": {"handlers": ["own"], "propagate": False}},
}
"""


@pytest.mark.parametrize("worker", ["ours", "gthread"])
@pytest.mark.parametrize("logging", ["", LOGGED], ids=["Django's own logging", "its own"])
def test_an_error_of_a_page_is_in_the_log_once(site: Site, logging: str, worker: str) -> None:
    """With DEBUG off, Django's own logging only mails it."""
    site.append("settings", f"DEBUG = False\n{logging}")
    site.append(
        "urls", "def fail(request):\n    raise RuntimeError('the page fails')\nurlpatterns += [path('fail', fail)]\n"
    )
    words = ["--workers", "1", *([] if worker == "ours" else ["--worker-class", "gthread"])]
    with site.served(*FULLHOUSE, *ANY_PORT, *words) as server:
        with pytest.raises(AssertionError):
            server.get("/fail")
        wait_until(lambda: "RuntimeError: the page fails" in server.errors(), "the error was logged")
        server.end()
        assert server.errors().count("RuntimeError: the page fails") == 1
        assert "Internal Server Error: /fail" in server.errors()


def test_the_banner_says_when_requests_are_ended(pristine: Site) -> None:
    words = ("--request-timeout", "20", "--request-timeouts", "/export=120")
    with pristine.served(*FULLHOUSE, *ANY_PORT, *words) as server:
        expected = "a request gets 503, and its query is cancelled, after 20 s, 120 s under /export"
        assert server.row("timeouts") == expected
        server.end()
    with pristine.served(*FULLHOUSE, *ANY_PORT) as server:
        assert not [line for line in server.banner if line.split()[:1] == ["timeouts"]]
        server.end()


def test_the_banner_has_colours_on_a_terminal_only(pristine: Site) -> None:
    with pristine.served(*FULLHOUSE, *ANY_PORT) as server:
        assert "\x1b" not in "".join(server.banner)
        server.end()


def test_manage_py_prints_the_plan(pristine: Site) -> None:
    words = [sys.executable, "manage.py", "serve", "--plan", "--workers", "2", "--threads", "7"]
    text = subprocess.run(words, cwd=pristine.folder, capture_output=True, text=True, check=True)
    assert text.stdout.startswith("Plan for mysite, sizing fit\n")
    assert "2 workers × 7 threads: 14 requests at once" in text.stdout
    program = subprocess.run(
        [*words, "--format", "json"], cwd=pristine.folder, capture_output=True, text=True, check=True
    )
    assert '"requests": 14' in program.stdout


def test_the_demo_is_served_with_the_same_options(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    words = ["-m", "fullhouse.demo", *ANY_PORT, "--workers", "1"]
    with Site(tmp_path).started(*words, FULLHOUSE_DEMO_FOLDER=str(folder)) as server:
        server.read_banner()
        assert "The box office is open: 4 events." in server.banner
        assert "fullhouse 0.1.0 serves fullhouse.demo" in server.banner
        assert "Midnight in Montmartre" in server.get()
        assert server.end() == 0
    assert (folder / "boxoffice.sqlite3").exists()


def test_a_demo_that_cannot_open_says_why(tmp_path: Path) -> None:
    variables = {"FULLHOUSE_DEMO_FOLDER": str(tmp_path), "FULLHOUSE_DEMO_DB": "postgresql", "FULLHOUSE_DEMO_PORT": "1"}
    with Site(tmp_path).started("-m", "fullhouse.demo", **variables) as server:
        assert server.process.wait(60) == 3
        assert len(server.errors().splitlines()) == 2
