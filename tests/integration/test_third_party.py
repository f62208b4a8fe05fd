"""What other people's code does to connections and cursors ends as it does with Django's own engine."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.backends import utils
from django.db.backends.signals import connection_created

from dbsupport import ENGINES, STOCK_ENGINES, Database, in_thread, request
from fullhouse.db.pooled import Pooled

INSERT = "INSERT INTO dbtests_token (value) VALUES ('a')"
SET = {"mysql": "SET lock_wait_timeout = 7", "postgresql": "SET lock_timeout = '7s'"}
SHOW = {"mysql": "SELECT @@lock_wait_timeout", "postgresql": "SHOW lock_timeout"}


@pytest.fixture
def narrow(database: Database) -> Iterator[Database]:
    """An alias with one connection, so that whoever comes next gets it, or its replacement."""
    with database.another("narrow", max_size=1) as narrow:
        yield narrow


@contextmanager
def receiving(receiver: Any) -> Iterator[None]:
    connection_created.connect(receiver)
    try:
        yield
    finally:
        connection_created.disconnect(receiver)


def values(database: Database) -> list[str]:
    return [str(row[0]) for row in database.query("SELECT value FROM dbtests_token ORDER BY id")]


def count(database: Database) -> int:
    with request():
        return int(database.value("SELECT count(*) FROM dbtests_token"))


def timeout_of_next(database: Database) -> str:
    """The session's setting, as another thread's request sees it."""

    def look() -> str:
        with request():
            return str(database.value(SHOW[database.vendor]))

    return in_thread(look)


# -- Receivers of connection_created ---------------------------------------------------------------------------------


def test_a_receiver_may_query_its_alias(narrow: Database) -> None:
    """As django.contrib.postgres does: the session that is opened is the connection of its alias."""
    seen: list[tuple[bool, int]] = []

    def receive(connection: Any, **_: Any) -> None:
        if connection.alias == narrow.alias:
            with connections[narrow.alias].cursor() as cursor, transaction.atomic(using=narrow.alias):
                cursor.execute("SELECT count(*) FROM dbtests_token")
                seen.append((connections[narrow.alias] is connection, cursor.fetchone()[0]))

    with receiving(receive):
        with request():
            narrow.query(SET[narrow.vendor])  # pins, so that the session is reset or replaced
        assert count(narrow) == 0
    assert seen == [(True, 0), (True, 0)]
    assert isinstance(narrow.connection, Pooled)
    assert not narrow.connection.is_unpooled


def test_what_a_receiver_leaves_open_is_closed_and_rolled_back(narrow: Database) -> None:
    kept: list[Any] = []

    def receive(connection: Any, **_: Any) -> None:
        if connection.alias == narrow.alias:
            connection.set_autocommit(False)
            kept.append(connection.cursor())
            kept[-1].execute(INSERT)

    with receiving(receive):
        assert count(narrow) == 0
    kept.clear()
    narrow.assert_clean()


def test_what_a_receiver_opens_of_another_alias_is_closed(narrow: Database) -> None:
    """A thread of the pool has no request whose end would do so."""
    with narrow.another("session", mode="session") as session:

        def receive(connection: Any, **_: Any) -> None:
            if connection.alias == narrow.alias:
                session.value("SELECT 1")

        with receiving(receive):
            assert count(narrow) == 0
        assert session.pool.statistics().connects == 1
        session.assert_clean()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("atomic", [True, False])
def test_types_of_an_extension_that_a_migration_creates(database: Database, atomic: bool) -> None:
    """Django registers them on the driver's connection, which is at hand outside of a transaction too."""
    signals = import_module("django.contrib.postgres.signals")
    hstore = import_module("django.contrib.postgres.operations").HStoreExtension()
    observer, create_types = database.observer, signals.register_type_handlers
    with receiving(create_types), database.another("narrow", max_size=1) as narrow:
        observer.ask("DROP EXTENSION IF EXISTS hstore")
        signals.get_hstore_oids.cache_clear()
        with narrow.connection.schema_editor(atomic=atomic) as editor:
            hstore.database_forwards("dbtests", editor, None, None)
        for _ in range(2):
            with request():
                assert narrow.query("SELECT %s::hstore", [{"a": "1"}]) == [({"a": "1"},)]


# -- Cursors that others wrap ----------------------------------------------------------------------------------------


def test_a_second_wrapper_over_the_drivers_cursor(database: Database) -> None:
    """django-debug-toolbar makes one, and drops the first."""
    first = database.connection.cursor()
    second = utils.CursorWrapper(first.cursor, database.connection)
    del first
    gc.collect()
    second.execute("SELECT 42")
    assert second.fetchone() == (42,)
    assert database.pool.statistics().in_use == 1
    second.close()
    assert database.pool.statistics().in_use == 0


def test_a_class_that_replaces_djangos_debug_cursor_is_used(database: Database, monkeypatch: Any) -> None:
    printed: list[str] = []

    class Printing(utils.CursorDebugWrapper):
        def execute(self, sql: Any, params: Any = None) -> Any:
            printed.append(sql)
            return super().execute(sql, params)

    monkeypatch.setattr(utils, "CursorDebugWrapper", Printing)
    if database.vendor == "postgresql":
        monkeypatch.setattr(import_module("django.db.backends.postgresql.base"), "CursorDebugWrapper", Printing)
    database.connection.force_debug_cursor = True
    try:
        assert database.value("SELECT 42") == 42
    finally:
        database.connection.force_debug_cursor = False
    assert printed == ["SELECT 42"]
    assert database.pool.statistics().in_use == 0


# -- The driver's own objects ----------------------------------------------------------------------------------------


def cursor_by_its_class(connection: Any) -> Any:
    """One that the driver's connection has not made."""
    driver = connection.connection
    if connection.vendor == "postgresql":
        return import_module("psycopg").ClientCursor(driver)
    return import_module(f"{type(driver).__mro__[1].__module__.partition('.')[0]}.cursors").Cursor(driver)


DIRECT = {
    "cursor.cursor": lambda connection, sql: connection.cursor().cursor.execute(sql),
    "connection.connection.cursor": lambda connection, sql: connection.connection.cursor().execute(sql),
    "connection of a cursor": lambda connection, sql: connection.cursor().connection.cursor().execute(sql),
    "cursor by its class": lambda connection, sql: cursor_by_its_class(connection).execute(sql),
    "the driver's way": lambda connection, sql: (
        connection.connection.query(sql) if connection.vendor == "mysql" else connection.connection.execute(sql)
    ),
}


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("after", ["nothing", "a statement"])
def test_the_drivers_objects_take_part_in_the_transaction(database: Database, way: str, after: str) -> None:
    with request():
        with suppress(ZeroDivisionError), transaction.atomic(using=database.alias):
            if after == "a statement":
                database.value("SELECT 1")
            DIRECT[way](database.connection, INSERT)
            raise ZeroDivisionError
        assert values(database) == []
        with transaction.atomic(using=database.alias):
            DIRECT[way](database.connection, INSERT)
        assert values(database) == ["a"]
    assert values(database) == ["a"]


def test_a_commit_of_the_driver_does_not_end_the_block(database: Database) -> None:
    """What follows in the block is in a transaction again, as with Django's own engine."""
    with request(), suppress(ZeroDivisionError), transaction.atomic(using=database.alias):
        database.write("kept")
        database.connection.connection.commit()
        database.write("lost")
        raise ZeroDivisionError
    assert values(database) == ["kept"]


@pytest.mark.parametrize("way", DIRECT)
def test_what_the_drivers_objects_set_reaches_nobody_else(narrow: Database, way: str) -> None:
    before = timeout_of_next(narrow)
    with request():
        with narrow.connection.cursor():  # which keeps the connection meanwhile
            DIRECT[way](narrow.connection, SET[narrow.vendor])
        assert narrow.value(SHOW[narrow.vendor]) != before
    assert timeout_of_next(narrow) == before


def test_the_drivers_connection_is_there_between_the_first_statement_and_the_end(narrow: Database) -> None:
    """As with Django's own engine, so that who has queried may use it."""
    before = timeout_of_next(narrow)
    assert narrow.connection.connection is None
    with request():
        narrow.value("SELECT 1")
        assert narrow.pool.statistics().in_use == 0
        narrow.connection.connection.cursor().execute(SET[narrow.vendor])
        assert narrow.value(SHOW[narrow.vendor]) != before
    assert narrow.pool.statistics().in_use == 0
    assert narrow.connection.connection is None
    assert timeout_of_next(narrow) == before
    narrow.value("SELECT 1")
    narrow.connection.close()
    assert narrow.connection.connection is None


def test_a_connection_that_was_given_back_is_refused(narrow: Database) -> None:
    with request():
        with narrow.connection.cursor():
            driver = narrow.connection.connection
        with pytest.raises(narrow.connection.Database.InterfaceError, match="was returned to the pool"):
            driver.cursor()
    with request(), transaction.atomic(using=narrow.alias):
        narrow.write("a")

        def use() -> None:
            with pytest.raises(narrow.connection.Database.InterfaceError, match="was returned to the pool"):
                driver.cursor()

        in_thread(use)
    assert values(narrow) == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda driver: setattr(driver, "row_factory", import_module("psycopg.rows").dict_row),
        lambda driver: setattr(driver, "prepare_threshold", 0),
        lambda driver: driver.add_notice_handler(print),
        lambda driver: driver.adapters.register_loader("int4", import_module("psycopg.types.string").TextLoader),
        lambda driver: setattr(driver, "isolation_level", import_module("psycopg").IsolationLevel.SERIALIZABLE),
    ],
    ids=["row_factory", "prepare_threshold", "notice handler", "loader", "isolation level"],
)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_a_request_changes_on_the_drivers_connection_reaches_nobody_else(narrow: Database, change: Any) -> None:
    session = narrow.session()
    with request(), transaction.atomic(using=narrow.alias):
        change(narrow.connection.connection)
        narrow.connection.cursor().execute("SELECT 1")
    assert narrow.session() != session
    assert narrow.value("SELECT 1") == 1


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_prepared_statements_outlive_no_reset(database: Database) -> None:
    with database.another(
        "narrow", max_size=1, OPTIONS={"prepare_threshold": 0, "server_side_binding": True}
    ) as narrow:
        for _ in range(3):
            with request():
                narrow.query("SELECT value FROM dbtests_token WHERE id = %s", [1])
                narrow.query(SET[narrow.vendor])
            with request():
                narrow.query("SELECT value FROM dbtests_token WHERE id = %s", [1])


def dict_cursor(driver: Any) -> None:
    driver.cursorclass = import_module(f"{type(driver).__mro__[1].__module__.partition('.')[0]}.cursors").DictCursor


@pytest.mark.parametrize(
    "change",
    [
        dict_cursor,
        lambda driver: driver.encoders.update({int: lambda value, encoders: "41"}),
        lambda driver: (driver.converter if hasattr(driver, "converter") else driver.decoders).update({8: str}),
    ],
    ids=["cursor class", "encoder", "decoder"],
)
@pytest.mark.parametrize("database", ["mysql"], indirect=True)
def test_what_a_request_sets_on_the_drivers_connection_reaches_nobody_else(narrow: Database, change: Any) -> None:
    session = narrow.session()
    with request(), transaction.atomic(using=narrow.alias):
        narrow.value("SELECT 1")
        change(narrow.connection.connection)
    assert narrow.session() != session
    assert narrow.query("SELECT %s", [1]) == [(1,)]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_cursor_class_without_room_for_the_rules_is_let_through_and_its_session_replaced(narrow: Database) -> None:
    psycopg = import_module("psycopg")
    session = narrow.session()
    with request(), transaction.atomic(using=narrow.alias):
        narrow.value("SELECT 1")
        narrow.connection.connection.cursor_factory = psycopg.RawCursor
        assert narrow.connection.connection.cursor().execute("SELECT $1::int", [42]).fetchone() == (42,)
    assert narrow.session() != session


def test_a_wrapper_of_another_thread_is_refused_as_by_django(database: Database) -> None:
    wrapper = database.connection
    with request(), transaction.atomic(using=database.alias):
        database.value("SELECT 1")

        def use() -> None:
            with pytest.raises(DatabaseError, match="can only be used in that same thread"):
                wrapper.cursor()

        in_thread(use)


# -- Subclasses ------------------------------------------------------------------------------------------------------


def test_each_session_goes_through_what_a_subclass_overrides(database: Database, monkeypatch: Any) -> None:
    """Short-lived passwords, metrics, and settings of a session."""
    engine = import_module(f"{ENGINES[database.vendor]}.base")
    calls: list[str] = []

    class DatabaseWrapper(engine.DatabaseWrapper):
        def get_connection_params(self) -> dict[str, Any]:
            calls.append("get_connection_params")
            return {**super().get_connection_params(), "password": database.server.password}

        def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
            calls.append("get_new_connection")
            return super().get_new_connection(conn_params)

        def init_connection_state(self) -> None:
            super().init_connection_state()
            with self.cursor() as cursor:
                cursor.execute(SET[self.vendor])

    monkeypatch.setattr(engine, "DatabaseWrapper", DatabaseWrapper)
    with database.another("narrow", max_size=1, PASSWORD="stale") as narrow:
        assert count(narrow) == 0
        first = list(calls)
        assert timeout_of_next(narrow).removesuffix("s") == "7"
        with request():
            narrow.connection.ensure_connection()
            narrow.connection.connection.cursor().execute("SELECT 1")  # directly: the session is replaced
        assert timeout_of_next(narrow).removesuffix("s") == "7"
        again = calls[len(first) :]
    assert first.count("get_new_connection") == again.count("get_new_connection") == 1
    assert again == ["get_connection_params", "get_new_connection"]


def test_an_engine_of_others_under_the_pool(database: Database, monkeypatch: Any) -> None:
    """GeoDjango's, say: what it brings stays, and its sessions are the pool's."""
    engine = import_module(f"{ENGINES[database.vendor]}.base")
    stock = import_module(f"{STOCK_ENGINES[database.vendor]}.base").DatabaseWrapper

    class Operations(stock.ops_class):  # type: ignore[misc]
        pass

    class SchemaEditor(stock.SchemaEditorClass):  # type: ignore[misc]
        pass

    class Creation(stock.creation_class):  # type: ignore[misc]
        pass

    class Theirs(stock):  # type: ignore[misc, valid-type]
        ops_class, SchemaEditorClass, creation_class = Operations, SchemaEditor, Creation

        def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
            connection = super().get_new_connection(conn_params)
            with connection.cursor() as cursor:  # theirs, before the pool has it
                cursor.execute(SET[self.vendor])
            connection.commit()
            return connection

    class DatabaseWrapper(engine.DatabaseWrapper, Theirs):  # type: ignore[misc]
        pass

    monkeypatch.setattr(engine, "DatabaseWrapper", DatabaseWrapper)
    with database.another("theirs", max_size=1) as theirs:
        wrapper = theirs.connection
        assert (type(wrapper.ops), type(wrapper.creation)) == (Operations, Creation)
        assert type(wrapper.schema_editor()) is SchemaEditor
        assert timeout_of_next(theirs).removesuffix("s") == "7"
        with request():
            with suppress(ZeroDivisionError), transaction.atomic(using=theirs.alias):
                theirs.write("a")
                raise ZeroDivisionError
            assert values(theirs) == []
            theirs.query("CREATE TEMPORARY TABLE kept (n int)")
        assert timeout_of_next(theirs).removesuffix("s") == "7"
        theirs.assert_clean()


# -- Test databases, and values quoted without a connection at hand --------------------------------------------------


def test_a_database_can_be_dropped_although_another_alias_has_a_pool_on_it(database: Database) -> None:
    with database.another("mirror") as mirror:
        mirror.value("SELECT 1")
        copy = database.connection.copy("copied")
        with copy.cursor() as cursor:
            cursor.execute("SELECT 1")
        database.value("SELECT 1")
        database.connection.close_pool()
        pools = [each.pool for each in (mirror.connection, copy)]
        assert [pool.statistics().total for pool in pools] == [0, 0]
        copy.close_pool()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_schema_editor_quotes_what_a_receiver_has_registered(narrow: Database) -> None:
    class Kind:
        pass

    class Dumper(import_module("psycopg.adapt").Dumper):  # type: ignore[misc]
        oid = 25

        def dump(self, obj: Any) -> bytes:
            return b"a kind"

    def receive(connection: Any, **_: Any) -> None:
        connection.connection.adapters.register_dumper(Kind, Dumper)

    with receiving(receive), narrow.connection.schema_editor(collect_sql=True) as editor:
        assert editor.quote_value(Kind()) == "'a kind'"
