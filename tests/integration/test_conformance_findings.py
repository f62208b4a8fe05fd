"""What Django's own tests (`make django-suite`) found, each as a small test of ours."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test.utils import CaptureQueriesContext

from dbsupport import STOCK_ENGINES, Database, wait_until


class RefusedError(Exception):
    pass


def empty(_database: Database) -> None:
    pass


def query(database: Database) -> None:
    database.value("SELECT 1")


def nested_empty(database: Database) -> None:
    with transaction.atomic(using=database.alias):
        pass


def nested_before_any_query(database: Database) -> None:
    with transaction.atomic(using=database.alias), transaction.atomic(using=database.alias):
        query(database)


def rolled_back_before_any_query(database: Database) -> None:
    with pytest.raises(RefusedError), transaction.atomic(using=database.alias):
        raise RefusedError
    query(database)


def rolled_back_as_a_whole(database: Database) -> None:
    transaction.set_rollback(True, using=database.alias)


BLOCKS = [
    empty,
    query,
    nested_empty,
    nested_before_any_query,
    rolled_back_before_any_query,
    rolled_back_as_a_whole,
]


def logged(database: Database, block: Callable[[Database], None]) -> list[str]:
    with CaptureQueriesContext(database.connection) as queries, transaction.atomic(using=database.alias):
        block(database)
    return [re.sub(r"s\d+_x\d+", "sid", query["sql"]) for query in queries]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_log_of_queries_is_that_of_django(database: Database, block: Callable[[Database], None]) -> None:
    with database.another("stock", engine=STOCK_ENGINES[database.vendor]) as stock:
        expected = logged(stock, block)
        stock.connection.close()
    assert logged(database, block) == expected


def test_savepoints_sent_late_are_no_queries_of_the_block_that_sends_them(database: Database) -> None:
    with transaction.atomic(using=database.alias), transaction.atomic(using=database.alias):
        seen: list[str] = []

        def wrapper(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
            seen.append(sql)
            return execute(sql, *args)

        with database.connection.execute_wrapper(wrapper):
            query(database)
    assert seen == ["SELECT 1"]


def test_hooks_of_a_block_whose_connection_was_closed_are_forgotten(database: Database) -> None:
    calls: list[str] = []
    with transaction.atomic(using=database.alias):
        database.connection.close()
        transaction.on_commit(lambda: calls.append("closed"), using=database.alias)
    with transaction.atomic(using=database.alias):
        database.write("next")
        transaction.on_commit(lambda: calls.append("next"), using=database.alias)
    assert calls == ["next"]


def test_settings_that_django_refuses_are_refused_at_once(database: Database) -> None:
    bad = {"mysql": {"OPTIONS": {"isolation_level": "none such"}}, "postgresql": {"NAME": "x" * 64}}
    with database.another("bad", **bad[database.vendor]) as refused:
        with pytest.raises(ImproperlyConfigured):
            refused.query("SELECT 1")
        refused.connection.settings_dict.update(OPTIONS={}, NAME=database.server.database)
        query(refused)


def test_other_options_are_another_pool(database: Database) -> None:
    options, ask, expected = {
        "mysql": ({"init_command": "SET lock_wait_timeout = 77"}, "SELECT @@lock_wait_timeout", 77),
        "postgresql": ({"application_name": "other"}, "SHOW application_name", "other"),
    }[database.vendor]
    query(database)
    other = database.connection.copy()
    other.settings_dict["OPTIONS"].update(options)
    with other.cursor() as cursor:
        cursor.execute(ask)
        assert cursor.fetchone() == (expected,)
    other.close()
    other.close_pool()


def test_making_a_test_database_leaves_no_session(database: Database) -> None:
    query(database)
    before = database.observer.sessions()
    with database.connection._nodb_cursor() as cursor:
        cursor.execute("SELECT 1")
    wait_until(lambda: database.observer.sessions().items() <= before.items())


def test_copy_is_logged(database: Database) -> None:
    if database.vendor == "mysql":
        return  # has none
    copy = "COPY (SELECT 1) TO STDOUT"
    with (
        CaptureQueriesContext(database.connection) as queries,
        database.connection.cursor() as cursor,
        cursor.copy(copy) as rows,
    ):
        assert list(rows)
    assert [query["sql"] for query in queries] == [copy]
