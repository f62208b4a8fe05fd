"""How a suite of tests goes with Django's engine and with ours: the databases for both runs, and the verdict."""

import contextlib
import json
import sqlite3
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from private_servers import mysql_family, postgresql

# Where Django's engines are, and ours: the vendor's name follows.
PACKAGES = {"stock": "django.db.backends", "ours": "fullhouse.db"}
# passed, skipped, failed, or started when the run ended in it; and the reason or traceback. None: not run.
Outcome = tuple[str, str] | None
Outcomes = dict[str, tuple[str, str]]  # by test


@contextlib.contextmanager
def database(kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The entry of DATABASES for a private database, without ENGINE and NAME, and the server's version."""
    if kind == "sqlite3":
        yield {}, f"SQLite {sqlite3.sqlite_version}"
        return
    with mysql_family() if kind == "mysql" else postgresql() as server:
        access = server.admin_access
        if kind == "mysql":
            with pymysql.connect(**access) as connection:
                product = {"mariadb": "MariaDB", "mysql": "MySQL"}[server.engine]
                version = connection.get_server_info().removeprefix("5.5.5-")  # said to old replicas
                running = f"{product} {version}"
        else:
            with psycopg.connect(**access, dbname=server.database) as connection:
                running = f"PostgreSQL {connection.info.parameter_status('server_version')}"
        yield {name.upper(): str(value) for name, value in access.items()}, running


def outcomes(record: Path) -> Outcomes:
    """Each test's worst outcome."""
    found: Outcomes = {}
    for line in record.read_text().splitlines():
        test, outcome, details = json.loads(line)
        if found.get(test, ("", ""))[0] != "failed":
            found[test] = (outcome, details)
    return found


@dataclass(frozen=True)
class Verdict:
    """How many tests passed, were skipped or failed with both engines; those that went worse with ours only, by name;
    exemptions that explain nothing."""

    passed: int
    skipped: int
    failed: int
    explained: list[str]
    unexplained: list[str]
    needless: list[str]

    @property
    def good(self) -> bool:
        return not self.unexplained and not self.needless


def judge(stock: Outcomes, ours: Outcomes, exemptions: Mapping[str, str], sometimes: Collection[str] = ()) -> Verdict:
    """Compare two runs; print what is not as it should be. sometimes: exempt tests that may pass, too."""
    worse = {test for test in stock | ours if _is_worse(stock.get(test), ours.get(test))}
    alike = Counter(outcome for test, (outcome, _) in stock.items() if test not in worse)
    verdict = Verdict(
        passed=alike["passed"],
        skipped=alike["skipped"],
        failed=alike["failed"],
        explained=sorted(worse & set(exemptions)),
        unexplained=sorted(worse - set(exemptions)),
        needless=sorted(test for test in exemptions if test in ours and test not in worse | set(sometimes)),
    )
    for test in verdict.unexplained:
        outcome, details = ours.get(test, ("not run", ""))
        print(f"\n  {outcome} with ours only: {test}\n{textwrap.indent(details, '    ')}")
    for test in verdict.needless:
        print(f"  No longer needs to be exempt: {test}")
    return verdict


def table(verdicts: dict[str, Verdict]) -> str:
    width = max(14, *map(len, verdicts))
    lines = [
        f"{'':{width}}  with both engines           with ours only",
        f"{'':{width}}  passed  skipped   failed    explained  unexplained",
    ]
    for name, verdict in verdicts.items():
        alike = f"{verdict.passed:8}{verdict.skipped:9}{verdict.failed:9}"
        lines.append(f"{name:{width}}{alike}{len(verdict.explained):13}{len(verdict.unexplained):13}")
    return "\n".join(lines)


def _is_worse(stock: Outcome, ours: Outcome) -> bool:
    if ours is not None and ours[0] not in ("passed", "skipped"):
        return stock is None or stock[0] in ("passed", "skipped")
    return stock is not None and stock[0] == "passed" and (ours is None or ours[0] != "passed")
