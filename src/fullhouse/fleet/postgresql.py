"""The ledger on PostgreSQL: session-level advisory locks with two keys, the first made of the user's name and a letter.

They belong to one database of the server: all keepers of one user use the same, and fences are looked up in all.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from zlib import crc32

from fullhouse.fleet.ledger import VERSION, FleetRefusedError, View, no_room
from fullhouse.plan.limits import Cursor

LETTERS = "hwvab"
# For each session of a keeper. The server's, so that it notices a host that was cut off.
KEEPER_OPTIONS = (
    "-c idle_session_timeout=8s -c tcp_keepalives_idle=3 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=2"
)
# For each session of a pool: one of a host that was cut off ends by itself.
SESSION_OPTIONS = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=2"
_LOCKS_PER_HOST = 4
_LOCKS = "pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
_OLDEST = 140000  # idle_session_timeout


def key(user: str, letter: str) -> int:
    """The first key: signed, 32 bits."""
    unsigned = crc32(f"fullhouse {user} {letter}".encode())
    return unsigned - 2**32 if unsigned >= 2**31 else unsigned


def fence(user: str, slot: int) -> str:
    """The first statement of a session: whether it has the slot, and its idle_session_timeout in milliseconds."""
    timeout = "SELECT setting FROM pg_settings WHERE name = 'idle_session_timeout'"
    return f"SELECT pg_try_advisory_lock({key(user, 'b')}, {slot}), ({timeout})"


def reset(user: str, slot: int) -> str:
    """All that DISCARD ALL does, and the slot is kept at every moment. Fails where another session has it."""
    lock = f"({key(user, 'b')}, {slot})"
    return (
        f"BEGIN; SET LOCAL lock_timeout = '1s'; SELECT pg_advisory_xact_lock{lock}; CLOSE ALL; "
        "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
        f"DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; SELECT pg_advisory_lock{lock}; COMMIT"
    )


def behind_pooler(fact: str) -> FleetRefusedError:
    return FleetRefusedError(
        f"A pooler such as PgBouncer stands in front of PostgreSQL: {fact}. Connect to the server itself, or let the "
        "pooler's size be the budget and give each host its part: hosts = NUMBER"
    )


class PostgreSQLLedger:
    """See `ledger.Ledger`. connection: of the driver, in autocommit mode, with KEEPER_OPTIONS; told_pid: as the server
    said it at the connect."""

    def __init__(self, connection: Any, told_pid: int, user: str) -> None:
        self._connection = connection
        self._cursor: Cursor = connection.cursor()
        self._told_pid = told_pid
        self._user = user
        self._keys = {letter: key(user, letter) for letter in LETTERS}
        self._letters = {number % 2**32: letter for letter, number in self._keys.items()}

    def join(self, most_hosts: int, budget: int) -> int:
        self._refuse_what_keeps_no_locks(most_hosts, budget)
        same = self._same(budget)
        for number in range(most_hosts):
            if self._ask(f"SELECT pg_try_advisory_lock({self._keys['h']}, {number})")[0][0]:
                self._ask(f"SELECT pg_try_advisory_lock({same}, {number})")
                return number
        raise no_room(most_hosts)

    def _refuse_what_keeps_no_locks(self, most_hosts: int, budget: int) -> None:
        names = ("server_version_num", "max_locks_per_transaction", "max_connections", "max_prepared_transactions")
        asked = ", ".join(f"current_setting('{name}')::int" for name in names)
        pid, version, per_session, sessions, prepared = self._ask(f"SELECT pg_backend_pid(), {asked}")[0]
        if pid != self._told_pid:
            raise behind_pooler(f"process {self._told_pid} was told at the connect, and {pid} answers")
        if version < _OLDEST:
            raise FleetRefusedError(
                f"A fleet needs PostgreSQL 14 or later, and this is {version // 10000}: hosts = NUMBER"
            )
        room, needed = per_session * (sessions + prepared), 2 * budget + _LOCKS_PER_HOST * most_hosts
        if needed > room // 2:
            raise FleetRefusedError(
                f"A fleet with {budget} slots needs {needed} locks, and the server's table has {room} for everybody "
                f"(max_locks_per_transaction {per_session} × {sessions + prepared} sessions): raise "
                f"max_locks_per_transaction to {-(-2 * needed // (sessions + prepared))}."
            )

    def look(self, most_hosts: int, budget: int) -> View:
        same = self._same(budget)
        keys = ", ".join(str(number % 2**32) for number in (*self._keys.values(), same))
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        rows = self._ask(
            f"SELECT classid::bigint, objid::bigint, pid, {here} FROM {_LOCKS} AND classid IN ({keys}) UNION ALL"
            " SELECT -1, 0, pid, true FROM pg_stat_activity"
            " WHERE usename = session_user AND backend_type = 'client backend' UNION ALL"
            " SELECT -2, 0, pg_backend_pid(), true"
        )
        found: dict[str, dict[int, int]] = {letter: {} for letter in LETTERS}
        alike: set[int] = set()
        sessions: set[int] = set()
        me = 0
        for first, second, pid, is_here in rows:
            if first == -1:
                sessions.add(pid)
            elif first == -2:
                me = pid
            elif first == same % 2**32:
                alike.add(second)
            else:
                letter = self._letters[first]
                if letter == "h" and not is_here:
                    raise FleetRefusedError(
                        f"Another host of user {self._user!r} keeps its slots in another database of the same server: "
                        "let the first alias of each user name the same database on every host."
                    )
                found[letter][second] = pid
        waiting, wanting = (frozenset(found[letter]) for letter in "wv")
        return View(me, found["h"], found["a"], found["b"], waiting, wanting, frozenset(alike), frozenset(sessions))

    def glance(self, most_hosts: int) -> View:
        keys = ", ".join(str(self._keys[letter] % 2**32) for letter in "hwv")
        rows = self._ask(
            f"SELECT classid::bigint, objid::bigint, pid FROM {_LOCKS} AND classid IN ({keys})"
            " UNION ALL SELECT -2, 0, pg_backend_pid()"
        )
        found: dict[str, dict[int, int]] = {letter: {} for letter in "hwv"}
        me = 0
        for first, second, pid in rows:
            if first == -2:
                me = pid
            else:
                found[self._letters[first]][second] = pid
        return View(me, found["h"], waiting=frozenset(found["w"]), wanting=frozenset(found["v"]))

    def take(self, slots: Collection[int]) -> set[int]:
        return {slot for slot, has in self._each("pg_try_advisory_lock", "a", slots) if has}

    def give(self, slots: Collection[int]) -> None:
        self._each("pg_advisory_unlock", "a", slots)

    def fenced(self, slots: Collection[int]) -> set[int]:
        numbers = ", ".join(map(str, slots))
        rows = self._ask(
            f"SELECT objid::bigint FROM {_LOCKS} AND classid = {self._keys['b'] % 2**32} AND objid IN ({numbers})"
        )
        return {row[0] for row in rows}

    def say(self, number: int, *, waiting: bool, wanting: bool) -> None:
        for letter, is_so in (("w", waiting), ("v", wanting)):
            self._ask(f"SELECT pg_advisory_unlock({self._keys[letter]}, {number})")
            if is_so:
                self._ask(f"SELECT pg_try_advisory_lock({self._keys[letter]}, {number})")

    def end(self, slot: int, session: int) -> None:
        a, b = (
            f"SELECT FROM {_LOCKS} AND objid = {slot} AND classid = {self._keys[letter] % 2**32}" for letter in "ab"
        )
        stands = f"EXISTS ({b} AND pid = {session}) AND NOT EXISTS ({a})"
        self._ask(f"SELECT pg_terminate_backend({session}) WHERE {stands}")

    def addresses(self, view: View) -> Mapping[int, str]:
        pids = ", ".join(map(str, view.hosts.values()))
        rows = self._ask(
            f"SELECT pid, coalesce(host(client_addr), 'local') FROM pg_stat_activity WHERE pid IN ({pids})"
        )
        by_pid = dict(rows)
        return {number: by_pid[pid] for number, pid in view.hosts.items() if pid in by_pid}

    def close(self) -> None:
        with suppress(Exception):  # the driver's: it may be gone already
            self._connection.close()

    def _each(self, function: str, letter: str, slots: Collection[int]) -> list[tuple[int, bool]]:
        calls = ", ".join(f"{function}({self._keys[letter]}, {slot})" for slot in slots)
        return list(zip(slots, self._ask(f"SELECT ARRAY[{calls}]")[0][0], strict=True)) if slots else []

    def _same(self, budget: int) -> int:
        return key(self._user, f"s{VERSION}.{budget}")

    def _ask(self, sql: str) -> list[Any]:
        self._cursor.execute(sql)
        return list(self._cursor.fetchall())
