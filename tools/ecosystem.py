"""Run the tests of other packages with our engines and with Django's, and compare test by test.

    python tools/ecosystem.py                             # every suite of ecosystem_suites.py
    python tools/ecosystem.py --short                     # the short selection
    python tools/ecosystem.py django-silk --server mysql

No test that passes with Django's engine may fail with ours, except those that `ecosystem_suites.py` names with a
reason. Each suite has an environment of its own in build/ecosystem, above this one: it uses the Django and the drivers
that are installed here. How a suite goes with Django's engine is kept, so that later runs take half the work.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import django

from comparison import PACKAGES, Outcomes, Verdict, database, judge, outcomes, table
from ecosystem_suites import EXEMPTIONS, SUITES, Suite
from overlay import BUILD, overlay, source_archive

TOOLS = Path(__file__).resolve().parent
SOURCE = TOOLS.parent / "src"
DRIVERS = {"mysql": "mysqlclient", "postgresql": "psycopg"}
TIMEOUT_S = 1800.0
KILL_TIMEOUT_S = 20.0


class SuiteError(Exception):
    """A suite could not be run."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare our engines with Django's by the tests of other packages.")
    names = [suite.name for suite in SUITES]
    parser.add_argument("suites", nargs="*", choices=[[], *names], metavar="SUITE", help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="the short selection")
    parser.add_argument("--server", choices=DRIVERS, help="those that run on this one only")
    arguments = parser.parse_args()
    wanted = [
        suite
        for suite in SUITES
        if (suite.name in arguments.suites or not arguments.suites) and (suite.is_short or not arguments.short)
    ]
    verdicts: dict[str, Verdict] = {}
    for server in [arguments.server] if arguments.server else DRIVERS:
        if suites := [suite for suite in wanted if server in suite.servers]:
            verdicts.update(_compare_all(server, suites))
    print(table(dict(sorted(verdicts.items()))))
    return 0 if all(verdict.good for verdict in verdicts.values()) else 1


def _compare_all(server: str, suites: list[Suite]) -> Iterator[tuple[str, Verdict]]:
    with database(server) as (entry, running):
        driver = f"{DRIVERS[server]} {version(DRIVERS[server])}"
        setting = f"Django {django.__version__}, Python {platform.python_version()}, {running}, {driver}"
        print(setting, flush=True)
        for suite in suites:
            yield f"{suite} {server}", _compare(suite, server, entry, setting)


def _compare(suite: Suite, server: str, entry: dict[str, Any], setting: str) -> Verdict:
    python = overlay(suite.name, [f"{suite.name}=={suite.version}", *suite.needs])
    archive = source_archive(suite.name, suite.version)
    key = hashlib.sha256(repr((setting, suite)).encode()).hexdigest()[:12]
    stem = "-".join(filter(None, (suite.name, suite.variant, server)))
    records = {"stock": BUILD / f"{stem}-stock-{key}.jsonl", "ours": BUILD / f"{stem}-ours.jsonl"}
    records["ours"].unlink(missing_ok=True)
    for whose, record in records.items():
        if not record.exists():
            with _extracted(archive) as source:
                print(f"  {suite}: {_run(suite, whose, server, entry, python, source, record)}", flush=True)
    stock, ours = (_some_passed(outcomes(record)) for record in records.values())
    return judge(stock, ours, EXEMPTIONS.get(suite.name, {}))


def _some_passed(found: Outcomes) -> Outcomes:
    if not any(outcome == "passed" for outcome, _ in found.values()):
        raise SuiteError("No test has passed with one of both engines: see the logs in build/ecosystem.")
    return found


@contextlib.contextmanager
def _extracted(archive: Path) -> Iterator[Path]:
    """The folder of a source, as it came: what one run leaves in it would change the next."""
    with TemporaryDirectory(dir=BUILD) as place:
        (Path(place) / "pytest.ini").touch()  # else pytest would find ours above
        with tarfile.open(archive) as source:
            source.extractall(place, filter="data")
        (folder,) = (entry for entry in Path(place).iterdir() if entry.is_dir())
        yield folder


def _run(suite: Suite, whose: str, server: str, entry: dict[str, Any], python: Path, source: Path, record: Path) -> str:
    """Run the suite in a process of its own; say how long it took. The record is there only if it came to its end."""
    began_at = time.monotonic()
    unfinished = record.with_suffix(".unfinished")
    base = f"{PACKAGES[whose]}.{server}"
    job = {
        "name": f"{whose}_{suite.name}",
        "database": {**entry, "ENGINE": suite.engine or base},
        "settings": suite.settings | ({suite.base_setting: base} if suite.base_setting else {}),
        "record": str(unfinished),
    }
    environment = {
        **os.environ,
        **{name: value.format(**entry) for name, value in suite.environment.items()},
        "ECOSYSTEM_JOB": json.dumps(job),
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TOOLS)]),
    }
    command = [str(python), str(TOOLS / "ecosystem_start.py"), *suite.command]
    log_path = record.with_suffix(".log")
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, cwd=source / suite.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise SuiteError(f"{suite.name} did not end within {TIMEOUT_S:.0f} s; see {log_path}.") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(KILL_TIMEOUT_S)
    if not unfinished.exists() or not outcomes(unfinished):
        raise SuiteError(f"{suite.name} could not be run; see {log_path}.")
    unfinished.rename(record)
    return f"{base}: {len(outcomes(record))} tests in {time.monotonic() - began_at:.0f} s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SuiteError as error:
        sys.exit(f"ecosystem: {error}")
