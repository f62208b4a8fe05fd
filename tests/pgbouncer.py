"""A PgBouncer of its own in front of a private PostgreSQL server."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import programs
from private_servers import PrivateServer
from support import DEADLINE_S, free_port, is_open, wait_until

CONFIG = """[databases]
{database} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 6432
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
pool_mode = transaction
default_pool_size = 3
"""


@contextmanager
def pgbouncer_to(server: PrivateServer, config: str = "", users: str = "") -> Iterator[int]:
    """The port of a PgBouncer: with three sessions on the server, in transaction mode, or as `config` says.

    users: its file of passwords; by default that of the server's user, in plain text.
    """
    account = {"user": server_account()} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="fullhouse-pgbouncer-") as name:
        folder, port = Path(name), free_port()
        text = config or CONFIG.format(database=server.database, host=server.host, port=server.port)
        for theirs, ours in {
            "listen_port = 6432": f"listen_port = {port}\nunix_socket_dir =",
            "/etc/pgbouncer/userlist.txt": str(folder / "users"),
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        (folder / "users").write_text(users or f'"{server.user}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(text)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [programs.path("pgbouncer"), str(folder / "pgbouncer.ini")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **account)
        try:
            wait_until(lambda: is_open(port) or process.poll() is not None, "PgBouncer answered")
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
