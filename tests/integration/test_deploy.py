"""The written files are accepted and obeyed by the real programs."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

import programs
from pgbouncer import pgbouncer_to
from private_servers import PrivateServer
from sessions import observer_of, watched
from supervised import DEADLINE_S, Load, Site, alive, birth, children, runtime_folder, wait_until
from support import free_port, is_open, make_certificate

HOSTS = 3


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "my site, 100% $HOME")
    (tmp_path / "out").mkdir()
    return site


def written(site: Site, kind: str, *options: str) -> Path:
    """The folder with the files of `fullhouse deploy`."""
    folder = site.folder.parent / "out"
    answer = site.command("deploy", kind, site.name, "--into", str(folder), "--workers=1", *options)
    assert answer.returncode == 0, answer.stderr
    return folder


def get(port: int) -> str:
    with suppress(OSError):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        finally:
            connection.close()
    return ""


def test_systemd_has_nothing_against_the_units(site: Site) -> None:
    folder = written(site, "systemd")
    units = sorted(str(path) for path in folder.iterdir())
    assert len(units) == 2
    answer = subprocess.run(
        [programs.path("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@contextmanager
def supervisord(site: Site, folder: Path) -> Iterator[list[str]]:
    """A real one with our section; gives the words of its control program."""
    main = folder / "supervisord.ini"
    main.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\n"
        f"[unix_http_server]\nfile={folder}/supervisor.sock\n[supervisorctl]\nserverurl=unix://{folder}/supervisor.sock\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[include]\nfiles={folder}/{site.name}.conf\n"
    )
    with subprocess.Popen(
        [programs.path("supervisord"), "-c", main],
        env=site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield [programs.path("supervisorctl"), "-c", str(main)]
        finally:
            process.terminate()
            process.wait(60)


def test_supervisord_starts_restarts_and_stops_the_site(site: Site) -> None:
    port = free_port()
    log = f"--log-file={site.folder.parent / 'own.log'}"
    folder = written(site, "supervisord", f"--bind=127.0.0.1:{port}", log, "--access-log-format=%(h)s")
    with supervisord(site, folder) as control:
        wait_until(lambda: get(port) == "version 1", "the site answered")
        pid = int(subprocess.run([*control, "pid", site.name], capture_output=True, text=True, check=True).stdout)
        tree = {one: birth(one) for one in (pid, *children(pid), *(w for m in children(pid) for w in children(m)))}
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(tree), "the killed server was gone as a whole")
        wait_until(lambda: get(port) == "version 1", "supervisord had started it again")
        subprocess.run([*control, "restart", site.name], check=True, capture_output=True)
        wait_until(lambda: get(port) == "version 1", "the site answered after a restart")
        subprocess.run([*control, "stop", site.name], check=True, capture_output=True)
        assert get(port) == ""


def test_nginx_proxies_the_site_over_tls_and_through_a_reload(site: Site) -> None:
    port, front = free_port(), free_port()
    folder = written(site, "nginx", f"--bind=127.0.0.1:{port}")
    key, certificate = folder / "site.key", folder / "site.pem"
    make_certificate(certificate, key)
    text = (folder / f"{site.name}.conf").read_text()
    text = text.replace("listen 443", f"listen 127.0.0.1:{front}")
    text = text.replace(f"/etc/ssl/certs/{site.name}.pem", str(certificate))
    text = text.replace(f"/etc/ssl/private/{site.name}.key", str(key))
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; "
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{text}\n}}\n"
    )
    nginx = [programs.path("nginx"), "-c", main]
    subprocess.run([*nginx, "-t"], check=True, capture_output=True, timeout=DEADLINE_S)
    with (
        site.served(f"--bind=127.0.0.1:{port}", workers=1) as running,
        subprocess.Popen(nginx) as proxy,
    ):
        try:
            context = ssl.create_default_context(cafile=str(certificate))
            context.check_hostname = False
            answers = set()
            wait_until(lambda: is_open(front), "nginx listened")
            running.signal(signal.SIGHUP)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                connection = HTTPSConnection("127.0.0.1", front, context=context, timeout=60)
                connection.request("GET", "/")
                answers.add(connection.getresponse().status)
                connection.close()
            assert answers == {200}
        finally:
            proxy.terminate()


@contextmanager
def activated(site: Site, listener: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """The server as systemd starts it: descriptor 3, LISTEN_FDS, and LISTEN_PID of the process itself."""
    starter = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-m', 'fullhouse', 'serve', 'mysite', '--workers=1'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(listener.fileno())],
        cwd=site.folder,
        env=site.environment,
        pass_fds=[listener.fileno()],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_with_an_activated_socket_a_restart_of_the_server_itself_drops_nothing(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        with activated(site, listener):
            assert get(port) == "version 1"  # the kernel's queue waits until it serves
            load = Load(port, keep_alive=False)
            load.__enter__()
            load.wait_more()
        site.deploy(2)
        with activated(site, listener):
            wait_until(lambda: "version 2" in load.answers[-1:], "the new server answered")
            load.wait_more()
            load.__exit__(None, None, None)
    assert load.failures == []


def test_pgbouncer_lets_more_hosts_serve_than_there_are_sessions(
    tmp_path: Path, postgresql_server: PrivateServer
) -> None:
    """Each with a worker more than its part of the sessions would be."""
    site = Site(tmp_path / "site")
    site.make_pages_ask_the_database()
    site.use_database(postgresql_server)
    answer = site.command("deploy", "pgbouncer", site.name, f"--budget={HOSTS}", "--workers=2", "--threads=4")
    assert answer.returncode == 0, answer.stderr
    assert f"host={postgresql_server.host} " in answer.stdout
    asked = re.search(r"^; +(SELECT .+;)$", answer.stdout, re.MULTILINE)
    assert asked, answer.stdout
    with observer_of(postgresql_server) as observer, ExitStack() as stack:
        users = "\n".join(row[0] for row in observer.execute(asked[1]).fetchall())
        assert "SCRAM-SHA-256$" in users
        port = stack.enter_context(pgbouncer_to(postgresql_server, answer.stdout, users))
        told = re.search(r"^; +FULLHOUSE = (\{.+\})$", answer.stdout, re.MULTILINE)
        assert told, answer.stdout
        place = f"DATABASES['default'].update(PORT={port}, DISABLE_SERVER_SIDE_CURSORS=True)"
        site.append("settings", f"{place}\nFULLHOUSE = {told[1]}\n")
        seen = stack.enter_context(watched(postgresql_server, observer))
        served = []
        for _ in range(HOSTS):
            variables = {"FULLHOUSE_RUNTIME_FOLDER": str(stack.enter_context(runtime_folder()))}
            served.append(stack.enter_context(site.served("--workers=2", "--threads=4", **variables)))
        loads = [stack.enter_context(Load(running.port, clients=8, keep_alive=True)) for running in served]
        for load in loads:
            load.wait_more(100)
        assert [load.failures for load in loads] == [[]] * HOSTS
        assert 1 <= seen.most <= HOSTS
