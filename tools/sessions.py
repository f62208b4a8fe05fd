"""How many sessions a database server has of a site while something asks, and the site's entry of DATABASES for it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pymysql

from comparison import PACKAGES
from private_servers import PrivateServer, mysql_family, postgresql

MAKERS: dict[str, Callable[..., Any]] = {"postgresql": postgresql, "mysql": mysql_family}
# All sessions, and those that are at a statement.
COUNT = {
    "postgresql": "SELECT count(*), count(*) FILTER (WHERE state = 'active') FROM pg_stat_activity WHERE usename = %s",
    "mysql": "SELECT count(*), count(nullif(command, 'Sleep')) FROM information_schema.processlist WHERE user = %s",
}
SAMPLE_EVERY_S = 0.005
STOP_TIMEOUT_S = 20.0


@dataclass
class Sessions:
    """The most at once, and the most of them that were at a statement at once."""

    most: int = 0
    at_work: int = 0


def entry(whose: str, private: PrivateServer) -> dict[str, Any]:
    """The entry of DATABASES: Django's engine (stock), or ours."""
    return {
        "ENGINE": f"{PACKAGES[whose]}.{private.vendor}",
        "NAME": private.database,
        "USER": private.user,
        "PASSWORD": private.password,
        "HOST": private.host,
        "PORT": str(private.port),
    }


@contextlib.contextmanager
def observer_of(private: PrivateServer) -> Iterator[Any]:
    """A connection of the administrator, who gets in where nobody else does."""
    if private.vendor == "mysql":
        connection: Any = pymysql.connect(**private.admin_access, autocommit=True)
    else:
        connection = psycopg.connect(**private.admin_access, dbname=private.database, autocommit=True)
    with contextlib.closing(connection):
        yield connection


@contextlib.contextmanager
def watched(private: PrivateServer, observer: Any) -> Iterator[Sessions]:
    """Look every few milliseconds, until the block ends."""
    seen, done = Sessions(), threading.Event()

    def look() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            sessions, at_work = count(private, observer)
            seen.most, seen.at_work = max(seen.most, sessions), max(seen.at_work, at_work)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join(STOP_TIMEOUT_S)


def count(private: PrivateServer, observer: Any) -> tuple[int, int]:
    """The site's sessions now, and those at a statement."""
    with observer.cursor() as cursor:
        cursor.execute(COUNT[private.vendor], (private.user,))
        sessions, at_work = cursor.fetchone()
    return sessions, at_work
