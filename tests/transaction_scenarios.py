"""What a view may do with transactions: each plays on Django's own engine and on the pool, see test_transactions.py."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import Error, connections, transaction

from dbsupport import Database


class Stop(Exception):
    pass


class Play:
    """One scenario on one database: what it does, and what came of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.alias = database.alias
        self.events: list[str] = []

    def atomic(self, **options: Any) -> Any:
        return transaction.atomic(using=self.alias, **options)

    def write(self, value: str) -> None:
        self.database.write(value)

    def execute(self, sql: str) -> None:
        self.database.query(sql)

    def say(self, event: object) -> None:
        self.events.append(str(event))

    def later(self, event: str, **options: Any) -> None:
        transaction.on_commit(lambda: self.say(event), using=self.alias, **options)


def commits(play: Play) -> None:
    with play.atomic():
        play.write("a")
        with play.atomic():
            play.write("b")


def rolls_back(play: Play) -> None:
    with play.atomic():
        play.write("a")
        raise Stop


def rolls_back_before_anything(play: Play) -> None:
    with play.atomic():
        raise Stop


def inner_rolls_back(play: Play) -> None:
    with play.atomic():
        play.write("a")
        with suppress(Stop), play.atomic():
            play.write("b")
            raise Stop
        play.write("c")


def inner_rolls_back_before_anything(play: Play) -> None:
    with play.atomic():
        with suppress(Stop), play.atomic():
            raise Stop
        with suppress(Stop), play.atomic(), play.atomic():
            play.write("b")
            raise Stop
        play.write("c")


def inner_without_savepoint_rolls_back_all(play: Play) -> None:
    with play.atomic():
        with suppress(Stop), play.atomic(savepoint=False):
            raise Stop
        try:
            play.write("a")
        except Error as error:
            play.say(type(error).__name__)


def middle_of_three_rolls_back(play: Play) -> None:
    with play.atomic():
        with suppress(Stop), play.atomic():
            play.write("a")
            with play.atomic():
                play.write("b")
            raise Stop
        with play.atomic():
            play.write("c")


def savepoints_by_hand(play: Play) -> None:
    with play.atomic():
        first = transaction.savepoint(using=play.alias)
        second = transaction.savepoint(using=play.alias)
        transaction.savepoint_rollback(second, using=play.alias)
        play.write("a")
        third = transaction.savepoint(using=play.alias)
        play.write("b")
        transaction.savepoint_rollback(third, using=play.alias)
        play.write("c")
        transaction.savepoint_commit(first, using=play.alias)
        fourth = transaction.savepoint(using=play.alias)
        play.write("d")
        transaction.savepoint_commit(fourth, using=play.alias)
    transaction.clean_savepoints(using=play.alias)


def first_savepoint_rolled_back_before_anything(play: Play) -> None:
    with play.atomic():
        first = transaction.savepoint(using=play.alias)
        second = transaction.savepoint(using=play.alias)
        transaction.savepoint_rollback(first, using=play.alias)
        play.write("a")
        transaction.savepoint_rollback(first, using=play.alias)
        play.write("b")
        with suppress(Error):
            transaction.savepoint_rollback(second, using=play.alias)
            play.say("the second savepoint went with the first")


def rollback_asked_for(play: Play) -> None:
    with play.atomic():
        play.write("a")
        transaction.set_rollback(True, using=play.alias)
        play.say(transaction.get_rollback(using=play.alias))


def durable(play: Play) -> None:
    with play.atomic(durable=True):
        play.write("a")
    with play.atomic():
        play.write("b")
        with suppress(RuntimeError), play.atomic(durable=True):
            play.write("c")


def error_in_a_statement(play: Play) -> None:
    play.write("a")
    with suppress(Error), play.atomic():
        play.write("b")
        play.write("a")
    with play.atomic():
        with suppress(Error), play.atomic():
            play.write("a")
        play.write("c")


def error_outside(play: Play) -> None:
    with suppress(Error):
        play.execute("nonsense")
    play.write("a")


def hooks(play: Play) -> None:
    play.later("at once")
    with play.atomic():
        play.later("first")
        play.write("a")
        with suppress(Stop), play.atomic():
            play.later("never")
            raise Stop
        with play.atomic():
            play.later("second")
        play.say("in the block")
    with suppress(Stop), play.atomic():
        play.later("never")
        raise Stop
    play.say(transaction.get_autocommit(using=play.alias))


def hooks_that_query(play: Play) -> None:
    def hook() -> None:
        play.write("by the hook")
        with play.atomic():
            play.write("by the hook's block")
            play.later("hooked by the hook")

    with play.atomic():
        transaction.on_commit(hook, using=play.alias)
        play.write("a")


def hook_that_fails(play: Play) -> None:
    def hook() -> None:
        raise Stop

    with play.atomic():
        play.write("a")
        transaction.on_commit(hook, using=play.alias)
        play.later("never")


def robust_hook_that_fails(play: Play) -> None:
    def hook() -> None:
        raise Stop

    with play.atomic():
        transaction.on_commit(hook, using=play.alias, robust=True)
        play.later("all the same")


def by_hand(play: Play) -> None:
    transaction.set_autocommit(False, using=play.alias)
    play.write("a")
    transaction.commit(using=play.alias)
    play.write("b")
    transaction.rollback(using=play.alias)
    with play.atomic():
        play.write("c")
    play.say(transaction.get_autocommit(using=play.alias))
    play.write("d")
    transaction.set_autocommit(True, using=play.alias)
    play.write("e")


def by_hand_and_forgotten(play: Play) -> None:
    transaction.set_autocommit(False, using=play.alias)
    play.write("a")
    transaction.commit(using=play.alias)
    play.write("b")


def by_hand_block_rolls_back(play: Play) -> None:
    transaction.set_autocommit(False, using=play.alias)
    play.write("a")
    with suppress(Stop), play.atomic():
        play.write("b")
        raise Stop
    transaction.commit(using=play.alias)
    transaction.set_autocommit(True, using=play.alias)


def forbidden_in_a_block(play: Play) -> None:
    with play.atomic():
        for forbidden in (transaction.commit, transaction.rollback):
            with pytest.raises(transaction.TransactionManagementError):
                forbidden(using=play.alias)
        with pytest.raises(transaction.TransactionManagementError):
            transaction.set_autocommit(True, using=play.alias)
        play.write("a")


def closed_in_a_block(play: Play) -> None:
    with play.atomic():
        play.write("a")
        connections[play.alias].close()
        with pytest.raises(Error):
            play.write("b")
    play.write("c")


def closed_in_a_block_before_anything(play: Play) -> None:
    with play.atomic():
        connections[play.alias].close()
        with pytest.raises(Error):
            play.write("b")
    play.write("c")


def closed_in_an_inner_block(play: Play) -> None:
    with suppress(Stop), play.atomic():
        play.write("a")
        with play.atomic():
            connections[play.alias].close()
        raise Stop
    with play.atomic():
        play.write("b")


def all_closed_in_a_block(play: Play) -> None:
    with play.atomic():
        play.write("a")
        connections.close_all()
    play.write("b")


def closed_between(play: Play) -> None:
    play.write("a")
    connections[play.alias].close()
    connections[play.alias].close()
    play.write("b")


def ddl_in_a_block(play: Play) -> None:
    play.execute("DROP TABLE IF EXISTS made")
    with play.atomic():
        play.write("a")
        play.execute("CREATE TABLE made (n int)")
        play.write("b")
        raise Stop


def ddl_in_a_block_that_commits(play: Play) -> None:
    play.execute("DROP TABLE IF EXISTS made")
    with play.atomic():
        play.write("a")
        play.execute("CREATE TABLE made (n int)")
        play.write("b")
    play.write("c")
    with suppress(Stop), play.atomic():
        play.write("d")
        raise Stop


def failing_ddl_in_a_block(play: Play) -> None:
    with play.atomic():
        play.write("a")
        with suppress(Error), play.atomic():
            play.execute("CREATE nonsense")
        play.write("b")
        raise Stop


def raw_commit_in_a_block(play: Play) -> None:
    with play.atomic():
        play.write("a")
        play.execute("COMMIT")
        play.write("b")
        raise Stop


def procedure_in_a_block(play: Play) -> None:
    cursor = connections[play.alias].cursor()
    with suppress(Stop), play.atomic():
        cursor.callproc("write_token", ["a"])
        raise Stop
    cursor.close()
    play.write("b")


def old_cursor_in_a_block(play: Play) -> None:
    cursor = connections[play.alias].cursor()
    cursor.execute("SELECT 1")
    with suppress(Stop), play.atomic():
        cursor.execute("INSERT INTO dbtests_token (value) VALUES ('a')")
        raise Stop
    cursor.executemany("INSERT INTO dbtests_token (value) VALUES (%s)", [["b"], ["c"]])


def iterated_in_a_block(play: Play) -> None:
    play.database.tokens.bulk_create(play.database.tokens.model(value=f"{n:03}") for n in range(50))
    with play.atomic():
        rows = play.database.tokens.order_by("value").iterator(chunk_size=10)
        play.say(next(rows).value)
        play.write("a")
        play.say(next(rows).value)
    rows = play.database.tokens.order_by("value").iterator(chunk_size=10)
    play.say([next(rows).value for _ in range(15)])
    play.write("b")
    play.say(len(list(rows)))


def temporary_connection(play: Play) -> None:
    with connections[play.alias].temporary_connection() as cursor:
        cursor.execute("SELECT 1")
        play.say(cursor.fetchall())
    with play.atomic():
        play.write("a")
        with connections[play.alias].temporary_connection() as cursor:
            cursor.execute("SELECT 1")
    with play.atomic(), connections[play.alias].temporary_connection():
        play.write("b")


def characteristics_first(play: Play) -> None:
    with play.atomic():
        play.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        play.write("a")


def wrappers_change_statements(play: Play) -> None:
    def comment(execute: Any, sql: str, *rest: Any) -> Any:
        return execute(f"/* who */ {sql}", *rest)

    with connections[play.alias].execute_wrapper(comment), play.atomic():
        play.write("a")


SCENARIOS: list[Callable[[Play], None]] = [
    commits, rolls_back, rolls_back_before_anything, inner_rolls_back, inner_rolls_back_before_anything,
    inner_without_savepoint_rolls_back_all, middle_of_three_rolls_back, savepoints_by_hand,
    first_savepoint_rolled_back_before_anything, rollback_asked_for, durable, error_in_a_statement, error_outside,
    hooks, hooks_that_query, hook_that_fails, robust_hook_that_fails, by_hand, by_hand_and_forgotten,
    by_hand_block_rolls_back, forbidden_in_a_block, closed_in_a_block, closed_in_a_block_before_anything,
    closed_in_an_inner_block, all_closed_in_a_block, closed_between, ddl_in_a_block, ddl_in_a_block_that_commits,
    failing_ddl_in_a_block, raw_commit_in_a_block, procedure_in_a_block, old_cursor_in_a_block, iterated_in_a_block,
    temporary_connection, characteristics_first, wrappers_change_statements,
]  # fmt: skip
