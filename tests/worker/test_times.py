"""Where the time of a request went: in its head, in the log, in the access log. No verdict depends on the clock: what
is compared are parts with their sum, and a part with a time that was computed or slept at least."""

import json
import re

import pytest
from serving import gunicorn, read_response, wait_until

from fullhouse.telemetry.times import PARTS

ATOMS = "%(route)s %(s)s %(statement_count)s " + " ".join(f"%({part}_ms)s" for part in PARTS)


def ask(server, path: str) -> dict[str, float]:
    """What Server-Timing says, in seconds."""
    head = server.exchange(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    (value,) = re.findall(r"^Server-Timing: (.*)\r$", head.decode(), re.MULTILINE)
    return {name: float(ms) / 1000 for name, ms in re.findall(r"(\w+);dur=([\d.]+)", value)}


@pytest.mark.parametrize("path", ["/compute", "/sleep", "/database"])
def test_parts(tmp_path, path):
    with gunicorn(tmp_path, "apps:timed", "apps.Timed") as server:
        times = ask(server, path)
        server.wait_logged(f"A slow request: GET {path} (<what>/) 200, ")
        line = next(line for line in server.logged().splitlines() if "A slow request" in line)
    total, computed = times.pop("total"), times.pop("computed")
    assert sum(times.values()) == pytest.approx(total, abs=0.001)  # each is rounded
    assert total >= 2
    assert computed <= times["application"]
    if path == "/database":
        assert (times["connection"], times["statements"]) == (0.125, 0.0625)
        assert "connection 0.12, statements 0.06, application" in line
        assert line.endswith("; 2 statements")
    else:
        # It computes for 2 s, however long it waits for a processor meanwhile; or it sleeps for as long.
        assert computed > 1 if path == "/compute" else computed < 1
        assert times["application"] > 1.8


def test_a_quick_request_is_told_to_its_client_only(tmp_path):
    with gunicorn(tmp_path, "apps:timed", "apps.Timed") as server:
        total_s = ask(server, "/quick")["total"]
        ask(server, "/sleep")
        server.wait_logged("A slow request: GET /sleep")
        assert ("GET /quick" in server.logged()) == (total_s > 0.25)


def test_the_wait_for_a_thread_is_a_part(tmp_path):
    with gunicorn(tmp_path, "apps:timed", "apps.Timed", threads=1) as server, server.connect() as other:
        other.sendall(b"GET /sleep HTTP/1.1\r\nHost: a\r\n\r\nGET /sleep HTTP/1.1\r\nHost: a\r\n\r\n")
        with server.connect() as last:
            read_response(other)
            last.sendall(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
            head = read_response(last)[0].decode()
    assert re.search(r"queue;dur=\d+", head)


def test_the_access_log_has_atoms_for_them(tmp_path):
    log = tmp_path / "access"
    with gunicorn(tmp_path, "apps:timed", accesslog=str(log), access_log_format=ATOMS) as server:
        server.exchange(b"GET /database HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        server.exchange(b"GET /bad HTTP/9\r\n\r\n")
        wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
        served, refused = log.read_text().splitlines()
    route, status, statements, _, connection, asked, *_ = served.split()
    assert (route, status, statements, connection, asked) == ("<what>/", "200", "2", "125.0", "62.5")
    assert set(refused.split()[2:]) == {"-"}


def test_the_access_log_can_be_of_json(tmp_path):
    log = tmp_path / "access"
    with gunicorn(tmp_path, "apps:timed", accesslog=str(log), access_log_format="json") as server:
        server.exchange(b'GET /sleep?a="b HTTP/1.1\r\nHost: a\r\nUser-Agent: \xe9"\r\nConnection: close\r\n\r\n')
        server.exchange(b"GET /bad HTTP/9\r\n\r\n")
        wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
        served, refused = map(json.loads, log.read_text().splitlines())
    assert served["http.request.method"] == "GET"
    assert (served["url.path"], served["url.query"], served["http.route"]) == ("/sleep", 'a="b', "<what>/")
    assert (served["http.response.status_code"], served["http.response.body.size"]) == (200, 2)
    assert (served["user_agent.original"], served["client.address"]) == ('é"', "127.0.0.1")
    parts = [served[f"duration.{name}"] for name in PARTS if name != "computed"]
    assert sum(parts) <= served["duration"]
    assert served["duration.application"] > 1.8
    assert (refused["http.response.status_code"], "duration.application" in refused) == (400, False)
