"""The interpreters, Djangos and databases that every change is tested on: the matrix, one leg a row.

Classifiers, README and CI are checked against this table. Run by itself, it prints what this environment has:

    .venv/3.13/bin/python tools/supported.py
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import programs

VERSION_TIMEOUT_S = 60
SERVERS = (("mariadbd", "MariaDB"), ("postgres", "PostgreSQL"))


@dataclass(frozen=True)
class Leg:
    """One combination. suite: Debian's, None for this machine itself. packages: installed before the first command.

    versions: product and version, as `Python 3.13`; newer patch releases count as the same. tests: pytest's words for
    those that run; all where it is empty.
    """

    name: str
    python: str
    versions: tuple[str, ...]
    suite: str | None = None
    packages: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


_OTHERS = (
    "test_browser",
    "test_compose",
    "test_deploy",
    "test_monitoring",
    "test_observer",
    "test_private_servers",
    "test_tune_site",
)
_MYSQL = ("mysql-server", "libmysqlclient-dev")
LEGS = (
    Leg("own", "python3.11", ("Python 3.11", "Django 5.2", "MariaDB 10.11", "PostgreSQL 15")),
    Leg("trixie", "python3", ("Python 3.13", "Django 6.1", "MariaDB 11.8", "PostgreSQL 17"), "trixie"),
    Leg(
        "sid-3.15",
        "python3.15",
        ("Python 3.15", "Django 6.1", "MySQL 9.7", "PostgreSQL 18"),
        "sid",
        (*_MYSQL, "python3.15"),
        # What asks other programs, and neither the interpreter nor the server, runs in the legs above.
        (
            "tests/unit",
            "tests/worker",
            "tests/integration",
            *(f"--ignore=tests/integration/{name}.py" for name in _OTHERS),
        ),
    ),
    Leg(
        "sid-3.14",
        "python3.14",
        ("Python 3.14", "Django 6.1", "MySQL 9.7", "PostgreSQL 18"),
        "sid",
        (*_MYSQL, "python3.14"),
        # Its servers and its Django are those of the leg above, and its Python is between those of two other legs.
        ("tests/unit", "tests/integration/test_serve.py", "tests/integration/test_round_trips.py"),
    ),
)


def versions(product: str) -> list[str]:
    """The versions of `product` in all legs, oldest first."""
    found = {words[1] for leg in LEGS for words in map(str.split, leg.versions) if words[0] == product}
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def sentence() -> str:
    """The README's."""
    python, django, mariadb, mysql, postgresql = (
        f"{product} {_listed(versions(product))}" for product in ("Python", "Django", "MariaDB", "MySQL", "PostgreSQL")
    )
    return f"Tested on {python} with {django}, and on {mariadb}, {mysql} and {postgresql}."


def found_here(find: Callable[[str], str | None] = programs.find) -> list[str]:
    """What this interpreter runs on: `Python 3.13.5`, `Django 6.1.3`, and the servers that are installed."""
    import django

    found = [f"Python {platform.python_version()}", f"Django {django.__version__}"]
    servers = [(find(program), product) for program, product in SERVERS]
    for path, product in [(programs.find_mysql(), "MySQL"), *servers]:
        if path:
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True
            )
            version = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
            found.append(f"{product} {version[0] if version else 'of an unknown version'}")
    return found


def missing(promised: tuple[str, ...], found: list[str]) -> list[str]:
    """Those of the promised versions that were not found."""
    return [one for one in promised if not any(f"{other}.".startswith(f"{one}.") for other in found)]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


if __name__ == "__main__":
    print(", ".join(found_here()))
