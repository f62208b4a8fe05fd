"""The budget of a host, as its processes find it."""

from dbsupport import Database


def test_a_budget_of_one_stays_one(database: Database) -> None:
    database.plan(slots=1, fair_share=1)
    database.connection.close_pool()
    database.value("SELECT 1")
    assert database.pool.statistics().slots_budget == 1
