"""Cancelling a statement, with a server of the test's own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from fullhouse.db import running


class Server:
    """Takes as long to connect to as the test likes."""

    vendor = "mysql"

    def __init__(self) -> None:
        self.connection = SimpleNamespace(thread_id=lambda: 7)
        self.settings_dict: dict[str, Any] = {"OPTIONS": {}}
        self.cancelled: list[list[int]] = []
        self.connecting, self.connected = threading.Event(), threading.Event()

    def unpooled(self) -> "Server":
        return self

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        self.connecting.set()
        assert self.connected.wait(20)
        yield SimpleNamespace(execute=lambda sql, params: self.cancelled.append(params))

    def close(self) -> None:
        pass


def test_a_statement_is_cancelled_while_it_runs() -> None:
    server = Server()
    server.connected.set()
    running.begins(server, "SELECT 1")
    assert running.cancel(threading.get_ident()) is None
    running.ends()
    assert server.cancelled == [[7]]


def test_a_session_that_its_statement_has_left_is_not_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another request's, when the server is so slow to let the canceller in."""
    monkeypatch.setattr(running, "_PATIENCE_S", 0.0)
    server = Server()
    running.begins(server, "SELECT 1")
    canceller = threading.Thread(target=running.cancel, args=[threading.get_ident()])
    canceller.start()
    assert server.connecting.wait(20)
    running.ends()
    server.connected.set()
    canceller.join(20)
    assert server.cancelled == []


def test_a_cancelled_request_stays_so_until_the_next_begins() -> None:
    thread = threading.get_ident()
    running.request_begins()
    before = time.monotonic()
    assert thread not in running.cancelled
    assert running.cancel(thread, before) is None
    assert thread in running.cancelled
    running.request_begins()
    assert running.cancel(thread, before) is None  # it meant the one before
    assert thread not in running.cancelled


def test_a_thread_does_not_inherit_what_befell_an_ended_one_with_its_identifier() -> None:
    ended: list[int] = []

    def work() -> None:
        running.request_begins()
        ended.append(threading.get_ident())
        assert running.cancel(ended[0]) is None
        assert ended[0] in running.cancelled

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert ended[0] not in running.cancelled
