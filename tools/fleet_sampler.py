"""Counts the sessions of one database user, as the server itself does, every 5 ms, in a process of its own.

python tools/fleet_sampler.py ENGINE ACCESS USER    # prints a line of JSON whenever something has changed
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from fullhouse.fleet import mysql, postgresql
from private_servers import PrivateServer

EVERY_S = 0.005
KEEPERS = 20
Rows = list[tuple[Any, ...]]  # address, its sessions, keepers of all


class Samples:
    """most: sessions at once. most_pooled: the same, without one for each host that there was: of its keeper, or of its
    plan. sessions: those that there are now, by the address that they come from. hosts: that there are now; to be kept
    up to date."""

    def __init__(self, server: PrivateServer) -> None:
        self.count = self.most = self.most_pooled = self.hosts = 0
        self.every_s = 0.0
        self.sessions: dict[str, int] = {}
        words = [sys.executable, __file__, server.vendor, json.dumps(server.admin_access), server.user]
        self._process = subprocess.Popen([*words, server.database], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)
        self._thread.join(30)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        for line in self._process.stdout:
            found = json.loads(line)
            self.count, self.every_s, self.sessions = found["count"], found["every_s"], found["sessions"]
            sessions = sum(self.sessions.values())
            self.most = max(self.most, sessions)
            pooled = sessions - max(self.hosts, found["keepers"])  # a host's last session outlives it a little
            self.most_pooled = max(self.most_pooled, pooled)


def _mysql(access: dict[str, Any], user: str, _database: str) -> Callable[[], Rows]:
    import MySQLdb

    connection = MySQLdb.connect(**access, autocommit=True)
    flags = " + ".join(f"(IS_USED_LOCK('{mysql.name(user, 'h', number)}') IS NOT NULL)" for number in range(KEEPERS))
    sql = (
        f"SELECT SUBSTRING_INDEX(host, ':', 1), COUNT(*), {flags} FROM information_schema.processlist"
        f" WHERE user = '{user}' GROUP BY 1"
    )

    def ask() -> Rows:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    return ask


def _postgresql(access: dict[str, Any], user: str, database: str) -> Callable[[], Rows]:
    import psycopg

    connection = psycopg.connect(**access, dbname=database, autocommit=True)
    keepers = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        f" AND classid = {postgresql.key(user, 'h') % 2**32}"
    )
    # The server reads one session after the other, and may be interrupted meanwhile: what began after the statement
    # could replace one that was counted before it ended. All that are left were there when the statement began.
    sql = (
        f"SELECT host(client_addr), count(*), ({keepers}) FROM pg_stat_activity WHERE usename = '{user}'"
        " AND backend_type = 'client backend' AND backend_start <= statement_timestamp() GROUP BY 1"
    )
    return lambda: connection.execute(sql).fetchall()


def main(vendor: str, access: str, user: str, database: str) -> None:
    open_it = _mysql if vendor == "mysql" else _postgresql
    count, began, told = 0, time.monotonic(), 0.0
    last: Rows = []
    while True:
        with suppress(Exception):  # the server restarts
            ask = open_it(json.loads(access), user, database)
            while True:
                due = time.monotonic() + EVERY_S
                found = ask()
                count += 1
                if found != last or due - told > 0.5:
                    last, told = found, due
                    sessions = {str(address): int(number) for address, number, _ in found}
                    facts = {"count": count, "every_s": (due - began) / count, "sessions": sessions}
                    print(json.dumps({**facts, "keepers": max((int(row[2]) for row in found), default=0)}), flush=True)
                time.sleep(max(0.0, due - time.monotonic()))
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
