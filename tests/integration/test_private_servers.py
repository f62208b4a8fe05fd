"""The private servers are real ones, and they leave with whoever started them."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pymysql
import pytest

import private_servers
from private_servers import MissingServer, PrivateServer, ServerError, mysql_family, postgresql, which_mysql
from support import ask

ENGINES = {"mysql": mysql_family, "postgresql": postgresql}
PROGRAM = private_servers.__file__
TESTS = Path(__file__).parent.parent

Make = Callable[..., AbstractContextManager[PrivateServer]]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Make:
    return ENGINES[request.param]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the servers' users can reach when root runs the tests, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="fullhouse-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def option(server: PrivateServer, name: str) -> str:
    return ask(server, f"SELECT @@{name}" if server.vendor == "mysql" else f"SHOW {name}")


def wait_gone(process: int) -> None:
    """Return when the kernel says that the process has ended; fail after a minute."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60)[0], f"process {process} still runs"
    finally:
        os.close(handle)


def test_answers_on_tcp_and_socket_and_leaves_nothing(make: Make) -> None:
    with make(max_connections=23) as server:
        pid = server.pid
        assert pid is not None
        assert option(server, "max_connections") == "23"
        assert ask(server, "SELECT 41 + 1", by_socket=True) == "42"
        assert ask(server, "SELECT 41 + 1", user=server.admin_user) == "42"
    assert not server.folder.exists()
    wait_gone(pid)


def test_kill_loses_no_commit_and_start_keeps_the_port(make: Make) -> None:
    rows = "SELECT count(*) FROM kept"
    with make() as server:
        ask(server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)", rows)
        server.kill()
        assert server.pid is None
        with pytest.raises((pymysql.OperationalError, psycopg.OperationalError), match=r"refused|Can't connect"):
            ask(server, rows)
        server.start()
        killed = server.pid
        assert ask(server, rows) == "1"
        server.restart()
        assert server.pid != killed
        assert ask(server, rows) == "1"


def test_a_named_folder_is_kept_and_found_again(make: Make, open_folder: Path) -> None:
    with make(open_folder) as first:
        pass
    with make(open_folder) as second:
        assert second.password == first.password
        assert ask(second, "SELECT 1") == "1"


def test_an_option_the_server_refuses_shows_its_log(make: Make) -> None:
    with pytest.raises(ServerError, match="no_such_option"), make(no_such_option=1):
        pass


def test_missing_programs_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with (
        pytest.raises(MissingServer, match=r"mariadb-install-db is not .*apt-get install mariadb-server"),
        private_servers.mariadb(),
    ):
        pass


def test_a_folder_that_the_server_cannot_use_is_refused(make: Make, open_folder: Path) -> None:
    open_folder.chmod(0o700 if os.geteuid() == 0 else 0o500)
    with pytest.raises(ServerError, match=r"may not enter|Permission denied"), make(open_folder):
        pass
    assert list(open_folder.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_refused(make: Make, open_folder: Path) -> None:
    with pytest.raises(ServerError, match="too deep"), make(open_folder / ("x" * 100)):
        pass


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_and_folder_go_when_the_caller_dies(make: Make, end: signal.Signals) -> None:
    script = (
        "import private_servers, select, sys\n"
        f"with private_servers.{make.__name__}() as server:\n"
        "    print(server.pid, server._guard.pid, server.folder, flush=True)\n"
        # Until this process ends. Not one long read: a signal just before it would be handled after it.
        "    while not select.select([sys.stdin], [], [], 0.1)[0]:\n"
        "        pass\n"
    )
    with called(script) as (caller, line):
        server, guard, folder = line.split()
        caller.send_signal(end)
        caller.wait(60)
        wait_gone(int(guard))
        wait_gone(int(server))
        assert not Path(folder).exists()


@contextmanager
def called(script: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python program that may use private servers, and the first line that it prints."""
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(Path(PROGRAM).parent)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as caller:
        try:
            assert caller.stdout
            yield caller, caller.stdout.readline()
        finally:
            caller.kill()


def test_server_goes_though_a_child_of_the_dead_caller_keeps_the_pipe(make: Make) -> None:
    script = (
        "import os, private_servers, sys\n"
        f"with private_servers.{make.__name__}() as server:\n"
        "    if os.fork():\n"
        "        print(server.pid, server._guard.pid, server.folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with called(script) as (caller, line):
        server, guard, folder = line.split()
        caller.kill()
        wait_gone(int(guard))
        wait_gone(int(server))
        assert not Path(folder).exists()


# A whole test run with ignored and blocked signals, as `make test &` in a script and nohup leave them to it.
RUN = """
import os, signal, sys
for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
    signal.signal(signum, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
words = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-c", os.devnull]
os.execv(sys.executable, [*words, "--rootdir", *sys.argv[1:2], *sys.argv[1:]])
"""
SIGNALS = """
import signal, subprocess, sys

ASK = "import signal; print(sorted(int(s) for s in signal.valid_signals() if signal.getsignal(s) is signal.SIG_IGN),"\\
      "signal.pthread_sigmask(signal.SIG_BLOCK, []))"

def test_signals():
    ask = [sys.executable, "-c", ASK]
    plain = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)}  # Python's own, not inherited
    output = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True).stdout
    assert output == f"{sorted(map(int, plain))} set()\\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
KILLED = """
import os, signal

def test_run(mysql_server, postgresql_server):
    for server in (mysql_server, postgresql_server):
        print("SERVER", server.pid, server._guard.pid, server.folder, flush=True)
    print("READY", flush=True)
    signal.pause()
"""


@contextmanager
def pytest_run(folder: Path, test: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A pytest of its own with this project's conftest.py, started with signals ignored and blocked."""
    folder.mkdir()
    (folder / "conftest.py").write_text("from tests_conftest import *\n")
    (folder / "tests_conftest.py").symlink_to(TESTS / "conftest.py")
    (folder / "test_it.py").write_text(test)
    environment = {**os.environ, "PYTHONPATH": f"{Path(PROGRAM).parent}:{TESTS}:{folder}"}
    command = [sys.executable, "-c", RUN, str(folder), *words]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as run:
        try:
            yield run
        finally:
            run.kill()


def test_a_run_takes_default_signals_for_itself_and_what_it_starts(tmp_path: Path) -> None:
    with pytest_run(tmp_path / "run", SIGNALS) as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 0, out


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_server(tmp_path: Path, end: signal.Signals) -> None:
    with pytest_run(tmp_path / "run", KILLED) as run:
        assert run.stdout
        servers = []
        for line in run.stdout:
            if line.startswith("SERVER"):
                servers.append(line.split()[1:])
            if line.startswith("READY"):
                break
        assert len(servers) == 2
        run.send_signal(end)
        run.wait(60)
        for server, guard, folder in servers:
            wait_gone(int(server))
            wait_gone(int(guard))
            assert not Path(folder).exists()


def test_a_test_that_hangs_fails_with_all_stacks_and_the_run_goes_on(tmp_path: Path) -> None:
    test = """
import threading

import pytest

def wait_for_ever():
    threading.Event().wait()

@pytest.mark.timeout(5, func_only=True)  # a server may take longer to start
def test_hangs(mysql_server):
    print("SERVER", mysql_server.pid, mysql_server._guard.pid, mysql_server.folder, flush=True)
    threading.Thread(target=wait_for_ever, daemon=True).start()
    threading.Event().wait()

def test_goes_on():
    pass
"""
    with pytest_run(tmp_path / "run", test) as run:
        out, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "1 failed, 1 passed" in out
    assert "in wait_for_ever" in out
    (words,) = [line.split() for line in out.splitlines() if line.startswith("SERVER")]
    wait_gone(int(words[1]))
    wait_gone(int(words[2]))
    assert not Path(words[3]).exists()


def test_server_dies_with_its_guard() -> None:
    with mysql_family() as server:
        pid = server.pid
        assert pid is not None
        server._guard.kill()
        wait_gone(pid)
    shutil.rmtree(server.folder)


COMMAND = """
import os, signal, socket, sys

def leave(signum, frame):  # the database must still be there
    address = (os.environ["FULLHOUSE_DEMO_HOST"], int(os.environ["FULLHOUSE_DEMO_PORT"]))
    socket.create_connection(address).close()
    sys.exit(7)

signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGTERM, leave)
print(os.environ["FULLHOUSE_DEMO_DB"], flush=True)
sys.stdin.read()  # ends with the test
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_command_line_passes_signals_on_and_ends_with_the_commands_code(make: Make, end: signal.Signals) -> None:
    engine = which_mysql() if make is mysql_family else "postgresql"
    command = [sys.executable, PROGRAM, engine, "--", sys.executable, "-c", COMMAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == engine
        process.send_signal(end)
        assert process.wait(60) == 7
