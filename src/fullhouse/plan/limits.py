"""What each database server really grants this site: asked of the live server through a plain DB-API cursor.

No driver and no Django here: callers bring the cursor. One `Limit` stands for one server, however many aliases
of `DATABASES` lead to it, because they share its sessions.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Cursor(Protocol):
    """The part of a DB-API cursor that is used here."""

    def execute(self, sql: str, params: Any = ...) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Any: ...


@dataclass(frozen=True)
class Limit:
    """Sessions that one database server grants this site.

    Attributes:
        server: the product and address, for people: "MariaDB 10.11.19 at 127.0.0.1:3306".
        aliases: of `DATABASES`, that lead to this server.
        limit: sessions granted in all: the least of `parts`.
        parts: what bounds it: (name, sessions), each as the server said it. The first is shared with everybody; caps
            of the account or the database follow.
        others: sessions that other users hold now. None where they were not asked for.
        ours: sessions that this user holds now, without the one that asked.
        wait_timeout_s: after so many idle seconds the server closes a session; None: never.
        pooled: those of `aliases` whose ENGINE is ours: they hold slots, however many threads there are.
        users: slot files that share this server's budget: one for each database user, and address where several lead
            to it.
        identity: what distinguishes the server from others, whichever address leads to it; None where it was not asked.
        listens_on: the port that the server says it listens on; None where it was not asked.
        needs_session_to_cancel: whether a statement is cancelled over another session (MySQL's KILL QUERY).
        pool_sizes: of those of `aliases` with a pool of Django's own, connections that it may hold in each process.
    """

    server: str
    aliases: tuple[str, ...]
    limit: int
    parts: tuple[tuple[str, int], ...]
    others: int | None = None
    ours: int | None = None
    wait_timeout_s: int | None = None
    pooled: tuple[str, ...] = ()
    users: int = 1
    identity: str | None = None
    listens_on: str | None = None
    needs_session_to_cancel: bool = False
    pool_sizes: tuple[int, ...] = ()

    @property
    def stock(self) -> int:
        """How many aliases have an ENGINE that opens a connection for each thread."""
        return len(self.aliases) - len(self.pooled) - len(self.pool_sizes)

    @property
    def shared(self) -> int:
        """Sessions that the server grants to all users together."""
        return self.parts[0][1]


LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}
DEFAULT_PORTS = {"mysql": "3306", "postgresql": "5432"}


def server_address(vendor: str, database: Mapping[str, Any]) -> tuple[str, str]:
    """(host, port) of an entry of `DATABASES`, as the driver sees them: OPTIONS win over HOST and PORT.

    host is the path of a MySQL socket where there is one, and the name of the file or service that says the rest where
    the entry leaves it to one. Entries with the same answer share a server; others may (see `Limit.identity`).
    """
    options = database.get("OPTIONS") or {}
    host = str(options.get("unix_socket") or options.get("host") or database.get("HOST") or "")
    port = str(options.get("port") or database.get("PORT") or "")
    if vendor == "postgresql":
        host, port = host or os.environ.get("PGHOST", ""), port or os.environ.get("PGPORT", "")
    host = host or str(options.get("read_default_file") or options.get("service") or "")
    if vendor == "mysql" and host.startswith("/"):
        return host, ""
    return "localhost" if host in LOCAL_HOSTS else host, port or DEFAULT_PORTS.get(vendor, "")


def given(aliases: Sequence[str], limit: int, said_by: str) -> Limit:
    """A limit that the user named instead of having the server asked."""
    return Limit("database", tuple(aliases), limit, ((said_by, limit),))


def merged(limits: Sequence[Limit]) -> Limit:
    """One limit for several aliases of one server: every bound counts, the least decides."""
    parts = tuple(dict.fromkeys(part for limit in limits for part in limit.parts))
    first = limits[0]
    return Limit(
        first.server,
        tuple(alias for limit in limits for alias in limit.aliases),
        min(number for _, number in parts),
        parts,
        max((limit.others for limit in limits if limit.others is not None), default=None),
        max((limit.ours for limit in limits if limit.ours is not None), default=None),
        min((limit.wait_timeout_s for limit in limits if limit.wait_timeout_s is not None), default=None),
        identity=first.identity,
        listens_on=first.listens_on,
    )


def ask_mysql(cursor: Cursor, alias: str, address: str) -> Limit:
    """Ask MySQL or MariaDB. A user without the PROCESS privilege gets the same answers."""
    cursor.execute(
        "SELECT @@version, @@global.max_connections, @@global.max_user_connections,"
        " @@session.max_user_connections, @@global.wait_timeout, @@performance_schema,"
        " CONCAT_WS(' ', @@hostname, @@port, @@socket, @@datadir, @@server_id)"
    )
    version, server_cap, any_user_cap, this_user_cap, wait_timeout, has_schema, identity = cursor.fetchone()
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    parts = [("max_connections", int(server_cap))]
    # The session's value is the account's own MAX_USER_CONNECTIONS where one is set, else the global; 0 is "no cap".
    if int(this_user_cap) > 0:
        own = this_user_cap != any_user_cap
        name = "MAX_USER_CONNECTIONS of the account" if own else "max_user_connections"
        parts.append((name, int(this_user_cap)))
    # MySQL has deprecated the list in information_schema. Everybody sees the sessions of their own account in either.
    schema = "performance_schema" if product == "MySQL" and has_schema else "information_schema"
    cursor.execute(f"SELECT COUNT(*) FROM {schema}.processlist WHERE user = SUBSTRING_INDEX(USER(), '@', 1)")  # noqa: S608
    ours = int(cursor.fetchone()[0])
    cursor.execute("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    everybody = int(cursor.fetchone()[1])
    return Limit(
        f"{product} {version.split('-')[0]} at {address}",
        (alias,),
        min(number for _, number in parts),
        tuple(parts),
        others=max(0, everybody - ours),
        ours=max(0, ours - 1),
        wait_timeout_s=int(wait_timeout),
        identity=str(identity),
    )


def ask_postgresql(cursor: Cursor, alias: str, address: str) -> Limit:
    """Ask PostgreSQL. Reserved slots are out of reach of an ordinary role, so they count against everybody."""
    cursor.execute(
        "SELECT name, setting FROM pg_settings WHERE name IN ('server_version', 'max_connections',"
        " 'superuser_reserved_connections', 'reserved_connections', 'idle_session_timeout')"
    )
    settings = dict(cursor.fetchall())
    reserved = int(settings.get("superuser_reserved_connections", 0)) + int(settings.get("reserved_connections", 0))
    parts = [("max_connections less reserved slots", int(settings["max_connections"]) - reserved)]
    cursor.execute(
        "SELECT r.rolconnlimit, d.datconnlimit FROM pg_roles r, pg_database d"
        " WHERE r.rolname = session_user AND d.datname = current_database()"
    )
    role_cap, database_cap = cursor.fetchone()
    if role_cap >= 0:  # -1 is "no limit"
        parts.append(("CONNECTION LIMIT of the role", role_cap))
    if database_cap >= 0:
        parts.append(("CONNECTION LIMIT of the database", database_cap))
    # An ordinary role sees of other roles' sessions who and where, but NULL for the type of the backend.
    cursor.execute(
        "SELECT COUNT(*) FILTER (WHERE usename <> session_user), COUNT(*) FILTER (WHERE usename = session_user)"
        " FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL"
        " AND COALESCE(backend_type, 'client backend') = 'client backend'"
    )
    others, ours = cursor.fetchone()
    cursor.execute("SELECT current_setting('port'), current_setting('port') || ' ' || pg_postmaster_start_time()")
    port, identity = cursor.fetchone()
    timeout_ms = int(settings.get("idle_session_timeout", 0))
    return Limit(
        f"PostgreSQL {settings['server_version'].split()[0]} at {address}",
        (alias,),
        min(number for _, number in parts),
        tuple(parts),
        others=others,
        ours=max(0, ours - 1),
        wait_timeout_s=timeout_ms // 1000 if timeout_ms else None,
        identity=str(identity),
        listens_on=str(port),
    )


# How to ask, by Django's name for the kind of database. SQLite is not here: it has no sessions to run out of.
ASK: dict[str, Callable[[Cursor, str, str], Limit]] = {"mysql": ask_mysql, "postgresql": ask_postgresql}
