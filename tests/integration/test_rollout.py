"""A rolling update of pods under load, behind balancers that have never heard of fullhouse: no request fails."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGHUP, SIGUSR2

import pytest

import programs
from fleet import database
from pods import PORT, Manifest, Pod, limit_pods
from supervised import DEADLINE_S, Load, Site, wait_until
from support import free_port, is_open

# What Kubernetes lets pass between a pod's TERM and the news of it at the last balancer, at worst.
NEWS_S = 2
NGINX = """
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    upstream pods {{
        {servers}
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://pods;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 256
    hard-stop-after 30s
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    option httpchk GET /-/ready
    default-server check inter 1s fall 1 rise 1
    {servers}
"""


class Balancer:
    """nginx or haproxy on a port of its own. It is told who serves, as an ingress controller tells it."""

    def __init__(self, name: str, folder: Path, pods: Sequence[Pod]) -> None:
        self.port = free_port()
        self._name, self._folder = name, folder
        self._config, self._reload = folder / "balancer.conf", {"nginx": SIGHUP, "haproxy": SIGUSR2}[name]
        self.tell(pods)
        options = {"nginx": ["-g", "daemon off;", "-c"], "haproxy": ["-W", "-db", "-f"]}[name]
        command = [programs.path(name), *options, str(self._config)]
        with (folder / "balancer.log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def tell(self, pods: Sequence[Pod]) -> None:
        lines = {"nginx": "server {0}:{1};", "haproxy": "server {0} {0}:{1}"}[self._name]
        servers = "\n        ".join(lines.format(pod.address, PORT) for pod in pods)
        template = {"nginx": NGINX, "haproxy": HAPROXY}[self._name]
        self._config.write_text(template.format(folder=self._folder, servers=servers, port=self.port))

    def reload(self, pods: Sequence[Pod]) -> None:
        self.tell(pods)
        self._process.send_signal(self._reload)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)


@contextmanager
def balancer(name: str, folder: Path, pods: Sequence[Pod]) -> Iterator[Balancer]:
    found = Balancer(name, folder, pods)
    try:
        yield found
    finally:
        found.stop()


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_rolling_update_fails_no_request(
    name: str, packed_site: Site, site_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pods(tmp_path, monkeypatch)
    with (
        tempfile.TemporaryDirectory() as place,
        database("postgresql", Path(place)) as server,
        ThreadPoolExecutor() as ends,
        ExitStack() as stack,
    ):
        words = ("--workers=1", "--threads=8", "--budget=20")
        manifest = Manifest(packed_site, site_image, server, tmp_path, *words)
        serving = [stack.enter_context(manifest.pod(pod)) for pod in ("old-1", "old-2")]
        for pod in serving:
            pod.wait_ready()
        front = stack.enter_context(balancer(name, tmp_path, serving))
        # A balancer that reloads closes its clients' idle connections. Those to the pods are kept alive.
        loads = [Load(front.port, clients=3, keep_alive=False, method=method) for method in ("GET", "POST")]
        wait_until(lambda: is_open(front.port), "the balancer answered")
        with loads[0], loads[1]:
            for number in (1, 2):
                for load in loads:
                    load.wait_more()
                serving.append(stack.enter_context(manifest.pod(f"new-{number}")))
                serving[-1].wait_ready()
                front.reload(serving)
                ended = ends.submit(serving.pop(0).stop)
                time.sleep(NEWS_S)
                front.reload(serving)
                assert ended.result(DEADLINE_S) == 0, "it was killed, not drained"
            for load in loads:
                load.wait_more()
        assert [load.failures for load in loads] == [[], []]
