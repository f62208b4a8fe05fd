"""Transactions on the pool end as they do with Django's own engine: each scenario runs on both, and what is then in
the database, what was raised and which hooks ran must be equal. Afterwards nobody holds a connection or a transaction.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from dbsupport import STOCK_ENGINES, Database, in_thread, request
from transaction_scenarios import (
    SCENARIOS,
    Play,
    Stop,
    by_hand_and_forgotten,
    closed_in_a_block,
    hooks,
    inner_rolls_back,
)


@pytest.fixture
def procedure(database: Database) -> None:
    """One that writes a token."""
    if database.vendor == "mysql":
        database.query("DROP PROCEDURE IF EXISTS write_token")
        database.query("CREATE PROCEDURE write_token(given text) INSERT INTO dbtests_token (value) VALUES (given)")
    else:
        database.query(
            "CREATE OR REPLACE FUNCTION write_token(given text) RETURNS void LANGUAGE sql"
            " AS 'INSERT INTO dbtests_token (value) VALUES (given)'"
        )


def outcome(database: Database, scenario: Callable[[Play], None], judge: Database) -> tuple[list[str], list[str], str]:
    """Events, tokens and exception of one run in a request of its own."""
    play = Play(database)
    raised = ""
    with request():
        try:
            scenario(play)
        except Exception as error:
            raised = type(error).__name__
    values = sorted(judge.tokens.values_list("value", flat=True))
    judge.tokens.all().delete()
    return play.events, values, raised


def compare(database: Database, scenario: Callable[[Play], None], **options: Any) -> None:
    """Run the scenario on Django's own engine, and twice on the pool."""
    stock_options = {name: value for name, value in options.items() if name.isupper()}
    with (
        database.another("stock", engine=STOCK_ENGINES[database.vendor], **stock_options) as stock,
        database.another("ours", **options) as ours,
    ):
        expected = in_thread(lambda: outcome(stock, scenario, database))
        for _ in range(2):
            assert outcome(ours, scenario, database) == expected
        ours.connection.close()  # in session mode the thread keeps its connection
        ours.assert_clean()


def name_of(scenario: Callable[[Play], None]) -> str:
    return scenario.__name__


@pytest.mark.usefixtures("procedure")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=name_of)
def test_ends_as_with_djangos_own_engine(database: Database, scenario: Callable[[Play], None]) -> None:
    compare(database, scenario, mode="transaction")


@pytest.mark.usefixtures("procedure")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=name_of)
def test_ends_so_without_autocommit(database: Database, scenario: Callable[[Play], None]) -> None:
    compare(database, scenario, AUTOCOMMIT=False)


def autocommit_off_twice(play: Play) -> None:
    connection = connections[play.alias]
    connection.set_autocommit(False)
    play.write("a")
    connection.set_autocommit(False)
    play.write("b")
    connection.rollback()
    connection.set_autocommit(True)


def caught_deadlock(play: Play) -> None:
    """InnoDB ends the transaction that has written least; what follows in the block belongs to a new one."""
    for value in "12":
        play.write(value)
    with play.atomic():
        play.execute("SELECT * FROM dbtests_token WHERE value = '1' FOR UPDATE")
        locked = threading.Event()

        def other() -> None:
            judge = connections["mysql"]
            with transaction.atomic(using="mysql"), judge.cursor() as cursor:
                cursor.execute("SELECT * FROM dbtests_token WHERE value = '2' FOR UPDATE")
                for value in "xyz":
                    cursor.execute("INSERT INTO dbtests_token (value) VALUES (%s)", [value])
                locked.set()
                cursor.execute("SELECT * FROM dbtests_token WHERE value = '1' FOR UPDATE")
            judge.close()

        thread = threading.Thread(target=other)
        thread.start()
        assert locked.wait(20)
        try:
            play.execute("SELECT * FROM dbtests_token WHERE value = '2' FOR UPDATE")
        except OperationalError as error:
            play.say(error.args[0])
        thread.join()
        play.write("later")
        raise Stop


def tables_locked_in_a_block(play: Play) -> None:
    play.execute("CREATE TABLE IF NOT EXISTS not_locked (n int)")
    play.execute("LOCK TABLES dbtests_token WRITE")
    try:
        with play.atomic():
            play.write("a")
        play.execute("SELECT * FROM not_locked")
    except OperationalError as error:
        play.say(error.args[0])
    play.execute("UNLOCK TABLES")


@pytest.mark.parametrize("database", ["mysql"], indirect=True)
@pytest.mark.parametrize("scenario", [autocommit_off_twice, caught_deadlock, tables_locked_in_a_block], ids=name_of)
def test_ends_so_on_mysql(database: Database, scenario: Callable[[Play], None]) -> None:
    with database.connection.cursor() as cursor:
        cursor.execute("SHOW INDEX FROM dbtests_token WHERE Key_name = 'by_value'")
        if not cursor.fetchall():
            cursor.execute("ALTER TABLE dbtests_token ADD INDEX by_value (value(9))")
    compare(database, scenario)


@pytest.mark.parametrize("mode", ["request", "session"])
@pytest.mark.parametrize("scenario", [inner_rolls_back, hooks, by_hand_and_forgotten, closed_in_a_block], ids=name_of)
def test_ends_so_in_every_mode(database: Database, scenario: Callable[[Play], None], mode: str) -> None:
    compare(database, scenario, mode=mode)
