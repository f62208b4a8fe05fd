"""Run Django's own tests with our database engines and with Django's, and compare test by test.

    python tools/django_suite.py mysql postgresql --modules backends transactions

No test that passes with Django's engine may fail with ours, except those of `django_suite_exemptions.py`, which assert
the very behaviour that we change. The tests come with the source distribution of the installed Django, which pip
fetches. How they go with Django's engine is kept in build/, so that later runs take half the work.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django
import psycopg
import pymysql

from django_suite_exemptions import EXEMPTIONS
from private_servers import mariadb, postgresql

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
    """One way to a database. `backend` ends the names of Django's engine and of ours; `driver` is a distribution."""

    backend: str
    driver: str | None
    modules: list[str]


ENGINES = {
    "mysql": Engine("mysql", "mysqlclient", MODULES),
    "pymysql": Engine("mysql", "PyMySQL", FEW_MODULES),
    "postgresql": Engine("postgresql", "psycopg", MODULES),
    "sqlite3": Engine("sqlite3", None, MODULES),
}
PACKAGES = {"stock": "django.db.backends", "ours": "fullhouse.db"}


class SuiteError(Exception):
    """Django's tests could not be run."""


# Test → its outcome (passed, skipped, failed; started, when the run ended in it) and the reason or traceback.
Outcomes = dict[str, tuple[str, str]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare our engines with Django's by Django's own tests.")
    parser.add_argument("engines", nargs="+", choices=[*ENGINES, "all"], metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument(
        "--modules", nargs="+", metavar="MODULE", help="of Django's tests (default: those about databases)"
    )
    arguments = parser.parse_args()
    names = list(ENGINES) if "all" in arguments.engines else arguments.engines
    tests = _fetch_tests()
    agree = [_compare(name, tests, arguments.modules or ENGINES[name].modules) for name in names]
    return 0 if all(agree) else 1


def _fetch_tests() -> Path:
    """The folder of the installed Django's tests."""
    folder = BUILD / f"django-{django.__version__}"
    if not folder.exists():
        print(f"Fetching the source distribution of Django {django.__version__} ...", flush=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        what = ["--no-deps", "--no-binary", "django", f"django=={django.__version__}"]
        subprocess.run([*pip, "--dest", str(BUILD), *what], check=True)
        with tarfile.open(BUILD / f"{folder.name}.tar.gz") as archive:
            archive.extractall(BUILD, filter="data")
    return folder / "tests"


def _compare(name: str, tests: Path, modules: list[str]) -> bool:
    """Run the modules with both engines, at the same time; print what differs; True: nothing unexplained."""
    engine = ENGINES[name]
    began_at = time.monotonic()
    with _database(engine.backend) as (database, server), ThreadPoolExecutor() as pool:
        driver = f"{engine.driver} {version(engine.driver)}" if engine.driver else "no driver"
        setting = f"Django {django.__version__}, Python {platform.python_version()}, {server}, {driver}"
        print(f"{name}: {setting}\n  {' '.join(modules)}", flush=True)
        key = hashlib.sha256(json.dumps([setting, modules]).encode()).hexdigest()[:12]
        records = {"stock": BUILD / f"{name}-stock-{key}.jsonl", "ours": BUILD / f"{name}-ours.jsonl"}
        records["ours"].unlink(missing_ok=True)
        runs = [
            pool.submit(_run, engine, whose, database, [str(tests / "runtests.py"), *modules], record)
            for whose, record in records.items()
            if not record.exists()
        ]
    for run in runs:
        run.result()
    stock, ours = (_outcomes(record) for record in records.values())
    agree = _report(stock, ours, EXEMPTIONS.get(name, {}))
    print(f"  {time.monotonic() - began_at:.0f} s\n", flush=True)
    return agree


@contextlib.contextmanager
def _database(backend: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The entry of DATABASES for a private database, without ENGINE and NAME, and the server's version."""
    if backend == "sqlite3":
        yield {}, f"SQLite {sqlite3.sqlite_version}"
        return
    with mariadb() if backend == "mysql" else postgresql() as server:
        access = {
            "host": server.host,
            "port": server.port,
            "user": server.admin_user,
            "password": server.admin_password,
        }
        if backend == "mysql":
            with pymysql.connect(**access) as connection:
                running = f"MariaDB {connection.get_server_info()}"
        else:
            with psycopg.connect(**access, dbname=server.database) as connection:
                running = f"PostgreSQL {connection.info.parameter_status('server_version')}"
        yield {name.upper(): str(value) for name, value in access.items()}, running


def _run(engine: Engine, whose: str, database: dict[str, Any], suite: list[str], record: Path) -> None:
    """Run the suite in a process of its own. The record is there only if the run came to its end."""
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


def _databases(engine: Engine, whose: str, database: dict[str, Any]) -> dict[str, Any]:
    """DATABASES, with names under which two runs can share a server; SQLite's are in memory."""
    entry = {**database, "ENGINE": f"{PACKAGES[whose]}.{engine.backend}"}
    return {alias: {**entry, "NAME": f"{whose}_{alias}" if database else ""} for alias in ("default", "other")}


def _outcomes(record: Path) -> Outcomes:
    """Each test's worst outcome."""
    outcomes: Outcomes = {}
    for line in record.read_text().splitlines():
        test, outcome, details = json.loads(line)
        if outcomes.get(test, ("", ""))[0] != "failed":
            outcomes[test] = (outcome, details)
    return outcomes


def _report(stock: Outcomes, ours: Outcomes, exemptions: dict[str, str]) -> bool:
    worse = {test for test in stock | ours if _is_worse(stock.get(test), ours.get(test))}
    unexplained = sorted(worse - set(exemptions))
    for test in unexplained:
        outcome, details = ours.get(test, ("not run", ""))
        print(f"\n  {outcome} with ours only: {test}\n{textwrap.indent(details, '    ')}")
    needless = sorted(test for test in exemptions if test in ours and test not in worse)
    for test in needless:
        print(f"  No longer needed in django_suite_exemptions.py: {test}")
    in_both = [outcome for test, (outcome, _) in stock.items() if test not in worse]
    print(
        f"  {in_both.count('passed')} passed, {in_both.count('skipped')} skipped, {in_both.count('failed')} failed "
        f"with both; with ours only {len(worse) - len(unexplained)} as explained, {len(unexplained)} unexplained"
    )
    return not unexplained and not needless


def _is_worse(stock: tuple[str, str] | None, ours: tuple[str, str] | None) -> bool:
    if ours is not None and ours[0] not in ("passed", "skipped"):
        return stock is None or stock[0] in ("passed", "skipped")
    return stock is not None and stock[0] == "passed" and (ours is None or ours[0] != "passed")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SuiteError as error:
        sys.exit(f"django_suite: {error}")
