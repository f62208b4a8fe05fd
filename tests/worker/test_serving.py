"""A real worker and real sockets: order, patience, limits, and what slow clients cost."""

import json
import re
import signal
import socket
import ssl
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from serving import gunicorn, read_response, read_to_end, wait_until

import programs

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_pipelined_requests_are_answered_in_order(tmp_path):
    with gunicorn(tmp_path, "apps:many") as server, server.connect() as client:
        client.sendall(b"".join(get(f"/{number}?q") for number in range(20)) + CLOSE)
        received = read_to_end(client)
    bodies = [part.split(b"\r\n\r\n")[1] for part in received.split(b"HTTP/1.1 200 OK")[1:]]
    assert [json.loads(body)["PATH_INFO"] for body in bodies] == [*(f"/{n}" for n in range(20)), "/"]


def test_an_expected_body_is_asked_for(tmp_path):
    with gunicorn(tmp_path) as server, server.connect() as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert json.loads(read_response(client)[1])["body"] == "ab"


def test_a_request_in_single_bytes(tmp_path):
    with gunicorn(tmp_path) as server, server.connect() as client:
        for byte in b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc":
            client.sendall(bytes([byte]))
        assert json.loads(read_response(client)[1])["body"] == "abc"


@pytest.mark.parametrize(
    "begin",
    [b"GET / HTTP/1.1\r\nHo", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"],
    ids=["headers", "body"],
)
def test_a_request_that_does_not_arrive_in_time_is_answered_408(tmp_path, begin):
    with gunicorn(tmp_path, worker_class="apps.Impatient") as server:
        assert server.exchange(begin).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_connection_without_a_request_is_closed_without_a_word(tmp_path):
    with gunicorn(tmp_path, worker_class="apps.Impatient", keepalive=1) as server:
        assert server.exchange() == b""
        with server.connect() as client:
            client.sendall(GET)
            read_response(client)
            assert read_to_end(client) == b""


def test_slow_clients_use_no_more_memory_than_there_is_for_them(tmp_path):
    """They send 180 MB, of which the worker may keep 8 MiB in memory beside its 8 MiB of buffers, and get answers."""
    with gunicorn(tmp_path, "apps:many", worker_class="apps.Tight") as server, ExitStack() as opened:
        server.exchange(CLOSE)
        (worker,) = server.workers()
        before = peak_bytes(worker)
        clients = [opened.enter_context(server.connect()) for _ in range(200)]
        for client in clients:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 900_000)
        wait_until(lambda: unread_bytes(server.address[1]) == 0, "the worker to read all")
        grown = peak_bytes(worker) - before
        assert grown < 60 << 20  # with what Python allocates besides
        for client in clients:
            client.sendall(b"x" * 100_000)
        for client in clients:
            assert b" 200 OK" in read_response(client)[0]


def peak_bytes(pid: int) -> int:
    """The most physical memory that the process has used."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def unread_bytes(port: int) -> int:
    """What is in the kernel's queues of connections to this port, on either end."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [fields[4].split(":") for fields in lines if f":{port:04X}" in fields[1] + fields[2]]
    return sum(int(sent, 16) + int(received, 16) for sent, received in queues)


def test_slow_clients_hold_no_thread(tmp_path):
    """One thread, and it is free although many send slowly and many read slowly."""
    with gunicorn(tmp_path, "apps:many", threads=1, worker_class="apps.Spooling") as server:
        slow = []
        for begin in (
            b"GET / HT",
            b"PUT / HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"x" * 300,
            get("/large"),
        ):
            for _ in range(20):
                slow.append(server.connect())
                slow[-1].sendall(begin)
        with server.connect() as client:
            client.sendall(GET)
            assert b" 200 OK" in read_response(client)[0]
        assert read_response(slow[-1])[1] == b"x" * (8 << 20)
        for client in slow:
            client.close()


def test_a_client_that_does_not_read_a_stream_is_cut_and_the_stream_closed(tmp_path):
    with (
        gunicorn(tmp_path, "apps:endless", threads=1, worker_class="apps.Impatient") as server,
        server.connect() as client,
        server.connect() as other,
    ):
        client.sendall(GET)
        client.recv(1)
        other.sendall(get("/closed"))
        assert read_response(other)[1] == b"1"


def test_a_client_that_does_not_read_a_response_is_cut(tmp_path):
    with (
        gunicorn(tmp_path, "apps:many", worker_class="apps.Impatient", loglevel="debug") as server,
        server.connect() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # else the kernel takes it all
        client.sendall(get("/large"))
        server.wait_logged("reads too slowly")


def test_bodies_and_responses_through_files(tmp_path):
    body = bytes(range(256)) * 4000
    with gunicorn(tmp_path, worker_class="apps.Spooling") as server, server.connect() as client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert json.loads(read_response(client)[1])["body"].encode("latin-1") == body


def test_no_more_connections_than_there_is_room_for(tmp_path):
    with gunicorn(tmp_path, threads=1, worker_connections=2, keepalive=20) as server:
        first, second, third = (server.connect() for _ in range(3))
        third.sendall(CLOSE)
        first.sendall(GET)
        assert b"Connection: close" in read_response(first)[0]  # it is full: nobody is kept
        assert read_to_end(third).startswith(b"HTTP/1.1 200 OK")
        for client in (first, second, third):
            client.close()


@pytest.mark.parametrize("header", [b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", b"PROXY UNKNOWN\r\n"])
def test_a_proxy_that_speaks_for_itself_is_the_client(tmp_path, header):
    """As in its health checks."""
    with gunicorn(tmp_path, proxy_protocol="auto") as server:
        answer = server.exchange(header + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["REMOTE_ADDR"] == "127.0.0.1"


def test_proxy_protocol_and_forwarded_scheme(tmp_path):
    with gunicorn(tmp_path, proxy_protocol="auto", forwarded_allow_ips="127.0.0.1") as server:
        response = server.exchange(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n"
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
        )
    environ = json.loads(response.partition(b"\r\n\r\n")[2])
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.1", "1111")
    assert (environ["PROXY_ADDR"], environ["wsgi.url_scheme"]) == ("192.0.2.2", "https")


def test_unix_socket(tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # a path that is short enough for a socket
        path = f"{folder}/s"
        with gunicorn(tmp_path, "apps:echo", bind=[f"unix:{path}"]) as server:
            server.wait_logged("Booting worker")
    assert "Error" not in server.logged()


FORMAT = (
    '%(h)s %(l)s %(u)s "%(r)s" %(s)s %(m)s %(U)s %(q)s %(H)s %(b)s %(B)s "%(f)s" "%(a)s" %% '
    "%({host}i)s %({X-Q}i)s %({content-type}o)s %({none}o)s %({request_method}e)s %(unknown)s"
)
TIMES = "%(t)s %(T)s %(D)s %(M)s %(L)s %(p)s"
LOGGED = (
    b'GET /length?a=b"c HTTP/1.1\r\nHost: a\r\nUser-Agent: x"y\r\nReferer: r\r\nX-Q: "\r\n'
    b"Authorization: Basic dXNlcjpzZWNyZXQ=\r\nConnection: close\r\n\r\n",
    b"HEAD /204 HTTP/1.0\r\n\r\n",
    b"GET /raise HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)


def test_the_access_log_is_gunicorns(tmp_path):
    lines = []
    for worker_class in ("fullhouse.worker.Worker", "gthread"):
        folder = tmp_path / worker_class
        log = folder / "access"
        with gunicorn(folder, "apps:many", worker_class, accesslog=str(log), access_log_format=FORMAT) as server:
            for request in LOGGED:
                server.exchange(request)
        lines.append(log.read_text().splitlines())
    ours, gthread = lines
    assert ours[:2] == gthread[:2]
    assert ours[2].split()[:8] == gthread[2].split()[:8]  # up to the status of the failed request
    assert len(ours) == 3


def test_the_times_in_the_access_log(tmp_path):
    log = tmp_path / "access"
    with gunicorn(tmp_path, "apps:gated", accesslog=str(log), access_log_format=TIMES) as server:
        server.exchange(b"GET /sleep?0.2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        worker = server.workers()[0]
        wait_until(log.read_text, "a line in the access log")
    seconds, micro, milli, exact, pid = log.read_text().rsplit(" ", 5)[1:]
    assert int(seconds) == 0
    assert int(micro) >= 200_000
    assert int(milli) == int(micro) // 1000
    assert float(exact) == pytest.approx(int(micro) / 1e6)
    assert pid == f"<{worker}>\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(programs.path("openssl"), "req", "-x509", "-nodes"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"),
            *("-keyout", str(folder / "key"), "-out", str(folder / "cert")),
        ],
        check=True,
        capture_output=True,
    )
    return {"keyfile": str(folder / "key"), "certfile": str(folder / "cert")}


def tls_client(server, certificate, *, show: bool = False) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=certificate["certfile"])
    if show:
        context.load_cert_chain(certificate["certfile"], certificate["keyfile"])
    return context.wrap_socket(server.connect(), server_hostname="localhost")


def test_tls(tmp_path, certificate):
    """Requests, large ones both ways, and handshakes that are never finished in one thread."""
    with gunicorn(tmp_path, "apps:many", threads=1, **certificate) as server:
        stalled = [server.connect() for _ in range(5)]
        stalled[0].sendall(b"\x16\x03\x01")
        with tls_client(server, certificate) as client:
            client.sendall(get("/large"))
            assert read_response(client)[1] == b"x" * (8 << 20)
            body = b"y" * 3_000_000
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert json.loads(read_response(client)[1])["wsgi.url_scheme"] == "https"
            client.sendall(get("/file"))
            assert len(read_response(client)[1]) == 100_000
            client.sendall(CLOSE)
            assert read_to_end(client).startswith(b"HTTP/1.1 200 OK")  # ended by TLS, not cut off
        for client in stalled:
            client.close()


def test_a_request_in_the_tls_record_that_ends_a_body(tmp_path, certificate):
    with (
        gunicorn(tmp_path, "apps:many", keepalive=60, **certificate) as server,
        tls_client(server, certificate) as client,
    ):
        client.sendall(b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n")
        client.sendall(b"x" * 35_000)
        client.sendall(b"x" * 5000 + CLOSE)
        assert read_to_end(client).count(b"HTTP/1.1 200 OK") == 2


def test_plain_http_to_a_tls_port_does_no_harm(tmp_path, certificate):
    with gunicorn(tmp_path, **certificate) as server:
        with suppress(ConnectionResetError):
            assert b"200" not in server.exchange(GET)
        with tls_client(server, certificate) as client:
            client.sendall(GET)
            assert b"200 OK" in read_response(client)[0]


def test_client_certificates(tmp_path, certificate):
    required = {"cert_reqs": int(ssl.CERT_REQUIRED), "ca_certs": certificate["certfile"]}
    with gunicorn(tmp_path, **certificate, **required) as server:
        with tls_client(server, certificate, show=True) as client:
            client.sendall(GET)
            assert b"200 OK" in read_response(client)[0]
        with tls_client(server, certificate) as client, pytest.raises((ssl.SSLError, ConnectionError)):
            client.recv(1)


def test_a_client_that_has_gone_is_no_error(tmp_path):
    with gunicorn(tmp_path, "apps:gated", threads=2) as server:
        client = server.connect()
        client.sendall(get("/wait"))
        server.exchange(b"GET /arrived?1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.exchange(b"GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        server.signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert "Error" not in server.logged()


def test_as_many_requests_at_once_as_threads(tmp_path):
    """All threads are put to work although the loop wakes no more than it must."""
    with gunicorn(tmp_path, "apps:gated", threads=6) as server:
        waiting = [server.connect() for _ in range(5)]
        for client in waiting:
            client.sendall(get("/wait"))
        with server.connect() as client:
            client.sendall(get("/arrived?5") + get("/open"))
            read_response(client)
            for other in waiting:
                assert b"200 OK" in read_response(other)[0]
                other.close()


def test_curl(tmp_path):
    with gunicorn(tmp_path, "apps:many") as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        upload = tmp_path / "upload"
        upload.write_bytes(b"x" * 2_000_000)
        run = subprocess.run(
            [
                *(programs.path("curl"), "-sS", "--fail"),
                *("-H", "Expect: 100-continue", "-T", str(upload), f"{url}/put"),
                *("--next", "-sS", "--fail", "-H", "Transfer-Encoding: chunked"),
                *("-d", f"@{upload}", f"{url}/post"),
                *("--next", "-sS", "-I", f"{url}/file"),
                *("--next", "-sS", "--http1.0", f"{url}/generator"),
            ],
            check=True,
            capture_output=True,
            timeout=30,
        )
    assert run.stdout.count(b"x" * 2_000_000) == 2
    assert run.stdout.endswith(b"one two")


def test_probes_are_answered_while_every_thread_is_busy(tmp_path):
    with gunicorn(tmp_path, "apps:gated", threads=1, keepalive=20) as server:
        running, probe = server.connect(), server.connect()
        running.sendall(get("/wait"))
        for path in ("/-/live", "/-/ready?from=a-load-balancer"):
            probe.sendall(get(path))
            head, body = read_response(probe)
            assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
            assert b"\r\nConnection: keep-alive\r\n" in head
            assert body == b"OK\n"
        probe.sendall(get("/-/ready") * 2000 + b"HEAD /-/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = read_to_end(probe)
        assert received.count(b"HTTP/1.1 200 OK") == 2001
        assert received.endswith(
            b"Connection: close\r\nCache-Control: no-store\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n"
        )
        server.signal(signal.SIGQUIT)
        for client in (running, probe):
            client.close()


def test_a_head_of_an_endless_stream_ends(tmp_path):
    with gunicorn(tmp_path, "apps:endless", threads=1) as server:
        for _ in range(2):
            response = server.exchange(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.endswith(b"\r\n\r\n")
        assert server.exchange(b"GET /closed HTTP/1.0\r\n\r\n").endswith(b"2")


@pytest.mark.parametrize("kind", ["gzip", "bz2", "lzma", "decoding"])
def test_a_file_that_decodes_is_sent_decoded(tmp_path, kind):
    """Its descriptor leads to other bytes than it reads."""
    with gunicorn(tmp_path, "apps:decoded") as server:
        assert server.exchange(f"GET /{kind} HTTP/1.0\r\n\r\n".encode()).endswith(b"\r\n\r\n" + b"decoded " * 1000)


@pytest.mark.parametrize("kind", ["wrapped", "temporary"])
def test_a_file_behind_a_wrapper_is_sent_as_a_file(tmp_path, kind):
    with gunicorn(tmp_path, "apps:decoded") as server:
        response = server.exchange(f"GET /{kind} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert b"Content-Length: 8000" in response  # which only a real file tells
        assert response.endswith(b"\r\n\r\n" + b"decoded " * 1000)


def test_a_wrapped_body_of_a_known_length_holds_no_thread(tmp_path):
    """As error trackers wrap it: only `__iter__` and `close`."""
    with gunicorn(tmp_path, "apps:wrapped", threads=1) as server:
        slow = server.connect()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(get("/large"))
        assert b"small" in server.exchange(b"GET / HTTP/1.0\r\n\r\n")  # the only thread is free
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        assert len(read_response(slow)[1]) == 1_000_000
        slow.close()


@pytest.mark.parametrize("lengths", ["-5", "2,3"])
def test_a_content_length_that_is_none_is_an_error_of_the_application(tmp_path, lengths):
    with gunicorn(tmp_path, "apps:lengths") as server:
        assert b" 500 " in server.exchange(f"GET /?{lengths} HTTP/1.0\r\n\r\n".encode())
        assert b" 200 " in server.exchange(b"GET /?2,2 HTTP/1.0\r\n\r\n")
        head = server.exchange(b"HEAD /?-5 HTTP/1.0\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(tmp_path):
    with gunicorn(tmp_path, "apps:echo", "apps.Strict") as server:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        assert server.exchange(head + b"Content-Length: 1001\r\n\r\n").startswith(b"HTTP/1.1 413 ")
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        assert b"HTTP/1.1 413 " in server.exchange(chunked + b"3e9\r\n")
        assert b"HTTP/1.1 413 " in server.exchange(chunked + b"1f4\r\n" + 500 * b"x" + b"\r\n1f5\r\n")
        close = b"Connection: close\r\nContent-Length: 1000\r\n\r\n"
        assert b" 200 OK" in server.exchange(head + close + 1000 * b"x")
