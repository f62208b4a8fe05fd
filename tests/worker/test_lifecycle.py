"""gunicorn's contract: signals, recycling, reload, hooks and heartbeat, on real processes."""

import os
import signal
import time
from pathlib import Path

import pytest
from serving import gunicorn, read_response, read_to_end, wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_term_finishes_what_runs_and_answers_on_kept_connections(tmp_path):
    with gunicorn(tmp_path, "apps:gated", keepalive=20) as server:
        running, kept, late = server.connect(), server.connect(), server.connect()
        for client in (kept, late):
            client.sendall(GET)
            assert b"Connection: keep-alive" in read_response(client)[0]
        running.sendall(get("/wait"))
        kept.sendall(get("/arrived?1"))
        read_response(kept)
        server.signal(signal.SIGTERM)
        head = b""
        while b"Connection: close" not in head:  # every request is answered, and one of them is the last
            kept.sendall(GET)
            head, _ = read_response(kept)
        assert read_to_end(kept) == b""
        late.sendall(get("/open"))  # on a connection that was promised to be kept
        assert b"Connection: close" in read_response(late)[0]
        head, _ = read_response(running)
        assert b" 200 OK" in head
        assert b"Connection: close" in head
        for client in (running, kept, late):
            client.close()
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_quit_does_not_wait(tmp_path, number):
    hook = "def worker_int(worker): worker.log.info('worker_int called')"
    with gunicorn(tmp_path, "apps:gated", _code=hook) as server, server.connect() as client:
        client.sendall(get("/wait"))
        server.exchange(b"GET /arrived?1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        server.signal(number)
        assert server.process.wait(20) == 0
        assert "worker_int called" in server.logged()


def test_usr1_reopens_the_logs(tmp_path):
    log, moved = tmp_path / "access", tmp_path / "access.1"
    with gunicorn(tmp_path, accesslog=str(log)) as server:
        server.exchange(b"GET /before HTTP/1.0\r\n\r\n")
        wait_until(lambda: "/before" in log.read_text(), "the first line")
        log.rename(moved)
        server.signal(signal.SIGUSR1)
        wait_until(log.exists, "the new log")

        def logged_again() -> bool:
            server.exchange(b"GET /after HTTP/1.0\r\n\r\n")
            return "/after" in log.read_text()

        wait_until(logged_again, "a line in the new log")


def test_max_requests_replaces_the_worker_and_loses_no_request(tmp_path):
    with gunicorn(tmp_path, "apps:gated", max_requests=10, keepalive=20) as server:
        answered, workers = 0, set()
        while answered < 50:
            with server.connect() as client:
                closing = False
                while not closing:
                    client.sendall(GET)
                    head, body = read_response(client)
                    answered += 1
                    workers.add(body.split()[0])
                    closing = b"Connection: close" in head
                assert read_to_end(client) == b""
        assert len(workers) >= 4
        server.wait_logged("Autorestarting worker", 4)


def test_reload_on_a_code_change(tmp_path):
    module = tmp_path / "changing.py"
    module.write_text(program("first"))
    with gunicorn(tmp_path, "changing:app", reload=True, reload_engine="poll") as server:
        assert b"first" in server.exchange(b"GET / HTTP/1.0\r\n\r\n")
        module.write_text(program("second"))

        def has_changed() -> bool:
            os.utime(module, (time.time() + 5, time.time() + 5))  # the first look may have come after the change
            return b"second" in server.exchange(b"GET / HTTP/1.0\r\n\r\n")

        wait_until(has_changed, "the changed application")


def program(word: str) -> str:
    return f"def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{word}']\n"


def test_hup_starts_new_workers(tmp_path):
    with gunicorn(tmp_path) as server:
        server.exchange(b"GET / HTTP/1.0\r\n\r\n")
        (before,) = server.workers()
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.workers() and before not in server.workers(), "another worker")
        assert b"200 OK" in server.exchange(b"GET / HTTP/1.0\r\n\r\n")


HOOKS = """
def post_worker_init(worker): worker.log.info("post_worker_init")
def pre_request(worker, req): worker.log.info("pre_request %s %s %s", req.method, req.path, req.headers)
def post_request(worker, req, environ, resp):
    worker.log.info("post_request %s %s %s", environ["PATH_INFO"], resp.status, resp.sent)
def worker_exit(server, worker): worker.log.info("worker_exit")
"""


def test_hooks(tmp_path):
    with gunicorn(tmp_path, "apps:many", _code=HOOKS) as server:
        server.exchange(b"GET /length HTTP/1.0\r\nX-A: b\r\n\r\n")
        server.exchange(b"GET /raise HTTP/1.0\r\n\r\n")
        server.wait_logged("post_request /raise 500")
        server.signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    log = server.logged()
    assert "post_worker_init" in log
    assert "pre_request GET /length [('X-A', 'b')]" in log
    assert "post_request /length 200 OK 2" in log
    assert "worker_exit" in log


@pytest.mark.parametrize("path", ["/exit", "/cancelled"])
def test_what_the_application_raises_ends_no_thread(tmp_path, path):
    with gunicorn(tmp_path, "apps:many", threads=1) as server:
        assert b" 500 Internal Server Error" in server.exchange(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert b"200 OK" in server.exchange(b"GET /length HTTP/1.0\r\n\r\n")


FAILING_LOGGER = """
from gunicorn.glogging import Logger
class FailingLogger(Logger):
    def access(self, resp, req, environ, request_time):
        raise ValueError("not to be logged")
logger_class = FailingLogger
"""


def test_a_logger_that_fails_ends_no_thread(tmp_path):
    with gunicorn(tmp_path, "apps:many", threads=1, accesslog="-", _code=FAILING_LOGGER) as server:
        for _ in range(2):
            assert b"200 OK" in server.exchange(b"GET /length HTTP/1.0\r\n\r\n")
        server.wait_logged("Cannot write the access log", 2)


@pytest.mark.parametrize(("path", "length"), [("/detach", 200_000), ("/detach", 2_000_000), ("/keep", 10)])
def test_an_input_that_cannot_be_closed_ends_no_thread(tmp_path, path, length):
    """/detach: a body in a buffer, or in a temporary file. /keep: one in a BytesIO."""
    request = f"POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode() + length * b"x"
    with gunicorn(tmp_path, "apps:keeping", threads=1) as server:
        for _ in range(3):
            assert b"200 OK" in server.exchange(request)


def test_requests_longer_than_timeout_are_finished_although_no_thread_is_free(tmp_path):
    with gunicorn(tmp_path, "apps:gated", threads=2, timeout=2) as server:
        long = [server.connect(), server.connect()]
        for client in long:
            client.sendall(get("/sleep?6"))
        for client in long:
            assert b"200 OK" in read_response(client)[0]
            client.close()
        server.wait_logged("all 2 are running requests, others wait.")
        server.wait_logged("The oldest: GET /sleep, running for")
    assert "WORKER TIMEOUT" not in server.logged()
    assert server.logged().count("has been free") == 1


def test_workers_end_with_their_master(tmp_path):
    with gunicorn(tmp_path, workers=2) as server:
        server.exchange(b"GET / HTTP/1.0\r\n\r\n")
        server.wait_logged("Booting worker", 2)
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in workers), "the workers' end")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("casefold_http_method", True), ("strip_header_spaces", True), ("worker_connections", 2)],
)
def test_what_this_worker_does_not_have_is_refused(tmp_path, setting, value):
    with gunicorn(tmp_path, **{setting: value}) as server:
        assert server.process.wait(20) == 1
        assert f"{setting} = {value!r}" in server.logged()
