"""Set up what a command of the Makefile needs: system packages, a virtual environment, the locked libraries.

    python3 tools/environment.py .venv/3.11 --for test

Runs on the plain `python3` of a fresh machine. Debian's packages are installed only where something is missing and
this user may (root, or sudo without a password); otherwise it says exactly what to install, and stops.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)
LOCK = Path(__file__).parent.parent / "requirements" / "test.txt"

# Which libraries of the lock file a use needs, beside those that fullhouse itself requires.
LIBRARIES = {
    "demo-sqlite": (),
    "demo-mariadb": ("mysqlclient",),
    "demo-postgresql": ("psycopg", "psycopg-binary", "typing-extensions"),
    "test": None,  # all of them
}
RUNTIME = ("django", "asgiref", "sqlparse", "gunicorn", "httptools", "packaging", "setproctitle", "setuptools")

# Debian's package of each program that the tests start, beside the database servers.
PROGRAMS = {
    "chromium": "chromium",
    "curl": "curl",
    "nginx": "nginx",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "ps": "procps",
    "wrk": "wrk",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up a virtual environment with what a command needs.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("--for", dest="use", choices=LIBRARIES, required=True)
    arguments = parser.parse_args()
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return _stop(f"Python {found} is too old: fullhouse needs 3.11 or newer. Name another with PYTHON=python3.12.")
    missing = sorted(set(missing_packages(arguments.use)))
    if missing and not _install_packages(missing):
        return _stop(f"Missing: {', '.join(missing)}. Install with:\n  sudo apt-get install {' '.join(missing)}")
    _make_environment(arguments.venv, arguments.use)
    return 0


def missing_packages(use: str) -> Iterator[str]:
    """Debian's packages that `use` needs and this machine lacks."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        yield f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if use in ("test", "demo-mariadb"):
        yield from _missing_for_mysqlclient()
        if not _is_installed("mariadbd"):
            yield "mariadb-server"
    if use in ("test", "demo-postgresql") and not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        yield "postgresql"
    if use == "test":
        yield from (package for program, package in PROGRAMS.items() if not _is_installed(program))


def _is_installed(program: str) -> bool:
    """On PATH, or where Debian puts servers, which is not on every user's PATH."""
    return bool(shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])))


def _missing_for_mysqlclient() -> Iterator[str]:
    """mysqlclient has no wheel for Linux: it is compiled against the client library's headers."""
    if not shutil.which("gcc"):
        yield "gcc"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        yield f"python{sys.version_info[0]}.{sys.version_info[1]}-dev"
    if not shutil.which("pkg-config"):
        yield "pkg-config"
    if not (shutil.which("mariadb_config") or shutil.which("mysql_config")):
        yield "libmariadb-dev"


def _install_packages(packages: list[str]) -> bool:
    if not shutil.which("apt-get"):
        return False
    if os.geteuid() == 0:
        sudo = []
    elif (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        sudo = ["sudo", "-n"]
    else:
        return False
    print(f"Installing Debian's {', '.join(packages)} ...", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "check": False}
    install = [
        *sudo,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qq",
        "install",
        "-y",
        "--no-install-recommends",
    ]
    subprocess.run([*sudo, "apt-get", "-qq", "update"], **quiet)
    return subprocess.run([*install, *packages], **quiet).returncode == 0


def _make_environment(venv: Path, use: str) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"Making the virtual environment {venv} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    print("Installing the locked libraries ...", flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = venv / f"{use}.txt"
    wanted.write_text(_locked(LIBRARIES[use]))
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(wanted)], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(LOCK.parent.parent)], check=True)


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
