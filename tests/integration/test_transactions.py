"""Transactions on the pool end as they do with Django's own engine: each scenario runs on both, and what is then in
the database, what was raised and which hooks ran must be equal. Afterwards nobody holds a connection or a transaction.
"""

from collections.abc import Callable
from typing import Any

import pytest

from dbsupport import STOCK_ENGINES, Database, in_thread, request
from transaction_scenarios import (
    SCENARIOS,
    Play,
    by_hand_and_forgotten,
    closed_in_a_block,
    hooks,
    inner_rolls_back,
)


@pytest.fixture
def procedure(database: Database) -> None:
    """One that writes a token."""
    if database.vendor == "mysql":
        database.query(
            "CREATE OR REPLACE PROCEDURE write_token(given text) INSERT INTO dbtests_token (value) VALUES (given)"
        )
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
        database.another("stock", engine=STOCK_ENGINES[database.server.engine], **stock_options) as stock,
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


@pytest.mark.parametrize("mode", ["request", "session"])
@pytest.mark.parametrize("scenario", [inner_rolls_back, hooks, by_hand_and_forgotten, closed_in_a_block], ids=name_of)
def test_ends_so_in_every_mode(database: Database, scenario: Callable[[Play], None], mode: str) -> None:
    compare(database, scenario, mode=mode)
