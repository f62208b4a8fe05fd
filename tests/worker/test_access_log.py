"""The access log has one line for each answer, with the status that was sent, whoever has made it."""

import json
import socket

import pytest
from serving import gunicorn, read_response, wait_until

FORMAT = "%(m)s %(U)s %(s)s %(b)s"
GET = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def logged(tmp_path):
    """A server with tight bounds, and its access log."""
    log = tmp_path / "access"
    with gunicorn(tmp_path, "apps:gated", "apps.Bounded", threads=1, accesslog=str(log), access_log_format=FORMAT) as s:
        yield s, log


def lines(log, count: int) -> list[str]:
    wait_until(lambda: len(log.read_text().splitlines()) >= count, f"{count} lines in {log.read_text()!r}")
    return log.read_text().splitlines()


@pytest.mark.parametrize(
    ("sends", "line"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Field: x\r\n\r\n", "- - 400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + 9000 * b"x" + b"\r\n\r\n", "- - 431"),
        (b"GET / HTTP/1.1\r\nHost", "- - 408"),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "- - 413"),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "POST /p 400"),
        (GET % b"/sleep?3", "GET /sleep 503"),
    ],
)
def test_an_answer_of_the_server_itself_has_its_line(logged, sends, line):
    server, log = logged
    answer = server.exchange(sends)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = line.rpartition(" ")[2]
    assert head.startswith(b"HTTP/1.1 " + status.encode())
    # A request that is served comes after what the thread still has to say of the one before.
    wait_until(lambda: b" 200 " in server.exchange(GET % b"/arrived?0"), "the thread to be free")
    wait_until(lambda: "GET /arrived 200" in log.read_text(), "its line")
    assert [one for one in log.read_text().splitlines() if "/arrived" not in one] == [f"{line} {len(body)}"]


def test_a_request_that_is_shed_has_its_line(logged):
    server, log = logged
    with server.connect() as first, server.connect() as second, server.connect() as third:
        for client in (first, second, third):
            client.sendall(GET % b"/sleep?0.3")
        statuses = sorted(read_response(client)[0].split()[1].decode() for client in (first, second, third))
    assert set(statuses) == {"200", "503"}
    assert sorted(line.split()[2] for line in lines(log, 3)) == statuses


JSON_LOGS = """
import json, logging
class AsJson(logging.Formatter):
    def format(self, record):
        return json.dumps({"status": record.args["s"], "path": record.args["U"], "agent": record.args["{user-agent}i"]})
logconfig_dict = {
    "root": {"handlers": [], "level": "INFO"},
    "formatters": {"json": {"()": AsJson}},
    "handlers": {"access": {"class": "logging.FileHandler", "filename": "access", "formatter": "json"}},
    "loggers": {
        "gunicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        "gunicorn.error": {"handlers": [], "level": "INFO", "propagate": True},
    },
}
"""


def test_formatters_get_gunicorns_atoms(tmp_path):
    with gunicorn(tmp_path, "apps:gated", _code=JSON_LOGS) as server:
        server.exchange(b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nConnection: close\r\n\r\n")
        (line,) = lines(tmp_path / "access", 1)
    assert json.loads(line) == {"status": "200", "path": "/a", "agent": "x"}


OWN_LOGGER = """
from gunicorn.glogging import Logger
class Counting(Logger):
    def access(self, resp, req, environ, request_time):
        self.error("counted %s %s", resp.status, environ["PATH_INFO"])
logger_class = Counting
"""


def test_a_logger_of_the_sites_own_is_asked_without_an_access_log(tmp_path):
    with gunicorn(tmp_path, "apps:gated", _code=OWN_LOGGER) as server:
        server.exchange(GET % b"/a")
        server.wait_logged("counted 200 OK /a")


def test_statsd_counts_requests_without_an_access_log(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(20)
        host, port = statsd.getsockname()
        with gunicorn(tmp_path, "apps:gated", statsd_host=f"{host}:{port}") as server:
            server.exchange(GET % b"/a")
            seen = b""
            while b"gunicorn.request.status.200:1|c" not in seen:
                seen = statsd.recv(4096)


# As Basic credentials: a user "eve", a newline, and a line as if it were another's.
FORGED = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic ZXZlCjEuMi4zLjQgLSByb290OnB3\r\nConnection: close\r\n\r\n"


OWN_ATOMS = """
from gunicorn.glogging import Logger
class Own(Logger):
    def atoms(self, *about):
        return super().atoms(*about)
logger_class = Own
"""


@pytest.mark.parametrize("plain", [True, False])
def test_no_client_forges_a_line(tmp_path, plain):
    """Through our own lines, and through gunicorn's atoms."""
    log = tmp_path / "access"
    code = "" if plain else OWN_ATOMS
    with gunicorn(tmp_path, "apps:gated", accesslog=str(log), access_log_format="%(u)s %(s)s", _code=code) as server:
        server.exchange(FORGED)
        assert lines(log, 1) == ["eve\\x0a1.2.3.4 - root 200"]
