"""The guard of one private database server: the process that makes, starts, stops and removes it.

`private_servers.py` runs this file in a session of its own and sends it orders, one JSON line each; every
order is answered with one JSON line. When standard input ends, because the caller left its `with` block, or
the caller (the process that is the first argument) has died of whatever, the guard stops the server and
removes a temporary folder. Should the guard itself be killed, the kernel kills the server (PR_SET_PDEATHSIG, on
Linux).
"""

import contextlib
import ctypes
import json
import os
import pwd
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import programs

HOST = "127.0.0.1"
# Below the ports that clients get on Linux (32768) and macOS (49152): while a server is down for a restart,
# no outgoing connection can take its port.
PORTS = range(20_000, 32_768)
CREATE_TIMEOUT_S = 60.0  # of one program
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
READY_INTERVAL_S = 0.02
PING_TIMEOUT_S = 10.0
SOCKET_PATH_BYTES = 103  # what macOS can address; Linux could do 107
MEMORY_NEEDED = 4 << 30  # bytes free in memory before a server lives there
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


class ServerError(Exception):
    """A private server could not be made, started or stopped; the message carries the end of its log."""


class Engine:
    """One server in one folder. Subclasses know the programs of their database."""

    name: ClassVar[str]
    system_user: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    database = user = "fullhouse"
    admin_user = "admin"

    def __init__(self, folder: Path | None, options: Mapping[str, str | int]) -> None:
        self.find_programs()
        self.port = _free_port()
        self.account = _account(self.system_user)
        self.temporary = folder is None
        prefix = f"fullhouse-{self.name}-"
        self.folder = _temporary_folder(prefix) if folder is None else folder / self.name
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def find_programs(self) -> None:
        """Set the paths of the programs, or raise MissingProgram."""
        raise NotImplementedError

    def create(self, data: Path) -> None:
        """Make the data folder `data`, with accounts and database, without a running server."""
        raise NotImplementedError

    def server_command(self) -> list[str]:
        raise NotImplementedError

    def ready_command(self) -> list[str]:
        """A client's command that succeeds as soon as the server answers."""
        raise NotImplementedError

    def socket_path(self) -> Path:
        raise NotImplementedError

    def open(self) -> dict[str, object]:
        """Make what is missing in the folder, start the server, and return the facts of a PrivateServer."""
        self.prepare_folder()
        password_file = self.folder / "password"
        if not self.data.exists():
            password_file.write_text(secrets.token_hex(16))
            password_file.chmod(0o600)
            self.hand_over(password_file)
        self.password = password_file.read_text()
        if not self.data.exists():
            unfinished = self.folder / "data.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            self.create(unfinished)
            unfinished.rename(self.data)
        self.start()
        return {
            "port": self.port,
            "socket": str(self.socket_path()),
            "user": self.user,
            "password": self.password,
            "admin_user": self.admin_user,
            "admin_password": self.password,
            "database": self.database,
            "folder": str(self.folder),
        }

    def prepare_folder(self) -> None:
        if len(os.fsencode(self.socket_path())) > SOCKET_PATH_BYTES:
            raise ServerError(
                f"{self.folder} is too deep: a Unix socket's path has at most {SOCKET_PATH_BYTES} bytes. "
                "Name a folder with a shorter path, or none."
            )
        if self.account:
            there = next(place for place in self.folder.parents if place.exists())
            may_enter = [programs.path("sh"), "-c", 'test -x "$0"', str(there)]
            if subprocess.run(may_enter, cwd="/", check=False, timeout=60, **self.credentials()).returncode != 0:
                raise ServerError(
                    f"{there}: the user {self.account.pw_name}, who runs {self.name} when root starts it, "
                    "may not enter. Name a folder that everyone may enter, or none."
                )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.hand_over(self.folder)

    def hand_over(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def credentials(self) -> dict[str, Any]:
        """Keyword arguments for a subprocess that runs as the server's user and dies with this guard."""
        if not self.account:
            return {"preexec_fn": _die_with_parent}
        # preexec_fn runs after the change of user, which would clear the death signal.
        return {
            "user": self.account.pw_uid,
            "group": self.account.pw_gid,
            "extra_groups": [],
            "preexec_fn": _die_with_parent,
        }

    def run(self, command: list[str], text: str = "") -> None:
        """Run one of the database's own programs to its end, with `text` as its input."""
        with self.log.open("a") as log:
            try:
                done = subprocess.run(
                    command,
                    input=text,
                    text=True,
                    cwd=self.folder,
                    env=self.environment(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=CREATE_TIMEOUT_S,
                    check=False,
                    **self.credentials(),
                )
            except subprocess.TimeoutExpired:
                raise ServerError(
                    f"{command[0]} did not end within {CREATE_TIMEOUT_S:g} s. {self.end_of_log()}"
                ) from None
        if done.returncode != 0:
            raise ServerError(f"{command[0]} failed with code {done.returncode}. {self.end_of_log()}")

    def environment(self) -> dict[str, str]:
        """A clean one: no PGDATA or MYSQL_HOST of the user's own."""
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LC_ALL": "C"}

    def start(self) -> None:
        if self.process is not None:
            raise ServerError(f"{self.name} is running already, as process {self.process.pid}")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.server_command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.credentials(),
            )
        try:
            self.wait_ready(self.process)
        except ServerError:
            self.kill()
            raise

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(READY_INTERVAL_S)
                raise ServerError(f"{self.name} ended with code {code} instead of starting. {self.end_of_log()}")
            if self.answers():
                return
        raise ServerError(f"{self.name} did not answer within {START_TIMEOUT_S:g} s. {self.end_of_log()}")

    def answers(self) -> bool:
        command, environment = self.ready_command(), self.environment()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ping = subprocess.run(command, env=environment, capture_output=True, timeout=PING_TIMEOUT_S, check=False)
            return ping.returncode == 0
        return False

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(
                f"{self.name} did not stop within {STOP_TIMEOUT_S:g} s and was killed. {self.end_of_log()}"
            ) from None
        self.process = None

    def kill(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        self.process = None
        _kill_orphans()

    def pid(self) -> dict[str, int | None]:
        return {"pid": self.process.pid if self.process else None}

    def close(self) -> None:
        try:
            self.stop()
        finally:
            if self.temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def end_of_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-40:] if self.log.exists() else []
        return "\n".join([f"The end of its log {self.log}:", *lines])


class MariaDB(Engine):
    name = "mariadb"
    system_user = "mysql"
    stop_signal = signal.SIGTERM

    def find_programs(self) -> None:
        self.install_db = programs.path("mariadb-install-db")
        self.mariadbd = programs.path("mariadbd")
        self.admin = programs.path("mariadb-admin")

    def socket_path(self) -> Path:
        return self.folder / "mariadb.sock"

    def create(self, data: Path) -> None:
        sql = self.folder / "accounts.sql"
        secret = f"IDENTIFIED BY '{self.password}'"
        sql.touch(mode=0o600)
        sql.write_text(
            "FLUSH PRIVILEGES;\n"  # turns accounts on, which are off while the tables are made
            f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4;\n"
            f"CREATE USER {self.user}@'%' {secret};\n"
            f"GRANT ALL ON {self.database}.* TO {self.user}@'%';\n"
            f"CREATE USER {self.admin_user}@'%' {secret};\n"
            f"GRANT ALL ON *.* TO {self.admin_user}@'%' WITH GRANT OPTION;\n"
        )
        self.hand_over(sql)
        self.run(
            [
                self.install_db,
                "--no-defaults",
                f"--datadir={data}",
                f"--extra-file={sql}",
                "--auth-root-authentication-method=socket",  # no root account without a password on TCP
                "--skip-name-resolve",
                "--skip-test-db",
                "--innodb-log-file-size=16M",
            ]
        )
        sql.unlink()

    def server_command(self) -> list[str]:
        return [
            self.mariadbd,
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.socket_path()}",
            f"--pid-file={self.folder / 'mariadb.pid'}",
            f"--tmpdir={self.folder}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            *(f"--{name}={value}" for name, value in self.options.items()),
        ]

    def ready_command(self) -> list[str]:
        # Any answer counts, also "access denied": the ping needs no account.
        return [self.admin, "--no-defaults", f"--socket={self.socket_path()}", "ping"]


class MySQL(Engine):
    """Oracle's. Its accounts authenticate by caching_sha2_password, its default."""

    name = "mysql"
    system_user = "mysql"
    stop_signal = signal.SIGTERM

    def find_programs(self) -> None:
        self.mysqld = programs.find_mysql() or programs.path("mysqld", Path("/nonexistent"))

    def socket_path(self) -> Path:
        return self.folder / "mysql.sock"

    def create(self, data: Path) -> None:
        self.run([self.mysqld, "--no-defaults", "--initialize-insecure", f"--datadir={data}", "--skip-log-bin"])

    def server_command(self) -> list[str]:
        return [
            self.mysqld,
            "--no-defaults",
            f"--datadir={self.data}",
            f"--init-file={self.accounts()}",
            f"--socket={self.socket_path()}",
            f"--pid-file={self.folder / 'mysql.pid'}",
            f"--tmpdir={self.folder}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--mysqlx=OFF",
            "--secure-file-priv=NULL",
            "--skip-log-bin",
            "--gtid-mode=OFF",  # else an ordinary account cannot load what mysqldump writes
            "--enforce-gtid-consistency=OFF",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-buffer-pool-size=64M",
            "--innodb-redo-log-capacity=32M",
            *(f"--{name}={value}" for name, value in self.options.items()),
        ]

    def accounts(self) -> Path:
        """Statements that the server runs at each start: `--initialize` would refuse them."""
        sql = self.folder / "accounts.sql"
        secret = f"IDENTIFIED BY '{self.password}'"
        sql.touch(mode=0o600)
        sql.write_text(
            f"CREATE DATABASE IF NOT EXISTS {self.database};\n"
            f"CREATE USER IF NOT EXISTS {self.user}@'%' {secret};\n"
            f"GRANT ALL ON {self.database}.* TO {self.user}@'%';\n"
            f"CREATE USER IF NOT EXISTS {self.admin_user}@'%' {secret};\n"
            f"GRANT ALL ON *.* TO {self.admin_user}@'%' WITH GRANT OPTION;\n"
            "ALTER USER root@localhost ACCOUNT LOCK;\n"
        )
        self.hand_over(sql)
        return sql

    def answers(self) -> bool:
        """Whether it greets a client: its own ping is in another package."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PING_TIMEOUT_S)
            client.connect(str(self.socket_path()))
            return client.recv(1) != b""
        return False


class PostgreSQL(Engine):
    name = "postgresql"
    system_user = "postgres"
    stop_signal = signal.SIGINT  # PostgreSQL's "fast" shutdown: clients are sent away

    def find_programs(self) -> None:
        initdb = Path(programs.path("initdb")).resolve()
        self.initdb = str(initdb)
        # The rest from the same installation: Debian's pg_isready on the PATH is a script that chooses one.
        self.postgres = programs.path("postgres", initdb.parent)
        self.pg_isready = programs.path("pg_isready", initdb.parent)

    def socket_path(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    def create(self, data: Path) -> None:
        self.run(
            [
                self.initdb,
                f"--pgdata={data}",
                f"--username={self.admin_user}",
                f"--pwfile={self.folder / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ]
        )
        self.run(
            [self.postgres, "--single", "-D", str(data), "-c", "fsync=off", "postgres"],
            f"CREATE ROLE {self.user} LOGIN PASSWORD '{self.password}'\n"
            f"CREATE DATABASE {self.database} OWNER {self.user}\n",
        )

    def server_command(self) -> list[str]:
        options: dict[str, str | int] = {
            "listen_addresses": HOST,
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "64MB",
            "dynamic_shared_memory_type": "mmap",  # a killed server leaves nothing in /dev/shm
            **self.options,
        }
        pairs = (word for name, value in options.items() for word in ("-c", f"{name}={value}"))
        return [self.postgres, "-D", str(self.data), "-p", str(self.port), *pairs]

    def ready_command(self) -> list[str]:
        return [self.pg_isready, f"--host={self.folder}", f"--port={self.port}"]


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (MariaDB, MySQL, PostgreSQL)}


def _account(preferred: str) -> pwd.struct_passwd | None:
    """Who runs the server: None for the present user; root, whom servers refuse, hands over to another."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(preferred)
    return pwd.getpwnam("nobody")


def _temporary_folder(prefix: str) -> Path:
    """A new folder, in memory where there is room: tests create and drop many tables, and wait for no disk."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder made there is ours alone
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= MEMORY_NEEDED
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if roomy else None)).resolve()


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            probe.bind((HOST, port))
            return port
    raise ServerError(f"no free TCP port from {PORTS.start} to {PORTS.stop - 1}: stop what listens there")


# Loaded here, because little is allowed between fork and exec. Other systems than Linux have no prctl.
_prctl: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _prctl:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _kill_orphans() -> None:
    """End the children of a killed server, which Linux gave to this guard (PR_SET_CHILD_SUBREAPER)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            for pid in children.read_text().split() if children.exists() else []:
                os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


def take_default_signals() -> None:
    """Handle signals as a program started from a terminal does.

    One started by `nohup`, by `sh -c 'trap "" INT'` or in the background of a script inherits signals that are ignored
    or blocked, and passes that on to whatever it starts. Python ignores SIGPIPE and SIGXFSZ itself, for itself only.
    """
    for signum in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _orders(caller: int) -> Iterator[str]:
    """The lines of standard input until it ends, or the caller has, though a child of it keeps our input open."""
    try:
        ended = [os.pidfd_open(caller)] if hasattr(os, "pidfd_open") else []
    except ProcessLookupError:
        return
    # Unbounded: as long as the caller lives. It sends no order before it has the answer to the last one.
    while sys.stdin in select.select([sys.stdin, *ended], [], [])[0] and (line := sys.stdin.readline()):
        yield line


def exit_by_signal(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def main() -> None:
    """Obey the orders on standard input until it ends; then leave nothing behind."""
    if _prctl:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    take_default_signals()
    signal.signal(signal.SIGTERM, exit_by_signal)
    engine: Engine | None = None
    try:
        for line in _orders(int(sys.argv[1])):
            answer: dict[str, object] = {}
            try:
                order = json.loads(line)
                if order["order"] == "open":
                    place = order["folder"] and Path(order["folder"])
                    engine = ENGINES[order["engine"]](place, order["options"])
                    answer = engine.open()
                elif engine:
                    answer = getattr(engine, order["order"])() or {}
            except programs.MissingProgram as error:
                answer = {"missing": str(error)}
            except (ServerError, OSError) as error:
                answer = {"error": str(error)}
            with contextlib.suppress(BrokenPipeError):  # the caller has died; its end of our input says so next
                print(json.dumps(answer), flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing interrupts this
        if engine:
            engine.close()


if __name__ == "__main__":
    main()
