"""Run Django's own tests with our database engines and with Django's, and compare test by test.

    python tools/django_suite.py mysql postgresql --modules backends transactions

No test that passes with Django's engine may fail with ours, except those of `django_suite_exemptions.py`, which assert
the very behaviour that we change. The tests come with the source distribution of the installed Django, which pip
fetches. How they go with Django's engine is kept in build/, so that later runs take half the work.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django

from comparison import Verdict, database, judge, outcomes, table
from django_suite_exemptions import EXEMPTIONS, SOMETIMES
from overlay import source_archive

TOOLS = Path(__file__).resolve().parent
SOURCE = TOOLS.parent / "src"
BUILD = TOOLS.parent / "build" / "django-suite"
TIMEOUT_S = 1200.0

MODULES = [
    "backends",
    "transactions",
    "transaction_hooks",
    "select_for_update",
    "queries",
    "delete",
    "get_or_create",
    "bulk_create",
    "migrations",
    "introspection",
    "raw_query",
    "test_utils",
]
FEW_MODULES = ["backends", "transactions", "transaction_hooks", "bulk_create"]


@dataclass(frozen=True)
class Engine:
    """One way to a database. `server`: its kind; stock, ours: the ENGINE of either; `driver`: a distribution."""

    server: str
    stock: str
    ours: str
    driver: str | None
    modules: list[str]


def _plain(server: str, driver: str | None, modules: list[str]) -> Engine:
    return Engine(server, f"django.db.backends.{server}", f"fullhouse.db.{server}", driver, modules)


def _gis(server: str, name: str, ours: str, driver: str | None) -> Engine:
    return Engine(server, f"django.contrib.gis.db.backends.{name}", f"fullhouse.db.{ours}", driver, ["gis_tests"])


ENGINES = {
    "mysql": _plain("mysql", "mysqlclient", MODULES),
    "pymysql": _plain("mysql", "PyMySQL", FEW_MODULES),
    "postgresql": _plain("postgresql", "psycopg", MODULES),
    "sqlite3": _plain("sqlite3", None, MODULES),
}
# GeoDjango, which needs GDAL, and what each server needs of its own.
GIS_ENGINES = {
    "postgis": _gis("postgresql", "postgis", "postgis", "psycopg"),
    "mysql_gis": _gis("mysql", "mysql", "mysql_gis", "mysqlclient"),
    "spatialite": _gis("sqlite3", "spatialite", "spatialite", None),
}
ALL = {"all": ENGINES, "gis": GIS_ENGINES}


class SuiteError(Exception):
    """Django's tests could not be run."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare our engines with Django's by Django's own tests.")
    known = {**ENGINES, **GIS_ENGINES}
    parser.add_argument("engines", nargs="+", choices=[*known, *ALL], metavar="ENGINE", help=", ".join([*known, *ALL]))
    parser.add_argument(
        "--modules", nargs="+", metavar="MODULE", help="of Django's tests (default: those about databases)"
    )
    arguments = parser.parse_args()
    names = [name for given in arguments.engines for name in ALL.get(given, [given])]
    tests = _fetch_tests()
    verdicts = {name: _compare(name, known[name], tests, arguments.modules or known[name].modules) for name in names}
    print(table(verdicts))
    return 0 if all(verdict.good for verdict in verdicts.values()) else 1


def _fetch_tests() -> Path:
    """The folder of the installed Django's tests."""
    folder = BUILD / f"django-{django.__version__}"
    if not folder.exists():
        print(f"Fetching the source distribution of Django {django.__version__} ...", flush=True)
        with tarfile.open(source_archive("django", django.__version__)) as archive:
            archive.extractall(BUILD, filter="data")
    return folder / "tests"


def _compare(name: str, engine: Engine, tests: Path, modules: list[str]) -> Verdict:
    """Run the modules with both engines, at the same time."""
    with database(engine.server) as (entry, server), ThreadPoolExecutor() as pool:
        driver = f"{engine.driver} {version(engine.driver)}" if engine.driver else "no driver"
        setting = f"Django {django.__version__}, Python {platform.python_version()}, {server}, {driver}"
        print(f"{name}: {setting}\n  {' '.join(modules)}", flush=True)
        key = hashlib.sha256(json.dumps([setting, modules]).encode()).hexdigest()[:12]
        records = {"stock": BUILD / f"{name}-stock-{key}.jsonl", "ours": BUILD / f"{name}-ours.jsonl"}
        records["ours"].unlink(missing_ok=True)
        runs = [
            pool.submit(_run, engine, whose, entry, [str(tests / "runtests.py"), *modules], record)
            for whose, record in records.items()
            if not record.exists()
        ]
        for run in as_completed(runs):
            print(f"  {run.result()}", flush=True)
    return judge(*map(outcomes, records.values()), EXEMPTIONS[name], SOMETIMES)


def _run(engine: Engine, whose: str, database: dict[str, Any], suite: list[str], record: Path) -> str:
    """Run the suite in a process of its own; say how long it took. The record is there only if it came to its end."""
    began_at = time.monotonic()
    unfinished = record.with_suffix(".unfinished")
    job = {"databases": _databases(engine, whose, database), "driver": engine.driver, "record": str(unfinished)}
    command = [sys.executable, str(TOOLS / "django_suite_start.py"), *suite]
    options = ["--settings=django_suite_settings", "--noinput", "--parallel=1", "--verbosity=0"]
    environment = {
        **os.environ,
        "DJANGO_SUITE_JOB": json.dumps(job),
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TOOLS)]),
    }
    log_path = record.with_suffix(".log")
    with log_path.open("w") as log:
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SuiteError(
                f"The tests did not end within {TIMEOUT_S:.0f} s; see {log_path} and {unfinished}."
            ) from None
    if code not in (0, 1) or not unfinished.exists():
        raise SuiteError(f"The tests could not be run; see {log_path}.")
    unfinished.rename(record)
    return f"{getattr(engine, whose)}: {len(outcomes(record))} tests in {time.monotonic() - began_at:.0f} s"


def _databases(engine: Engine, whose: str, database: dict[str, Any]) -> dict[str, Any]:
    """DATABASES, with names under which two runs can share a server; SQLite's are in memory."""
    entry = {**database, "ENGINE": getattr(engine, whose)}
    return {alias: {**entry, "NAME": f"{whose}_{alias}" if database else ""} for alias in ("default", "other")}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SuiteError as error:
        sys.exit(f"django_suite: {error}")
