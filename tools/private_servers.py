"""Private database servers, to use and throw away: for tests, `make demo DB=...` and benchmarks.

    with mariadb(max_connections=50) as server:
        pymysql.connect(host=server.host, port=server.port, user=server.user, ...)

    python tools/private_servers.py postgresql -- python manage.py check

A server listens on a free TCP port of 127.0.0.1 and on a Unix socket in its folder, and every account has a
random password. Started by root, it runs as the user `mysql` or `postgres`, or else as `nobody`. It is tuned
for speed: what was committed survives a killed server, but not the machine's loss of power.

Its parent is not the caller but a guard process (`server_guard.py`), so that neither server nor folder
outlives the caller, however that one ends.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import programs
import server_guard
from server_guard import HOST, ServerError

__all__ = [
    "MissingServer",
    "PrivateServer",
    "ServerError",
    "mariadb",
    "mysql",
    "mysql_family",
    "postgresql",
    "which_mysql",
]

ANSWER_TIMEOUT_S = 240.0  # more than the guard allows for making and starting a server
LEAVE_TIMEOUT_S = 60.0  # and for stopping it
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class MissingServer(ServerError):  # noqa: N818  it names what is missing, as FileNotFoundError does
    """The server's programs are not installed; the message says what to install."""


@dataclass(frozen=True)
class PrivateServer:
    """A running server and how to reach it. `user` owns `database`; `admin_user` may do anything.

    `socket` is the socket's path. libpq wants its folder instead, which is `folder`.
    """

    engine: str
    host: str
    port: int
    socket: Path
    user: str
    password: str = field(repr=False)
    admin_user: str
    admin_password: str = field(repr=False)
    database: str
    folder: Path
    _guard: subprocess.Popen[str] = field(repr=False)

    @property
    def pid(self) -> int | None:
        """The server's process, or None while it is stopped."""
        pid: int | None = _order(self._guard, "pid")["pid"]
        return pid

    def start(self) -> None:
        """Start the stopped server on the same port, and return once it answers."""
        _order(self._guard, "start")

    def stop(self) -> None:
        """Shut the server down in good order, clients or not."""
        _order(self._guard, "stop")

    def kill(self) -> None:
        """SIGKILL the server with all its processes, as a crash would."""
        _order(self._guard, "kill")

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def vendor(self) -> str:
        """Django's word for it: mysql or postgresql."""
        return "postgresql" if self.engine == "postgresql" else "mysql"

    @property
    def admin_access(self) -> dict[str, Any]:
        """What a driver's `connect` is given to log in as the administrator, without a database."""
        return {"host": self.host, "port": self.port, "user": self.admin_user, "password": self.admin_password}

    def environment(self) -> dict[str, str]:
        """The variables that make the demo site use this server."""
        return {
            "FULLHOUSE_DEMO_DB": self.engine,
            "FULLHOUSE_DEMO_HOST": self.host,
            "FULLHOUSE_DEMO_PORT": str(self.port),
            "FULLHOUSE_DEMO_USER": self.user,
            "FULLHOUSE_DEMO_PASSWORD": self.password,
            "FULLHOUSE_DEMO_NAME": self.database,
        }


def mariadb(folder: Path | None = None, **options: str | int) -> contextlib.AbstractContextManager[PrivateServer]:
    """A MariaDB server for the length of a `with` block.

    Its data live in `folder`/mariadb, are kept there and found again by the next run; without `folder` in a
    temporary folder. `options` are server variables (`max_connections=50, wait_timeout=5`).

    Raises MissingServer or ServerError.
    """
    return _server("mariadb", folder, options)


def mysql(folder: Path | None = None, **options: str | int) -> contextlib.AbstractContextManager[PrivateServer]:
    """The same with MySQL: `folder`/mysql."""
    return _server("mysql", folder, options)


def which_mysql() -> str:
    """mariadb or mysql: the one that is installed. TEST_MYSQL says which, where both are."""
    chosen = os.environ.get("TEST_MYSQL")
    if chosen not in (None, "mariadb", "mysql"):
        raise ServerError(f"TEST_MYSQL is {chosen!r}: give mariadb or mysql")
    return chosen or ("mysql" if programs.find_mysql() and not programs.find("mariadbd") else "mariadb")


def mysql_family(folder: Path | None = None, **options: str | int) -> contextlib.AbstractContextManager[PrivateServer]:
    """The same with whichever of both is installed, `which_mysql`."""
    return _server(which_mysql(), folder, options)


def postgresql(folder: Path | None = None, **options: str | int) -> contextlib.AbstractContextManager[PrivateServer]:
    """The same with PostgreSQL: `folder`/postgresql, and `options` such as `max_connections=50`."""
    return _server("postgresql", folder, options)


@contextlib.contextmanager
def _server(engine: str, folder: Path | None, options: Mapping[str, str | int]) -> Iterator[PrivateServer]:
    guard = subprocess.Popen(
        [sys.executable, "-E", "-s", server_guard.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal must not reach the database before its users have left
    )
    assert guard.stdin is not None  # noqa: S101  for the type checker
    assert guard.stdout is not None  # noqa: S101
    try:
        place = None if folder is None else str(folder.resolve())
        facts = _order(guard, "open", engine=engine, folder=place, options=dict(options))
        facts["folder"], facts["socket"] = Path(facts["folder"]), Path(facts["socket"])
        yield PrivateServer(engine=engine, host=HOST, _guard=guard, **facts)
    finally:
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.close()
        _wait_left(guard)
        guard.stdout.close()


def _wait_left(guard: subprocess.Popen[str]) -> int:
    """The guard's exit code, once it has left; one that hangs is killed, and the kernel kills its server."""
    try:
        return guard.wait(LEAVE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        raise ServerError(f"the guard of the private server did not end within {LEAVE_TIMEOUT_S:g} s") from None


def _order(guard: subprocess.Popen[str], order: str, **details: object) -> dict[str, Any]:
    """Send the guard one order and return its answer; raise what it reports."""
    assert guard.stdin is not None  # noqa: S101
    assert guard.stdout is not None  # noqa: S101
    print(json.dumps({"order": order, **details}), file=guard.stdin, flush=True)
    if not select.select([guard.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
        guard.kill()
        raise ServerError(f"the guard of the private server did not {order} it within {ANSWER_TIMEOUT_S:g} s")
    line = guard.stdout.readline()
    if not line:
        raise ServerError(f"the guard of the private server ended with code {_wait_left(guard)}")
    answer: dict[str, Any] = json.loads(line)
    if "missing" in answer:
        raise MissingServer(answer["missing"])
    if "error" in answer:
        raise ServerError(answer["error"])
    return answer


def _run_command(command: list[str], environment: Mapping[str, str]) -> int:
    """Run the command to its end, with our signals passed on, and return a shell's exit code."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(signum)
        else:
            process.send_signal(signum)

    for signum in PASSED_ON:
        signal.signal(signum, pass_on)
    # A process group of its own: a Ctrl-C in the terminal reaches it once, through us.
    process = subprocess.Popen(command, env={**os.environ, **environment}, process_group=0)
    for number in early:
        process.send_signal(number)
    code = process.wait()  # unbounded: the user ends it
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run a command with a private database server, named in its FULLHOUSE_DEMO_* variables.",
        usage="%(prog)s {mariadb,mysql,postgresql} [--folder DIR] -- COMMAND ...",
    )
    parser.add_argument("engine", choices=sorted(server_guard.ENGINES))
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the data in DIR/ENGINE (default: throw away)")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    server_guard.take_default_signals()
    for signum in PASSED_ON:
        signal.signal(signum, server_guard.exit_by_signal)
    try:
        with _server(arguments.engine, arguments.folder, {}) as server:
            return _run_command(arguments.command, server.environment())
    except (ServerError, OSError) as error:
        print(f"private_servers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
