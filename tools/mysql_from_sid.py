"""MySQL's own server on a machine whose Debian has only MariaDB: Debian unstable's, run by its own loader.

    with mysql_from_sid.on_path():
        private_servers.mysql()

Needs podman and root. The copy goes at the end of the block.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import containers
import programs

# All that the server loads, with no link to what is not there.
TAKE = """
apt-get -qq install -y --no-install-recommends mysql-server > /tmp/said 2>&1 || { cat /tmp/said; exit 1; }
mkdir /mysql /mysql/libraries
cp --dereference /usr/sbin/mysqld /mysql/server
cp --dereference $(ldd /usr/sbin/mysqld | grep -o '/[^ ]*') /mysql/libraries
cp --dereference --recursive /usr/share/mysql /mysql/share
cp --dereference --recursive /usr/lib/mysql/plugin /mysql/plugins
"""
# --no-defaults, if it is there, has to be the first option.
RUN = """#!/bin/sh
exec {0}/libraries/ld-linux-x86-64.so.2 --library-path {0}/libraries {0}/server "$@" \\
    --lc-messages-dir={0}/share --character-sets-dir={0}/share/charsets --plugin-dir={0}/plugins
"""


@contextlib.contextmanager
def on_path() -> Iterator[None]:
    """Have a `mysqld` on PATH, unless MySQL is installed. Raises ContainerError."""
    if programs.find_mysql():
        yield
        return
    print("mysql: Debian unstable's server is fetched, which takes some minutes", flush=True)
    before = os.environ["PATH"]
    with tempfile.TemporaryDirectory(prefix="fullhouse-mysql-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server runs as a user of its own
        with containers.Container("sid", f"fullhouse-mysql-{os.getpid()}") as container:
            container.checked(TAKE)
            containers._output(["cp", f"{container.name}:/mysql", str(folder)])
        starter = folder / "bin" / "mysqld"
        starter.parent.mkdir()
        starter.write_text(RUN.format(folder / "mysql"))
        starter.chmod(0o755)
        os.environ["PATH"] = os.pathsep.join([str(starter.parent), before])
        try:
            yield
        finally:
            os.environ["PATH"] = before
