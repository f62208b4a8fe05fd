"""The ledger on MySQL and MariaDB: GET_LOCK, of which a session may have several. Names are the whole server's."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Any

from fullhouse.fleet.ledger import SILENCE_S, VERSION, FleetRefusedError, View, no_room
from fullhouse.plan.limits import Cursor

# Columns of one SELECT; the servers' own limit is 4,096.
_COLUMNS = 1000
_FLAGS = "hwv"


def name(user: str, letter: str, number: int) -> str:
    """At most 64 characters, in lower case: MySQL does not tell cases apart, and MariaDB does."""
    return f"fullhouse.{sha256(user.encode()).hexdigest()[:12]}.{letter}.{number}"


def fence(user: str, slot: int) -> str:
    """The first statement of a session: whether it has the slot, and its wait_timeout in seconds."""
    return f"SELECT GET_LOCK('{name(user, 'b', slot)}', 0), @@session.wait_timeout"


class MySQLLedger:
    """See `ledger.Ledger`. connection: of the driver, in autocommit mode."""

    def __init__(self, connection: Any, user: str) -> None:
        self._connection = connection
        self._cursor: Cursor = connection.cursor()
        self._user = user
        self._processes = "information_schema.processlist"

    def join(self, most_hosts: int, budget: int) -> int:
        self._ask(f"SET SESSION wait_timeout = {SILENCE_S}")
        self._refuse_what_keeps_no_locks()
        for number in range(most_hosts):
            if self._get(self._name("h", number)):
                self._get(self._name(self._same(budget), number))
                return number
        raise no_room(most_hosts)

    def _refuse_what_keeps_no_locks(self) -> None:
        version, comment, has_schema = self._ask("SELECT @@version, @@version_comment, @@performance_schema")[0]
        if "proxysql" in f"{version} {comment}".lower():
            raise FleetRefusedError(
                "ProxySQL stands in front of MySQL and shares sessions. Connect to the server itself, or let the "
                "proxy's size be the budget and give each host its part: hosts = NUMBER"
            )
        cluster = dict(self._ask("SHOW STATUS LIKE 'wsrep_connected'"))
        if cluster.get("wsrep_connected") == "ON":
            raise FleetRefusedError("Galera's nodes do not share GET_LOCK: give each host its part with hosts = NUMBER")
        if "mariadb" not in version.lower() and has_schema:
            self._processes = "performance_schema.processlist"

    def look(self, most_hosts: int, budget: int) -> View:
        same = self._same(budget)
        wanted = [(letter, number) for letter in (*_FLAGS, same) for number in range(most_hosts)]
        wanted += [(letter, slot) for letter in "ab" for slot in range(budget)]
        found = self._found(wanted)
        mine = "SELECT id, id = CONNECTION_ID() FROM {} WHERE user = SUBSTRING_INDEX(USER(), '@', 1)"
        sessions = {int(session): bool(is_me) for session, is_me in self._ask(mine.format(self._processes))}
        me = next(session for session, is_me in sessions.items() if is_me)
        waiting, wanting, alike = (frozenset(found[letter]) for letter in ("w", "v", same))
        return View(me, found["h"], found["a"], found["b"], waiting, wanting, alike, frozenset(sessions))

    def glance(self, most_hosts: int) -> View:
        wanted = [(letter, number) for letter in _FLAGS for number in range(most_hosts)]
        found = self._found(wanted)
        me = int(self._ask("SELECT CONNECTION_ID()")[0][0])
        return View(me, found["h"], waiting=frozenset(found["w"]), wanting=frozenset(found["v"]))

    def take(self, slots: Collection[int]) -> set[int]:
        calls = (f"GET_LOCK('{self._name('a', slot)}', 0)" for slot in slots)
        return {slot for slot, has in zip(slots, self._columns(calls), strict=True) if has}

    def give(self, slots: Collection[int]) -> None:
        list(self._columns(f"RELEASE_LOCK('{self._name('a', slot)}')" for slot in slots))

    def fenced(self, slots: Collection[int]) -> set[int]:
        holders = self._holders([("b", slot) for slot in slots])
        return {slot for slot, session in zip(slots, holders, strict=True) if session is not None}

    def say(self, number: int, *, waiting: bool, wanting: bool) -> None:
        for letter, is_so in (("w", waiting), ("v", wanting)):
            lock = self._name(letter, number)
            self._ask(f"SELECT GET_LOCK('{lock}', 0)" if is_so else f"SELECT RELEASE_LOCK('{lock}')")

    def end(self, slot: int, session: int) -> None:
        stands, owned = self._holders([("b", slot), ("a", slot)])
        if stands == session and owned is None:
            self._ask(f"KILL CONNECTION {session}")

    def addresses(self, view: View) -> Mapping[int, str]:
        ids = ", ".join(map(str, view.hosts.values()))
        rows = self._ask(f"SELECT id, SUBSTRING_INDEX(host, ':', 1) FROM {self._processes} WHERE id IN ({ids})")
        by_id = {int(session): str(host) for session, host in rows}
        return {number: by_id[session] for number, session in view.hosts.items() if session in by_id}

    def close(self) -> None:
        with suppress(Exception):  # the driver's: it may be gone already
            self._connection.close()

    def _get(self, lock: str) -> bool:
        return bool(self._ask(f"SELECT GET_LOCK('{lock}', 0)")[0][0])

    def _holders(self, locks: Collection[tuple[str, int]]) -> list[int | None]:
        """The session of each lock."""
        return list(self._columns(f"IS_USED_LOCK('{self._name(letter, number)}')" for letter, number in locks))

    def _found(self, locks: Collection[tuple[str, int]]) -> dict[str, dict[int, int]]:
        """The sessions of those that are held, by letter and number."""
        found: dict[str, dict[int, int]] = {letter: {} for letter, _ in locks}
        for (letter, number), session in zip(locks, self._holders(locks), strict=True):
            if session is not None:
                found[letter][number] = int(session)
        return found

    def _columns(self, calls: Iterable[str]) -> Iterable[Any]:
        rest = iter(calls)
        while some := list(islice(rest, _COLUMNS)):
            yield from self._ask(f"SELECT {', '.join(some)}")[0]

    def _name(self, letter: str, number: int) -> str:
        return name(self._user, letter, number)

    def _same(self, budget: int) -> str:
        return f"s{VERSION}-{budget}"

    def _ask(self, sql: str) -> list[Any]:
        self._cursor.execute(sql)
        return list(self._cursor.fetchall())
