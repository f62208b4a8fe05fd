"""Which statements end a transaction unasked: every command that the installed MySQL or MariaDB has, tried on it."""

from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count

import pymysql
import pytest

from dbsupport import Observer
from fullhouse.db.mysql.statements import may_commit
from private_servers import PrivateServer, mysql_family

# By the server's names of its commands (SHOW STATUS LIKE 'Com\_%'). Most fail, after they have committed or not.
SAMPLES = {
    "analyze": "ANALYZE TABLE other",
    "assign_to_keycache": "CACHE INDEX other IN nowhere",
    "begin": "BEGIN",
    "binlog": "BINLOG 'AAAA'",
    "call_procedure": "CALL commits()",
    "change_db": "USE mysql",
    "check": "CHECK TABLE other",
    "checksum": "CHECKSUM TABLE other",
    "commit": "COMMIT",
    "dealloc_sql": "DEALLOCATE PREPARE kept",
    "delete": "DELETE FROM other",
    "delete_multi": "DELETE other FROM other JOIN other AS o ON o.n = other.n",
    "do": "DO 1",
    "execute_sql": "EXECUTE kept",
    "flush": "FLUSH PRIVILEGES",
    "get_diagnostics": "GET DIAGNOSTICS @n = NUMBER",
    "ha_close": "HANDLER other CLOSE",
    "ha_open": "HANDLER other OPEN",
    "ha_read": "HANDLER other READ FIRST",
    "help": "HELP 'contents'",
    "insert": "INSERT INTO other VALUES (1)",
    "insert_select": "INSERT INTO other SELECT 1",
    "kill": "KILL QUERY 0",
    "load": "LOAD DATA INFILE '/nowhere' INTO TABLE other",
    "lock_tables": "LOCK TABLES other READ",
    "optimize": "OPTIMIZE TABLE other",
    "preload_keys": "LOAD INDEX INTO CACHE other",
    "prepare_sql": "PREPARE another FROM 'SELECT 1'",
    "purge": "PURGE BINARY LOGS TO 'nowhere'",
    "purge_before_date": "PURGE BINARY LOGS BEFORE '2001-01-01'",
    "release_savepoint": "RELEASE SAVEPOINT s",
    "repair": "REPAIR TABLE other",
    "replace": "REPLACE INTO other VALUES (1)",
    "replace_select": "REPLACE INTO other SELECT 1",
    "resignal": "RESIGNAL",
    "rollback": "ROLLBACK",
    "rollback_to_savepoint": "ROLLBACK TO SAVEPOINT s",
    "savepoint": "SAVEPOINT s2",
    "select": "SELECT 1",
    "set_option": "SET @a = 1",
    "signal": "SIGNAL SQLSTATE '01000'",
    "truncate": "TRUNCATE TABLE other",
    "unlock_tables": "UNLOCK TABLES",
    "update": "UPDATE other SET n = 1",
    "update_multi": "UPDATE other, kept SET other.n = 1",
}
OWN = {
    "mariadb": {
        "backup": "BACKUP STAGE START",
        "backup_lock": "BACKUP LOCK other",
        "change_master": "CHANGE MASTER TO MASTER_HOST = '127.0.0.1'",
        "compound_sql": "BEGIN NOT ATOMIC COMMIT; END",
        "execute_immediate": "EXECUTE IMMEDIATE 'TRUNCATE TABLE other'",
        "reset": "RESET MASTER",
        "start_all_slaves": "START ALL SLAVES",
        "start_slave": "START SLAVE",
        "stop_all_slaves": "STOP ALL SLAVES",
        "stop_slave": "STOP SLAVE",
    },
    "mysql": {
        "alter_user_default_role": "SET DEFAULT ROLE NONE TO nobody@nowhere",
        "change_repl_filter": "CHANGE REPLICATION FILTER REPLICATE_DO_DB = (nowhere)",
        "change_replication_source": "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1'",
        "clone": "CLONE LOCAL DATA DIRECTORY = '/nowhere'",
        "explain_other": "EXPLAIN FOR CONNECTION 1",
        "group_replication_start": "START GROUP_REPLICATION",
        "group_replication_stop": "STOP GROUP_REPLICATION",
        "import": "IMPORT TABLE FROM '/nowhere.sdi'",
        "lock_instance": "LOCK INSTANCE FOR BACKUP",
        "replica_start": "START REPLICA",
        "replica_stop": "STOP REPLICA",
        "reset": "RESET BINARY LOGS AND GTIDS",
        "set_password": "SET PASSWORD FOR nobody@nowhere = 'x'",
        "set_resource_group": "SET RESOURCE GROUP nowhere",
        "set_role": "SET ROLE NONE",
        "unlock_instance": "UNLOCK INSTANCE",
    },
}
# Forms of a command that differ from its sample.
FORMS = {
    "mariadb": [
        "ANALYZE FORMAT=JSON SELECT 1",
        "FLUSH STATUS",
        "SET PASSWORD FOR nobody@nowhere = 'x'",
        "SET DEFAULT ROLE NONE",
        "SET STATEMENT max_statement_time = 1 FOR TRUNCATE TABLE other",
        "SET GLOBAL max_connections = @@global.max_connections",
        "SET SESSION sql_mode = ''",
        "SET autocommit = 1",
        "IF 1 THEN COMMIT; END IF",
    ],
    "mysql": [
        "EXPLAIN ANALYZE SELECT 1",
        "FLUSH STATUS",
        "RESET PERSIST",
        "RESET REPLICA",
        "SET GLOBAL max_connections = @@global.max_connections",
        "SET PERSIST max_connections = @@global.max_connections",
        "SET SESSION sql_mode = ''",
        "SET autocommit = 1",
    ],
}
# All that begins with one of these counts as a commit, whether it is one or not.
VERBS = ("alter", "create", "drop", "grant", "install", "rename", "revoke", "uninstall", "xa")
# Nobody can try them, or no transaction outlives them.
UNTRIED = ("admin_commands", "empty_query", "restart", "show_", "shutdown", "stmt_")

_serial = count()


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One of this module's own, since the statements change its settings."""
    with mysql_family() as server, closing(Observer(server)) as observer:
        observer.ask(f"USE {server.database}")
        for table in ("written", "other", "kept"):
            observer.ask(f"CREATE TABLE {table} (n int)")
        observer.ask("CREATE PROCEDURE commits() COMMIT")
        yield server


def connect(server: PrivateServer) -> pymysql.Connection:  # type: ignore[type-arg]
    account = {"user": server.admin_user, "password": server.admin_password, "database": server.database}
    return pymysql.connect(host=server.host, port=server.port, **account)


def commands(connection: pymysql.Connection) -> dict[str, int]:  # type: ignore[type-arg]
    """The server's commands, and how often the session has given each."""
    with connection.cursor() as cursor:
        cursor.execute(r"SHOW SESSION STATUS LIKE 'Com\_%'")
        return {name.removeprefix("Com_"): int(times) for name, times in cursor.fetchall()}


def commits(server: PrivateServer, sql: str, command: str = "") -> bool:
    """Whether what was written before the statement is there although it was rolled back after it."""
    written = next(_serial)
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        for before in ("PREPARE kept FROM 'TRUNCATE TABLE other'", "START TRANSACTION", "SAVEPOINT s"):
            cursor.execute(before)
        cursor.execute("INSERT INTO written VALUES (%s)", [written])
        times = commands(connection).get(command, 0)
        with suppress(pymysql.Error):
            cursor.execute(sql)
        assert not command or commands(connection)[command] > times, f"{sql} is no {command} to this server"
        connection.rollback()
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        return cursor.execute("SELECT n FROM written WHERE n = %s", [written]) > 0


def test_every_command_that_commits_is_known(server: PrivateServer) -> None:
    samples = {**SAMPLES, **OWN[server.engine]}
    with closing(connect(server)) as connection:
        there = set(commands(connection))
    assert {name for name in there if not name.startswith((*VERBS, *UNTRIED))} <= set(samples), "a command is new"
    for name in sorted(there & set(samples)):
        assert not commits(server, samples[name], name) or may_commit(samples[name]), samples[name]


def test_every_form_that_commits_is_known(server: PrivateServer) -> None:
    for sql in FORMS[server.engine]:
        assert not commits(server, sql) or may_commit(sql), sql


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_that_count_as_commits(verb: str) -> None:
    assert may_commit(f"{verb} anything")


def test_the_trial_tells_commits_from_others(server: PrivateServer) -> None:
    assert commits(server, "TRUNCATE TABLE other")
    assert not commits(server, "SELECT 1")
