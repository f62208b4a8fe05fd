"""Clients that others wrote: nginx as a proxy, http.client, urllib, requests, wrk; and a short soak."""

import http.client
import re
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from serving import gunicorn, wait_until

import programs

ROOT = Path(__file__).parent.parent.parent

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;
events {{ worker_connections 200; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 8; }}
  server {{
    listen unix:{folder}/socket;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-Proto https; proxy_set_header Host $http_host;
      proxy_buffering {buffering}; proxy_request_buffering {buffering}; client_max_body_size 20m;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, buffering: str):
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream, buffering=buffering))
    process = subprocess.Popen([programs.path("nginx"), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_until((folder / "socket").exists, "nginx")
        yield folder / "socket"
    finally:
        process.terminate()
        process.wait(20)


def curl(socket: Path, *arguments: str) -> bytes:
    command = [programs.path("curl"), "-sS", "--fail", "--unix-socket", str(socket), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_behind_nginx(tmp_path_factory, buffering):
    folder = tmp_path_factory.mktemp("n")
    with (
        gunicorn(folder / "g", "apps:many", accesslog=str(folder / "access")) as server,
        nginx(folder, server.address[1], buffering) as socket,
    ):
        upload = folder / "upload"
        upload.write_bytes(b"x" * 3_000_000)
        assert b'"wsgi.url_scheme": "https"' in curl(socket, "http://shop.example/a?b=c")
        assert len(curl(socket, "http://a/large")) == 8 << 20
        assert curl(socket, "http://a/generator") == b"one two"
        assert len(curl(socket, "http://a/file")) == 100_000
        assert b"x" * 3_000_000 in curl(socket, "-T", str(upload), "http://a/put")
        assert b"x" * 3_000_000 in curl(socket, "-H", "Transfer-Encoding: chunked", "-T", str(upload), "http://a/put")
        assert curl(socket, "-I", "http://a/length").startswith(b"HTTP/1.1 200")
        many = curl(socket, *(f"http://a/list?{n}" for n in range(50)))
        assert many == b"two pieces" * 50
        assert "502" not in (folder / "access").read_text()
    assert "upstream" not in (folder / "error.log").read_text().replace("buffered to a temporary file", "")


def test_http_client_and_urllib(tmp_path):
    with gunicorn(tmp_path, "apps:many") as server:
        client = http.client.HTTPConnection(*server.address, timeout=20)
        for path, body in (("/generator", b"one two"), ("/list", b"two pieces"), ("/204", b"")):
            client.request("GET", path)
            response = client.getresponse()
            assert response.read() == body
        client.request("POST", "/post", body=iter([b"a", b"b"]), encode_chunked=True)
        assert b'"body": "' in client.getresponse().read()
        client.request("HEAD", "/length")
        assert client.getresponse().headers["Content-Length"] == "2"
        client.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.address[1]}/length", timeout=20) as response:
            assert response.read() == b"ok"


def test_requests(tmp_path):
    """Every kind of transfer in one session, which needs one connection for all of them."""
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 3_000_000)
    with gunicorn(tmp_path / "g", "apps:many") as server, requests.Session() as session, upload.open("rb") as file:
        session.trust_env = False  # a proxy of the machine is not asked
        url = f"http://127.0.0.1:{server.address[1]}"
        first = session.put(f"{url}/put", data=file, timeout=20).json()
        assert first["CONTENT_LENGTH"] == "3000000"
        chunked = session.post(f"{url}/post", data=(b"%d " % n for n in range(1000)), timeout=20).json()
        assert chunked["body"] == "".join(f"{n} " for n in range(1000))
        for path, size in (("/large", 8 << 20), ("/file", 100_000), ("/file-chunked", 1000)):
            with session.get(url + path, stream=True, timeout=20) as response:
                assert sum(map(len, response.iter_content(65536))) == size
        moved = session.get(f"{url}/moved", timeout=20)
        assert ([step.status_code for step in moved.history], moved.text) == ([302], "two pieces")
        file.seek(0)
        moved = session.put(f"{url}/upload-moved", data=file, timeout=20)
        last = moved.json()
        assert ([step.status_code for step in moved.history], len(last["body"])) == ([307], 3_000_000)
        assert first["REMOTE_PORT"] == chunked["REMOTE_PORT"] == last["REMOTE_PORT"]


def test_wrk_gets_an_answer_to_every_request(tmp_path):
    with gunicorn(tmp_path, "apps:many", threads=8) as server:
        server.exchange(b"GET /list HTTP/1.0\r\n\r\n")  # its worker has begun
        url = f"http://127.0.0.1:{server.address[1]}/list"
        command = [programs.path("wrk"), "-t1", "-c50", "-d1", url]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "Socket errors" not in run.stdout
    assert "Non-2xx" not in run.stdout
    assert int(re.search(r"(\d+) requests in", run.stdout)[1]) > 0


def test_a_short_soak_leaks_nothing():
    """Memory has not settled after seconds: only a run of minutes can tell more of it."""
    arguments = ["--minutes", "0.1", "--seed", "1", "--growth", "100"]
    command = [sys.executable, "-m", "benchmarks.soak", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
