"""A PgBouncer of its own in front of a private PostgreSQL server."""

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import programs
from private_servers import PrivateServer
from support import DEADLINE_S, wait_until


@contextmanager
def pgbouncer_to(server: PrivateServer) -> Iterator[int]:
    """The port of a PgBouncer with three sessions on the server, in transaction mode."""
    command = [programs.path("pgbouncer")]
    account = {"user": server_account()} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="fullhouse-pgbouncer-") as name, closing(socket.socket()) as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        (folder / "users").write_text(f'"{server.user}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{server.database} = host={server.host} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
            "default_pool_size = 3\n"
        )
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, str(folder / "pgbouncer.ini")], stdout=log, stderr=log, **account)
        try:
            wait_until(lambda: answers(port) or process.poll() is not None, "PgBouncer answered")
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def server_account() -> int:
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        return pwd.getpwnam("nobody").pw_uid


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
