"""The tests of Django that may fail with our engines, and why. Read by `django_suite.py`.

A test belongs here only if it asserts the very behaviour that we change, or reaches into what we replace.
"""

LENT = "Looks at `connection.connection` between two statements, when the connection is back in the pool."

# Those that pass where the test before them has left no idle connection in the pool.
SOMETIMES = frozenset({"backends.tests.ConnectionCreatedSignalTest.test_signal"})

KEPT = "Expects the thread to keep its connection after the request, as CONN_MAX_AGE has it; the pool takes it back."

POOLED = {
    "backends.base.test_base.ConnectionHealthChecksTests.test_health_checks_disabled": KEPT,
    "backends.base.test_base.ConnectionHealthChecksTests.test_health_checks_enabled_errors_occurred": KEPT,
    "backends.base.test_base.ConnectionHealthChecksTests.test_health_checks_enabled": LENT,
    "backends.base.test_base.ConnectionHealthChecksTests.test_set_autocommit_health_checks_enabled": LENT,
    "test_utils.tests.AssertNumQueriesUponConnectionTests.test_ignores_connection_configuration_queries": (
        "Counts a query that it runs each time that a thread gets a connection; here that is for each statement."
    ),
    "backends.tests.ConnectionCreatedSignalTest.test_signal": (
        "Expects `connection_created` each time that a thread gets a connection; it is sent when the pool opens one."
    ),
}

POSTGRESQL = {
    "backends.postgresql.tests.Tests.test_connect_and_rollback": (
        "Deletes `timezone_name`, which Django's wrapper caches when it connects; here the pool connects."
    ),
    "backends.postgresql.tests.Tests.test_connect_invalid_isolation_level": LENT,
    "backends.postgresql.tests.Tests.test_connect_isolation_level": LENT,
    "backends.postgresql.tests.Tests.test_connect_non_autocommit": (
        "Changes AUTOCOMMIT of a wrapper that exists; Django's reads it at each connect, ours when it is made."
    ),
    "backends.postgresql.tests.Tests.test_connect_role": (
        "Expects the driver's error for an unknown role; the pool tries until the deadline, then raises DatabaseDown."
    ),
    "backends.postgresql.tests.Tests.test_pooling_not_support_persistent_connections": (
        "Expects the text with which Django's own pool refuses CONN_MAX_AGE."
    ),
}

IMMEDIATE = "Expects BEGIN; our default is BEGIN IMMEDIATE, so that writers wait instead of failing."

SQLITE3 = {
    "backends.base.test_base.DatabaseWrapperLoggingTests.test_commit_debug_log": IMMEDIATE,
    "backends.sqlite.tests.TestTransactionMode.test_default_transaction_mode": IMMEDIATE,
}

POSTGIS = {
    "gis_tests.inspectapp.tests.OGRInspectTest.test_time_field": (
        "Makes OGR's connection only for engines that have Django's own names, and is skipped for others."
    ),
}

# Engine → test → reason.
EXEMPTIONS = {
    "mysql": POOLED,
    "pymysql": POOLED,
    "postgresql": POOLED | POSTGRESQL,
    "sqlite3": SQLITE3,
    "postgis": POSTGIS,
    "mysql_gis": {},
    "spatialite": {},
}
