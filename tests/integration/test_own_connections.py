"""What Django's own engines open beside our pools: closed with the thread that opened it, and counted in the plan."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from dbsupport import ENGINES, STOCK_ENGINES, Database, wait_until
from fullhouse.errors import ConfigurationError
from fullhouse.settings.table import Settings
from fullhouse.site import databases
from fullhouse.worker import threads as worker_threads
from fullhouse.worker.admission.queue import Admission, AdmissionRules, Waiting
from private_servers import PrivateServer

BURST = 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_thread_that_ends_closes_its_connections(
    engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: PrivateServer = request.getfixturevalue(f"{engine}_server")
    stock = Database(server, "stock", engine=STOCK_ENGINES[engine], CONN_MAX_AGE=None)
    before = set(stock.observer.sessions())
    monkeypatch.setattr(worker_threads, "_LONGEST_SLEEP_S", 0.05)
    all_here = threading.Barrier(BURST)
    kept: list[Any] = []  # as reference cycles do, which keep wrappers of ended threads alive

    def handle(_channel: Any, _request: Any) -> None:
        stock.value("SELECT 1")
        kept.append(connections["stock"])
        all_here.wait(30)

    pool = worker_threads.Threads(
        threads=BURST,
        admission=Admission(AdmissionRules()),
        owner=SimpleNamespace(  # type: ignore[arg-type]
            run_request=handle,
            shed=lambda *_: None,
            send_made=list,
            turn_loop=lambda _: False,
            is_loop_lent=bool,
            is_loop_running=bool,
            is_held_up=bool,
            thread_ends=databases.DatabaseHooks().thread_ends,
        ),
        log=None,
    )
    channel = SimpleNamespace(gone=False)
    pool.put([Waiting((channel, number), time.monotonic()) for number in range(BURST)])  # type: ignore[arg-type]

    def all_ended() -> bool:
        pool.wake_for_waiting()
        return len(kept) == BURST and not pool.states

    wait_until(all_ended)
    wait_until(lambda: set(stock.observer.sessions()) <= before)
    stock.forget()


def test_a_pool_of_django_without_psycopg_pool(postgresql_server: PrivateServer) -> None:
    own = Database(postgresql_server, "own", engine=STOCK_ENGINES["postgresql"], OPTIONS={"pool": {"max_size": 40}})
    try:
        with pytest.raises(ConfigurationError, match=r"psycopg_pool is not installed\.\nRun: pip install 'psycopg"):
            databases.ask_limits(Settings())
    finally:
        del connections[own.alias]
        del connections.settings[own.alias]


@pytest.mark.parametrize(
    ("pool", "size"),
    [(True, 4), ({}, None), ({"min_size": 2}, 2), ({"min_size": 20, "max_size": 40}, 40), ({"max_size": None}, 4)],
)
def test_a_pool_of_django_is_counted(
    postgresql_server: PrivateServer, monkeypatch: pytest.MonkeyPatch, pool: Any, size: int | None
) -> None:
    monkeypatch.setattr(databases, "find_spec", bool)  # as if it were installed; asking the server needs it not
    own = Database(postgresql_server, "own", engine=STOCK_ENGINES["postgresql"], OPTIONS={"pool": pool})
    try:
        found = [limit for limit in databases.ask_limits(Settings()).limits if "own" in limit.aliases]
        assert [limit.pool_sizes for limit in found] == [() if size is None else (size,)]
    finally:
        del connections[own.alias]
        del connections.settings[own.alias]
