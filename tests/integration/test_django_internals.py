"""What `db.pooled`, `db.guard` and `site.routes` rely upon in Django beyond its documented API.

A new Django that changes one of these fails here, with the name of what changed, before anything subtle goes wrong.
"""

import inspect
import io
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.mysql import base as mysql
from django.db.backends.postgresql import base as postgresql
from django.db.backends.utils import CursorWrapper
from django.test.testcases import DatabaseOperationForbidden
from django.urls import ResolverMatch

from dbsupport import STOCK_ENGINES, Database
from fullhouse.site.routes import remember_routes
from fullhouse.telemetry.times import ROUTE

PARAMETERS: dict[Callable[..., Any], list[str]] = {
    BaseDatabaseWrapper.__init__: ["self", "settings_dict", "alias"],
    BaseDatabaseWrapper.connect: ["self"],
    BaseDatabaseWrapper.check_settings: ["self"],
    BaseDatabaseWrapper.ensure_connection: ["self"],
    BaseDatabaseWrapper._cursor: ["self", "name"],
    BaseDatabaseWrapper.get_new_connection: ["self", "conn_params"],
    BaseDatabaseWrapper.create_cursor: ["self", "name"],
    BaseDatabaseWrapper._nodb_cursor: ["self"],
    BaseDatabaseWrapper.get_autocommit: ["self"],
    BaseDatabaseWrapper.set_autocommit: ["self", "autocommit", "force_begin_transaction_with_broken_autocommit"],
    BaseDatabaseWrapper._set_autocommit: ["self", "autocommit"],
    BaseDatabaseWrapper._savepoint: ["self", "sid"],
    BaseDatabaseWrapper._savepoint_rollback: ["self", "sid"],
    BaseDatabaseWrapper._savepoint_commit: ["self", "sid"],
    BaseDatabaseWrapper._commit: ["self"],
    BaseDatabaseWrapper._rollback: ["self"],
    BaseDatabaseWrapper.close: ["self"],
    BaseDatabaseWrapper._close: ["self"],
    BaseDatabaseWrapper.close_if_unusable_or_obsolete: ["self"],
    BaseDatabaseWrapper.is_usable: ["self"],
    BaseDatabaseWrapper.temporary_connection: ["self"],
    BaseDatabaseWrapper.init_connection_state: ["self"],
}


@pytest.mark.parametrize("method", PARAMETERS, ids=lambda method: method.__qualname__)
def test_signatures(method: Callable[..., Any]) -> None:
    assert list(inspect.signature(method).parameters) == PARAMETERS[method]


def test_fields(database: Database) -> None:
    """Those that the mixin reads and sets, on a wrapper of Django's own."""
    stock = STOCK_ENGINES[database.vendor]
    fields = vars(import_module(f"{stock}.base").DatabaseWrapper(database.connection.settings_dict))
    names = {"connection", "in_atomic_block", "closed_in_transaction", "autocommit", "errors_occurred"}
    names |= {"needs_rollback", "run_on_commit", "atomic_blocks", "savepoint_ids", "_thread_ident", "settings_dict"}
    assert names <= fields.keys()
    assert fields["connection"] is None


def test_steps_that_django_calls() -> None:
    """Each caller leads to the step that the mixin overrides."""
    calls = {
        BaseDatabaseWrapper.cursor: "self._cursor(",
        BaseDatabaseWrapper._cursor: "self.ensure_connection(",
        BaseDatabaseWrapper.commit: "self._commit(",
        BaseDatabaseWrapper.rollback: "self._rollback(",
        BaseDatabaseWrapper.close: "self._close(",
        BaseDatabaseWrapper.set_autocommit: "self._set_autocommit(",
        BaseDatabaseWrapper.savepoint: "self._savepoint(",
        BaseDatabaseWrapper.connect: "self.connection = self.get_new_connection(",
        CursorWrapper._execute: "self.cursor.execute(",
        CursorWrapper._executemany: "self.cursor.executemany(",
        mysql.DatabaseWrapper._rollback: "BaseDatabaseWrapper._rollback(self)",
        postgresql.DatabaseWrapper.chunked_cursor: "self._cursor(",
        transaction.Atomic.__enter__: "connection.set_autocommit(",
        transaction.Atomic.__exit__: "connection.closed_in_transaction",
        close_old_connections: "close_if_unusable_or_obsolete()",
    }
    missing = [
        f"{caller.__qualname__}: {call}" for caller, call in calls.items() if call not in inspect.getsource(caller)
    ]
    assert missing == []


def test_what_replaces_djangos_ensure_connection_is_asked(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SimpleTestCase forbids connections, in threads too; and a mock may call ours in its turn."""
    ours = database.connection.ensure_connection

    def refuse(_: BaseDatabaseWrapper) -> None:
        raise DatabaseOperationForbidden("not in this test")

    with monkeypatch.context() as patched:
        patched.setattr(BaseDatabaseWrapper, "ensure_connection", refuse)
        with pytest.raises(DatabaseOperationForbidden):
            database.value("SELECT 1")
        patched.setattr(BaseDatabaseWrapper, "ensure_connection", lambda _: ours())
        assert database.value("SELECT 1") == 1
    assert database.value("SELECT 1") == 1


def test_the_requests_of_djangos_handler_tell_their_route() -> None:
    """What `site.routes` relies on: the class of a handler's requests, and where Django leaves the match."""
    assert "self.request_class(environ)" in inspect.getsource(WSGIHandler.__call__)
    assert "request.resolver_match = resolver_match" in inspect.getsource(BaseHandler.resolve_request)
    before = WSGIHandler.request_class
    try:
        remember_routes()
        remember_routes()
        request = WSGIHandler.request_class({"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()})
        assert (type(request).__mro__[1], request.resolver_match) == (before, None)
        request.resolver_match = match = ResolverMatch(print, (), {}, route="seats/<int:seat>/")
        assert (request.resolver_match, request.environ[ROUTE]) == (match, "/seats/<int:seat>/")
    finally:
        WSGIHandler.request_class = before
