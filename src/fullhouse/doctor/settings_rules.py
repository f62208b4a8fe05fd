"""What can be known from Django's settings and the options alone. Pure; nothing is connected to or imported."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fullhouse.doctor.finding import Finding
from fullhouse.settings.table import Settings

# Django's engines of servers with a connection limit, and ours in their place.
STOCK_ENGINES = {
    "django.db.backends.mysql": "fullhouse.db.mysql",
    "django.db.backends.postgresql": "fullhouse.db.postgresql",
    "django.contrib.gis.db.backends.mysql": "fullhouse.db.mysql_gis",
    "django.contrib.gis.db.backends.postgis": "fullhouse.db.postgis",
}
_NOBODY = "by nobody"


def of_all(django: Any, settings: Settings, static: str) -> Iterator[Finding]:
    """All that follow. django: its settings. static: who serves the static files, as the banner tells it."""
    yield from of_production(django.DEBUG, django.ALLOWED_HOSTS)
    yield from of_databases(django.DATABASES)
    yield from of_static_files(static)
    yield from of_timeouts(settings.request_timeout, settings.graceful_timeout)


def of_production(debug: bool, allowed_hosts: Sequence[str]) -> Iterator[Finding]:
    """What is right on a developer's machine only."""
    if debug:
        yield Finding(
            "E101",
            "DEBUG is True: strangers see settings and code with every error, and each thread keeps all its queries.",
            "Set DEBUG = False where people visit the site.",
        )
    if not debug and not allowed_hosts:
        yield Finding(
            "E102",
            "ALLOWED_HOSTS is empty and DEBUG is False: Django answers every request with 400.",
            "Set ALLOWED_HOSTS to the names of the site.",
        )


def of_databases(databases: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """databases: Django's DATABASES."""
    for alias, database in databases.items():
        engine = str(database.get("ENGINE", ""))
        ours = STOCK_ENGINES.get(engine)
        if ours is None:
            continue
        pool = (database.get("OPTIONS") or {}).get("pool")
        if pool:
            yield Finding(
                "W104",
                f"DATABASES[{alias!r}] has a pool of Django's own in every worker: the plan keeps its max_size for "
                "each worker, twice during a reload, whether it is used or not.",
                f"Use ENGINE {ours}, whose pools share one budget.",
            )
            continue
        yield Finding(
            "W103",
            f"DATABASES[{alias!r}] uses {engine}: every thread holds a connection of its own, so the limit bounds the "
            "threads.",
            f"Use ENGINE {ours}: it lends connections for a transaction, and threads may be many more.",
        )
        age = database.get("CONN_MAX_AGE", 0)
        if age == 0:
            yield Finding(
                "W105",
                f"DATABASES[{alias!r}] has CONN_MAX_AGE 0: every request connects anew.",
                f"Use ENGINE {ours}, or set CONN_MAX_AGE to some seconds.",
            )


def of_static_files(said: str) -> Iterator[Finding]:
    """said: who serves them, as the banner tells it."""
    if said.startswith(_NOBODY):
        yield Finding(
            "W106", "Static files are served by nobody, so pages come unstyled.", said.partition(": ")[2] + "."
        )


def of_timeouts(request_timeout: float | None, graceful_timeout: int) -> Iterator[Finding]:
    if request_timeout is not None and request_timeout > graceful_timeout:
        yield Finding(
            "W107",
            f"request_timeout is {request_timeout:g} s and graceful_timeout {graceful_timeout} s: a reload cuts "
            "requests that may still run.",
            "Raise graceful_timeout above request_timeout.",
        )
