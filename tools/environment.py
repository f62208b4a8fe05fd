"""Set up what a command of the Makefile needs: system packages, a virtual environment, the locked libraries.

    python3 tools/environment.py .venv/3.11 --for test

Runs on the plain `python3` of a fresh machine. Debian's packages are installed only where something is missing and
this user may (root, or sudo without a password); otherwise it says exactly what to install, and stops.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import programs

OLDEST = (3, 11)
LOCK = Path(__file__).parent.parent / "requirements" / "test.txt"

# Which libraries of the lock file a use needs, beside those that fullhouse itself requires.
DEMO = ("whitenoise", "prometheus-client", "django-tasks", "django-tasks-db", "django-stubs-ext", "typing-extensions")
LIBRARIES = {
    "demo-sqlite": DEMO,
    "demo-mariadb": (*DEMO, "mysqlclient"),
    "demo-mysql": (*DEMO, "mysqlclient"),
    "demo-postgresql": (*DEMO, "psycopg", "psycopg-binary"),
    "test": None,  # all of them
}
RUNTIME = ("django", "asgiref", "sqlparse", "gunicorn", "httptools", "packaging", "setproctitle", "setuptools")
INSTALL_TIMEOUT_S = 1800


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up a virtual environment with what a command needs.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("--for", dest="use", choices=LIBRARIES, required=True)
    arguments = parser.parse_args()
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return _stop(f"Python {found} is too old: fullhouse needs 3.11 or newer. Name another with PYTHON=python3.12.")
    missing = sorted(missing_packages(arguments.use))
    if missing and (refusal := _install_packages(missing)):
        return _stop(refusal)
    _make_environment(arguments.venv, arguments.use)
    return 0


def missing_packages(use: str) -> set[str]:
    """Debian's packages that `use` needs and this machine lacks."""
    return programs.missing_packages(use) | set(_missing_headers(use))


def _missing_headers(use: str) -> Iterator[str]:
    """Packages of which no program tells whether they are there."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        yield f"{version}-venv"
    if use in programs.MYSQLCLIENT:
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            yield f"{version}-dev"
        if not (programs.find("mariadb_config") or programs.find("mysql_config")):
            yield "libmariadb-dev"


def _install_packages(packages: Sequence[str]) -> str:
    """Install them, and remove nothing for it; why not, where that cannot be."""
    by_hand = f"Missing: {', '.join(packages)}. Install with:\n  sudo apt-get install {' '.join(packages)}"
    apt, sudo = programs.find("apt-get"), _sudo()
    if apt is None or sudo is None:
        return by_hand
    apt = [*sudo, programs.path("env"), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", apt, "-qq"]
    _output([*apt, "update"])
    install = ["install", "-y", "--no-install-recommends", "--no-remove", *packages]
    removed = _would_remove([*apt, "--simulate", "install", "--no-install-recommends", *packages])
    if removed:
        return (
            f"Installing {', '.join(packages)} would remove {', '.join(removed)}; the set-up removes nothing. "
            "Run this in a container, or remove it yourself."
        )
    print(f"Installing Debian's {', '.join(packages)} ...", flush=True)
    failed, output = _output([*apt, *install])
    return f"apt-get failed: {output}\n{by_hand}" if failed else ""


def _sudo() -> list[str] | None:
    """The words that make a command root's, without a password; None where this user may not."""
    if os.geteuid() == 0:
        return []
    sudo = programs.find("sudo")
    if sudo is None or _output([sudo, "-n", programs.path("true")])[0]:
        return None
    return [sudo, "-n"]


def _would_remove(simulation: list[str]) -> list[str]:
    return [line.split()[1] for line in _output(simulation)[1].splitlines() if line.startswith("Remv ")]


def _output(command: list[str]) -> tuple[int, str]:
    """A command's exit code and all that it said."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.strip()


def _make_environment(venv: Path, use: str) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"Making the virtual environment {venv} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=INSTALL_TIMEOUT_S)
    print("Installing the locked libraries ...", flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = venv / f"{use}.txt"
    wanted.write_text(_locked(LIBRARIES[use]))
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(wanted)], check=True, timeout=INSTALL_TIMEOUT_S)
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "-e", str(LOCK.parent.parent)],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )


def _locked(libraries: tuple[str, ...] | None) -> str:
    """The blocks of the lock file for these libraries and fullhouse's own; the whole file for None."""
    if libraries is None:
        return LOCK.read_text()
    names = {*RUNTIME, *libraries}
    kept, keeping = [], False
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            keeping = line.partition("==")[0] in names
        if keeping:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _stop(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
