"""The private servers are real ones, and they leave with whoever started them."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pymysql
import pytest

import private_servers
from private_servers import MissingServer, PrivateServer, ServerError, mariadb, postgresql
from support import ask

ENGINES = {"mariadb": mariadb, "postgresql": postgresql}
PROGRAM = private_servers.__file__

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
    return ask(server, f"SELECT @@{name}" if server.engine == "mariadb" else f"SHOW {name}")


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
        mariadb(),
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
        "import private_servers, signal\n"
        f"with private_servers.{make.__name__}() as server:\n"
        "    print(server.pid, server._guard.pid, server.folder, flush=True)\n"
        "    signal.pause()\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(PROGRAM).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with caller:
        assert caller.stdout
        server, guard, folder = caller.stdout.readline().split()
        caller.send_signal(end)
    wait_gone(int(guard))
    wait_gone(int(server))
    assert not Path(folder).exists()


def test_server_dies_with_its_guard() -> None:
    with mariadb() as server:
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
while True:
    signal.pause()
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_command_line_passes_signals_on_and_ends_with_the_commands_code(make: Make, end: signal.Signals) -> None:
    command = [sys.executable, PROGRAM, make.__name__, "--", sys.executable, "-c", COMMAND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == make.__name__
        process.send_signal(end)
    assert process.returncode == 7
