"""Every program that the tests, the demo, the tools and the benchmarks start: where it is, and whose package it is.

    subprocess.run([programs.path("nginx"), "-t"], timeout=60)

The set-up installs from the same table, so a program that is not in it cannot be started. Runs on the plain
`python3` of a fresh machine.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

# Where Debian puts servers. An ordinary user has them on no PATH.
SERVER_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
MYSQLCLIENT = ("test", "demo-mariadb", "demo-mysql")  # has no wheel for Linux and is compiled


@dataclass(frozen=True)
class Program:
    """package: Debian's. needed_for: the uses that install it. folders: searched last; a star is a version."""

    package: str
    needed_for: tuple[str, ...] = ()
    folders: str = ""


class MissingProgram(Exception):  # noqa: N818  it says what is missing, as FileNotFoundError does
    """A program is not installed; the message says which package has it."""


_TEST = ("test",)
_CONTAINERS = ("containers",)
_MARIADB = Program("mariadb-server", ("test", "demo-mariadb"))
_POSTGRESQL = Program("postgresql", ("test", "demo-postgresql"), "/usr/lib/postgresql/*/bin")

PROGRAMS = {
    "apt-config": Program("apt"),
    "apt-get": Program("apt"),
    "catatonit": Program("catatonit", _CONTAINERS),
    "chromedriver": Program("chromium-driver", _TEST),
    "chromium": Program("chromium", _TEST),
    "curl": Program("curl", _TEST),
    "debootstrap": Program("debootstrap", _CONTAINERS),
    "docker-compose": Program("docker-compose", _TEST),
    "env": Program("coreutils"),
    "gcc": Program("gcc", MYSQLCLIENT),
    "git": Program("git", _CONTAINERS),
    "haproxy": Program("haproxy", _CONTAINERS),
    "initdb": _POSTGRESQL,
    "iptables": Program("iptables", _CONTAINERS),
    "kubectl": Program("kubernetes-client", _CONTAINERS),
    "make": Program("make", _TEST),
    "mariadb-admin": _MARIADB,
    "mariadb-install-db": _MARIADB,
    "mariadb_config": Program("libmariadb-dev"),
    "mariadbd": _MARIADB,
    "mysql_config": Program("libmysqlclient-dev"),
    "mysqld": Program("mysql-server", ("demo-mysql",)),
    "netavark": Program("netavark", _CONTAINERS, "/usr/lib/podman"),
    "nginx": Program("nginx", _TEST),
    "openssl": Program("openssl", _TEST),
    "pg_isready": _POSTGRESQL,
    "pgbouncer": Program("pgbouncer", _TEST),
    "pkg-config": Program("pkg-config", MYSQLCLIENT),
    "podman": Program("podman", _CONTAINERS),
    "postgres": _POSTGRESQL,
    "prometheus": Program("prometheus", _TEST),
    "promtool": Program("prometheus", _TEST),
    "ps": Program("procps", _TEST),
    "redis-server": Program("redis-server"),
    "runc": Program("runc", _CONTAINERS),
    "sh": Program("dash", _TEST),
    "sudo": Program("sudo"),
    "supervisorctl": Program("supervisor", _TEST),
    "supervisord": Program("supervisor", _TEST),
    "systemd-analyze": Program("systemd", _TEST),
    "tar": Program("tar", _CONTAINERS),
    "true": Program("coreutils", _TEST),
    "unshare": Program("util-linux", _TEST),
    "wrk": Program("wrk", _TEST),
}


def path(name: str, folder: Path | None = None) -> str:
    """The absolute path of a program; with `folder`, of the one that is there.

    Raises MissingProgram with the package to install, LookupError for a program that is not in the table.
    """
    found = find(name, folder)
    if found is None:
        raise MissingProgram(f"{name} is not installed. On Debian: apt-get install {PROGRAMS[name].package}")
    return found


def find(name: str, folder: Path | None = None) -> str | None:
    """The same, or None where it is not installed."""
    if name not in PROGRAMS:
        raise LookupError(f"{name} is not in the table of {Path(__file__).name}: add it with its Debian package")
    if folder is not None:
        return shutil.which(name, path=str(folder))
    places = [os.environ.get("PATH", os.defpath), *SERVER_FOLDERS, *_newest_first(PROGRAMS[name].folders)]
    found = shutil.which(name, path=os.pathsep.join(places))
    return found and os.path.abspath(found)


def find_mysql() -> str | None:
    """MySQL's own server, or None: Debian's MariaDB goes by the name of mysqld too."""
    found = find("mysqld")
    return None if found is None or os.path.basename(os.path.realpath(found)) == "mariadbd" else found


def missing_packages(use: str) -> set[str]:
    """Debian's packages of the programs that `use` needs and this machine lacks."""
    wanted = {name: program.package for name, program in PROGRAMS.items() if use in program.needed_for}
    missing = {package for name, package in wanted.items() if find(name) is None}
    # MariaDB would replace MySQL, which serves the tests as well.
    return missing - {"mariadb-server"} if use == "test" and find_mysql() else missing


def _newest_first(pattern: str) -> list[str]:
    """The folder that is named, or those of a pattern, by the version number in place of its star."""
    if "*" not in pattern:
        return [pattern] if pattern else []
    found = Path("/").glob(pattern.lstrip("/"))
    return [str(folder) for folder in sorted(found, key=lambda folder: float(folder.parent.name), reverse=True)]
