"""What `fullhouse deploy compose` writes: checked by docker-compose, and run by podman-compose.

There is no registry of images here: one with Debian's PostgreSQL and nginx stands for the official ones, and does what
their documentation says of the variables and the files.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

import containers
import programs
from podman import IMAGE, build
from pods import limit_pods
from private_servers import PrivateServer
from supervised import DEADLINE_S, Load, Site, wait_until
from support import free_port

UP_S = 200
# The variables of the official image of PostgreSQL, and its two ways to a session.
ENTRY = """#!/bin/sh
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH PGDATA=/var/lib/postgresql/data/it
as="setpriv --reuid=postgres --regid=postgres --clear-groups"
[ "$1" = postgres ] || exec "$@"
chown postgres: /var/lib/postgresql/data
if [ ! -s $PGDATA/PG_VERSION ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password && chown postgres /tmp/password
    $as initdb --pgdata=$PGDATA --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 > /tmp/made
    echo "host all all all scram-sha-256" >> $PGDATA/pg_hba.conf
    $as pg_ctl -D $PGDATA -o "-c listen_addresses= -c unix_socket_directories=/tmp" -w start > /tmp/started
    $as createdb --host=/tmp --username="$POSTGRES_USER" "$POSTGRES_DB"
    $as pg_ctl -D $PGDATA -m fast -w stop > /tmp/stopped
fi
exec $as "$@" -D $PGDATA -c listen_addresses=* -c unix_socket_directories=/tmp
"""
# With the runtime that works here. podman 4.3 starts nothing that requires what requires something itself.
PODMAN = """#!/bin/sh
for word; do
    shift
    case "$word" in --requires=*) ;; *) set -- "$@" "$word" ;; esac
done
exec {} "$@"
"""
OFFICIAL = f"""FROM {IMAGE}
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends postgresql nginx-light
COPY --chmod=755 entry /entry
ENTRYPOINT ["/entry"]
CMD ["nginx", "-g", "daemon off;"]
"""


@pytest.fixture
def official(tmp_path: Path, site_image: str) -> Iterator[str]:
    name = f"localhost/fullhouse-test-{uuid.uuid4().hex}"
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "entry").write_text(ENTRY)
    (folder / "Containerfile").write_text(OFFICIAL)
    try:
        build(folder, name)
        yield name
    finally:
        containers._podman(["rmi", "--force", "--ignore", name])


@pytest.fixture
def project(packed_site: Site, postgresql_server: PrivateServer, tmp_path: Path) -> Path:
    """A folder with what `deploy` has written, and the secrets beside it."""
    entry = {"ENGINE": "fullhouse.db.postgresql", "HOST": postgresql_server.host, "PORT": postgresql_server.port}
    entry |= {"NAME": postgresql_server.database, "USER": postgresql_server.user}
    entry |= {"PASSWORD": postgresql_server.password}
    folder = tmp_path / f"fullhouse-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    words = ("--workers=1", "--threads=8", f"--into={folder}")
    variables = {"SITE_KEY": "x", "SITE_DATABASE": json.dumps(entry)}
    answer = packed_site.command("deploy", "compose", packed_site.name, *words, **variables)
    assert answer.returncode == 0, answer.stderr
    there = json.dumps(entry | {"HOST": "database", "PORT": 5432})
    (folder / "mysite.env").write_text(f"SITE_KEY=x\nSITE_DATABASE={there}\n")
    (folder / "database.env").write_text(f"POSTGRES_PASSWORD={postgresql_server.password}\n")
    return folder


def test_docker_compose_takes_it(project: Path) -> None:
    command = [programs.path("docker-compose"), "--file", str(project / "compose.yaml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for service in ("site:", "migrate:", "database:", "nginx:"):
        assert f"  {service}\n" in done.stdout


def compose(folder: Path, *words: str) -> str:
    """podman-compose's own verbs."""
    command = [sys.executable, "-m", "podman_compose", *words]
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=UP_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(port: int, path: str, host: str = "localhost") -> tuple[int, str]:
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as client:
        client.request("GET", path, headers={"Host": host})
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    return 0, ""


@contextmanager
def up(folder: Path) -> Iterator[None]:
    try:
        compose(folder, "up", "--detach")
        yield
    except BaseException:
        print(compose(folder, "ps"), compose(folder, "logs", "--tail=20"))
        raise
    finally:
        compose(folder, "down", "--volumes")


def test_podman_compose_runs_it(
    project: Path, site_image: str, official: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pods(tmp_path, monkeypatch)
    (project / "podman").write_text(PODMAN.format(" ".join(containers._command())))
    (project / "podman").chmod(0o755)
    front, page = free_port(), free_port()
    text = (project / "compose.yaml").read_text()
    for theirs, ours in {
        "    build: {context: ., dockerfile: Containerfile}\n": "",
        "image: mysite": f"image: {site_image}",
        "image: docker.io/library/postgres:15": f"image: {official}",
        "image: docker.io/library/nginx:stable": f"image: {official}",
        '"8080:8080"': f'"{front}:8080"',
        '"127.0.0.1:9464:9464"': f'"127.0.0.1:{page}:9464"',
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    (project / "compose.yaml").write_text(text)
    with up(project):

        def serves() -> bool:
            return ask(front, "/")[0] == 200

        wait_until(serves, "the site answered through nginx")
        wait_until(lambda: ask(page, "/metrics")[0] == 200, "the observer answered")
        assert ask(page, "/")[1].lstrip().startswith("<!doctype html>")
        assert ask(page, "/", host="evil.example")[0] == 403
        assert ask(page, "/state.json", host="evil.example")[0] == 403
        with Load(front, keep_alive=False) as load:
            load.wait_more()
        assert load.failures == []
        site = f"{project.name}_site_1"
        assert "Read-only file system" in containers._output(["exec", site, "sh", "-c", "touch /app/x 2>&1 || true"])
        containers._output(["kill", "--signal=KILL", site])  # its successor has another address
        compose(project, "up", "--detach")
        wait_until(serves, "the new container was found")
